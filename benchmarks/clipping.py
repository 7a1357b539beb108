"""Gradients clipped by example: by this library and by two others written in JAX.

Each function returns ``sum_i min(1, C / |g_i|) g_i`` over the gradients of
``losses_fn(params, batch)``, ``[B]``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import ltjax
from benchmarks import steps
from benchmarks.models import Spec
from experiments.methods import Batch
from experiments.methods.losses import cross_entropy

Losses = Callable[[Any, Batch], jax.Array]
ClippedSum = Callable[[Losses, Any, Batch, float], Any]

MICROBATCH = 16
_MAX_NORM = 1.0


def ours(losses_fn: Losses, params: Any, batch: Batch, max_norm: float) -> Any:
    """By weights from the norms of the rows, which are not formed."""
    _, jac = ltjax.linearize(lambda params: losses_fn(params, batch), params)
    return ltjax.clipped_sum(jac, max_norm)


def by_jax_privacy(
    losses_fn: Losses,
    params: Any,
    batch: Batch,
    max_norm: float,
    *,
    microbatch_size: int | None = None,
) -> Any:
    """By `jax_privacy.clipped_grad`, which maps over batches of one example."""
    import jax_privacy

    clipped = jax_privacy.clipped_grad(
        functools.partial(_loss, losses_fn),
        l2_clip_norm=max_norm,
        microbatch_size=microbatch_size,
    )
    return clipped(params, batch)


def by_optax(
    losses_fn: Losses,
    params: Any,
    batch: Batch,
    max_norm: float,
    *,
    microbatch_size: int | None = None,
) -> Any:
    """By `optax.microbatching.micro_grad`, which maps in the same way."""
    clipped = optax.microbatching.micro_grad(
        functools.partial(_loss, losses_fn),
        transform_fn=functools.partial(_clip, max_norm),
        microbatch_size=microbatch_size,
    )
    return clipped(params, batch)[0]


def make_step(clipped_sum: ClippedSum, spec: Spec) -> steps.Step:
    """SGD along the clipped sum over the number of examples."""

    def gradient_of(apply, state, batch):
        def losses_fn(params, batch):
            outputs, _ = apply(params, state.rest, batch.inputs, train=True)
            return cross_entropy(outputs.logits, batch.targets)

        total = clipped_sum(losses_fn, state.params, batch, _MAX_NORM)
        return jax.tree.map(lambda g: g / len(batch.targets), total), state.rest

    return steps.plain_step(spec, gradient_of)


def _clip(max_norm, gradient):
    """One gradient of at most a norm."""
    scale = jnp.minimum(max_norm / optax.tree.norm(gradient), 1)
    return optax.tree.scale(scale, gradient)


def _loss(losses_fn, params, example):
    """The loss of a batch of one."""
    return losses_fn(params, example)[0]
