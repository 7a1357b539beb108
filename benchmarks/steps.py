"""One training step of plain SGD and of every method, as a user would write it."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import optax

import ltjax
from benchmarks.models import (
    NUM_CLASSES,
    Batch,
    Problem,
    Spec,
    class_priors,
    cross_entropy,
    make_problem,
)

LEARNING_RATE = 0.01

MethodName = Literal[
    "sgd",
    "absgd",
    "elm",
    "weight-balancing",
    "gradtail-dots",
    "gradtail-unweighted",
    "gradtail-jvp",
    "gradtail-cosine",
    "gradtail-default",
    "gdw",
    "gdw-quarter",
    "gdw-recompute",
    "mw-net",
    "l2rw",
]


class State(NamedTuple):
    """Everything a step changes."""

    params: Any
    rest: Any
    opt_state: Any


class Step(NamedTuple):
    """A step that can be compiled: ``fun(state, batch, meta_batch) -> state``."""

    fun: Callable[[State, Batch, Batch], State]
    state: State


class Method(NamedTuple):
    """What one row of the table measures."""

    label: str
    build: Callable[[Problem], tuple[optax.GradientTransformation, Any]]
    meta_share: float = 0.0  # size of the meta batch over that of the batch
    fixed_head: bool = False


def make_step(name: str, spec: Spec) -> Step:
    """The step of a method, and its first state."""
    method = METHODS[name]
    if method.fixed_head:
        spec = spec._replace(config=dataclasses.replace(spec.config, head="etf"))
    problem = make_problem(spec)
    tx, gradient = method.build(problem)
    tx = optax.chain(
        tx,
        optax.add_decayed_weights(5e-4),
        optax.sgd(LEARNING_RATE, momentum=0.9),
    )

    def fun(state, batch, meta_batch):
        updates, extra, rest = gradient(state.params, state.rest, batch, meta_batch)
        updates, opt_state = tx.update(updates, state.opt_state, state.params, **extra)
        return State(optax.apply_updates(state.params, updates), rest, opt_state)

    state = State(problem.params, problem.rest, tx.init(problem.params))
    return Step(fun, state)


def _plain(problem: Problem):
    """The baseline: the gradient of the mean loss, without this library."""

    def gradient(params, rest, batch, meta_batch):
        del meta_batch

        def mean_loss(p):
            outputs, new = problem.forward(p, rest, batch)
            return cross_entropy(outputs.logits, batch.labels).mean(), new

        updates, rest = jax.grad(mean_loss, has_aux=True)(params)
        return updates, {}, rest

    return optax.identity(), gradient


def _penalized(problem: Problem):
    """Weight balancing: a penalty on features, a fixed head, weight decay."""

    def gradient(params, rest, batch, meta_batch):
        del meta_batch

        def mean_loss(p):
            outputs, new = problem.forward(p, rest, batch)
            losses = cross_entropy(outputs.logits, batch.labels)
            penalty = ltjax.losses.feature_penalty(outputs.embeddings)
            return (losses + 0.01 * penalty).mean(), new

        updates, rest = jax.grad(mean_loss, has_aux=True)(params)
        return updates, {}, rest

    return optax.identity(), gradient


def _elm(problem: Problem):
    """Margins between logits and between embeddings."""

    def gradient(params, rest, batch, meta_batch):
        del meta_batch

        def mean_loss(p):
            outputs, new = problem.forward(p, rest, batch)
            losses = ltjax.losses.elm(
                outputs.logits,
                outputs.embeddings,
                batch.labels,
                class_priors=class_priors(),
            )
            return losses.mean(), new

        updates, rest = jax.grad(mean_loss, has_aux=True)(params)
        return updates, {}, rest

    return optax.identity(), gradient


def _from_losses(
    make: Callable[[], ltjax.Weighting], *, meta: bool = False, method: str = "auto"
):
    """Methods that weight the rows of the losses' Jacobian."""

    def build(problem):
        def gradient(params, rest, batch, meta_batch):
            def losses_fn(p):
                outputs, new = problem.forward(p, rest, batch)
                return cross_entropy(outputs.logits, batch.labels), new

            losses, jac, new = ltjax.linearize(
                losses_fn, params, has_aux=True, method=method
            )
            extra = {"losses": losses}
            if meta:
                extra["meta_grad_fn"] = _meta_gradient(problem, rest, meta_batch)
            return jac, extra, new

        return make(), gradient

    return build


def _from_logits(level: str, *, recompute: bool = False):
    """Methods that weight the rows of the logits' Jacobian."""

    def build(problem):
        def gradient(params, rest, batch, meta_batch):
            def logits_fn(p):
                outputs, new = problem.forward(p, rest, batch)
                return outputs.logits, new

            if recompute:
                policy = jax.checkpoint_policies.dots_saveable  # convolutions, too
                logits_fn = jax.checkpoint(logits_fn, policy=policy)
            logits, jac, new = ltjax.linearize(logits_fn, params, has_aux=True)
            extra = {
                "logits": logits,
                "labels": batch.labels,
                "meta_grad_fn": _meta_gradient(problem, rest, meta_batch),
            }
            return jac, extra, new

        tx = ltjax.gdw(
            NUM_CLASSES,
            lookahead_lr=LEARNING_RATE,
            key=jax.random.key(1),
            level=level,
        )
        return tx, gradient

    return build


def _meta_gradient(problem, rest, meta_batch):
    """Gradient of the mean loss of the meta batch, as a function of parameters."""

    @jax.grad
    def gradient(params):
        outputs, _ = problem.forward(params, rest, meta_batch)
        return cross_entropy(outputs.logits, meta_batch.labels).mean()

    return gradient


def _dots(reference: str):
    return lambda: ltjax.gradtail(
        similarity="dot_unit_mean", activation="bump", reference=reference
    )


def _cosines(reference: str):
    # Where examples are independent all definitions are the same.
    return lambda: ltjax.gradtail(reference=reference, definition="attribution")


METHODS: dict[str, Method] = {
    "sgd": Method("plain SGD", _plain),
    "absgd": Method("ABSGD", _from_losses(lambda: ltjax.absgd(1.0))),
    "elm": Method("ELM", _elm),
    "weight-balancing": Method("weight balancing", _penalized, fixed_head=True),
    "gradtail-dots": Method("GradTail, dots", _from_losses(_dots("weighted"))),
    "gradtail-unweighted": Method(
        "GradTail, dots, plain mean", _from_losses(_dots("unweighted"))
    ),
    "gradtail-jvp": Method(
        "GradTail, dots, forward mode",
        _from_losses(_dots("weighted"), method="linearize"),
    ),
    "gradtail-cosine": Method(
        "GradTail, gated cosines",
        _from_losses(_cosines("weighted")),
    ),
    "gradtail-default": Method(
        "GradTail, gated cosines, plain mean", _from_losses(_cosines("unweighted"))
    ),
    "gdw": Method("GDW", _from_logits("class"), meta_share=1.0),
    "gdw-quarter": Method(
        "GDW, quarter meta batch", _from_logits("class"), meta_share=0.25
    ),
    "gdw-recompute": Method(
        "GDW, keeping products only",
        _from_logits("class", recompute=True),
        meta_share=1.0,
    ),
    "mw-net": Method("MW-Net", _from_logits("instance"), meta_share=1.0),
    "l2rw": Method("L2RW", _from_losses(ltjax.l2rw, meta=True), meta_share=1.0),
}
