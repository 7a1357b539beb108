"""One training step of plain SGD and of every method: that of `experiments.train`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

import ltjax
from benchmarks.models import Problem, Spec, class_counts, make_problem
from experiments import methods
from experiments.methods.losses import cross_entropy

LEARNING_RATE = 0.01
_OPTIMIZER = methods.OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant")

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


class Step(NamedTuple):
    """A step that can be compiled: ``fun(state, batch, meta_batch) -> state``."""

    fun: Callable[[Any, methods.Batch, methods.Batch | None], Any]
    state: methods.State


class Row(NamedTuple):
    """What one row of the table measures."""

    label: str
    config: methods.MethodConfig
    meta_share: float = 0.0  # size of the meta batch over that of the batch
    fixed_head: bool = False
    recompute: bool = False  # keep only the results of products for the backward pass
    forward_mode: bool = False  # no interception of layers


def make_step(name: str, spec: Spec) -> Step:
    """The step of a method, and its first state."""
    row = METHODS[name]
    if row.fixed_head:
        spec = spec._replace(config=dataclasses.replace(spec.config, head="etf"))
    problem = make_problem(spec)
    key = jax.random.key(1)
    method = methods.make_method(
        row.config,
        _keeping_products(problem.apply) if row.recompute else problem.apply,
        optimizer=_OPTIMIZER,
        epochs=1,
        steps_per_epoch=1,
        class_counts=class_counts(),
    )
    if row.forward_mode:
        linearize = functools.partial(ltjax.linearize, method="linearize")
        method = dataclasses.replace(method, linearize=linearize)

    def fun(state, batch, meta_batch):
        return method.step(state, batch, meta_batch, key)[0]

    inputs = jnp.zeros((1, *spec.input_shape))
    state = method.init(problem.params, problem.rest, inputs, key)
    return Step(_plain(problem, method.optimizer) if name == "sgd" else fun, state)


def _plain(
    problem: Problem, tx: optax.GradientTransformation
) -> Callable[..., methods.State]:
    """The baseline, without this library: the gradient of the mean loss."""

    def fun(state, batch, meta_batch):
        del meta_batch

        def mean_loss(params):
            outputs, rest = problem.apply(params, state.rest, batch.inputs, train=True)
            return cross_entropy(outputs.logits, batch.targets).mean(), rest

        gradient, rest = jax.grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        return state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            opt_state=opt_state,
        )

    return fun


def _keeping_products(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The model, with all but its products recomputed in the backward pass."""

    def recomputing(params, rest, inputs, **mode):
        return jax.checkpoint(
            lambda params: apply(params, rest, inputs, **mode),
            policy=jax.checkpoint_policies.dots_saveable,  # convolutions, too
        )(params)

    return recomputing


def _gradtail(**settings: Any) -> methods.MethodConfig:
    return methods.MethodConfig(weighting=methods.GradTail(**settings))


_DOTS = {"similarity": "dot_unit_mean", "activation": "bump", "definition": "row"}
# Where examples are independent all definitions are the same.
_COSINES = {"definition": "attribution"}
_WEIGHTED = {"reference": "weighted"}
_GDW = methods.MethodConfig(weighting=methods.Gdw())

METHODS: dict[str, Row] = {
    "sgd": Row("plain SGD", methods.MethodConfig()),
    "absgd": Row("ABSGD", methods.MethodConfig(weighting=methods.Absgd())),
    "elm": Row("ELM", methods.MethodConfig(loss=methods.Elm())),
    "weight-balancing": Row(
        "weight balancing", methods.MethodConfig(feature_penalty=0.01), fixed_head=True
    ),
    "gradtail-dots": Row("GradTail, dots", _gradtail(**_DOTS, **_WEIGHTED)),
    "gradtail-unweighted": Row("GradTail, dots, plain mean", _gradtail(**_DOTS)),
    "gradtail-jvp": Row(
        "GradTail, dots, forward mode",
        _gradtail(**_DOTS, **_WEIGHTED),
        forward_mode=True,
    ),
    "gradtail-cosine": Row(
        "GradTail, gated cosines", _gradtail(**_COSINES, **_WEIGHTED)
    ),
    "gradtail-default": Row(
        "GradTail, gated cosines, plain mean", _gradtail(**_COSINES)
    ),
    "gdw": Row("GDW", _GDW, meta_share=1.0),
    "gdw-quarter": Row("GDW, quarter meta batch", _GDW, meta_share=0.25),
    "gdw-recompute": Row(
        "GDW, keeping products only", _GDW, meta_share=1.0, recompute=True
    ),
    "mw-net": Row(
        "MW-Net", methods.MethodConfig(weighting=methods.MwNet()), meta_share=1.0
    ),
    "l2rw": Row("L2RW", methods.MethodConfig(weighting=methods.L2rw()), meta_share=1.0),
}
