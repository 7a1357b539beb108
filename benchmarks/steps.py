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
    if name == "sgd":
        return plain_step(spec, _mean_gradient)
    row = METHODS[name]
    if row.fixed_head:
        spec = spec._replace(config=dataclasses.replace(spec.config, head="etf"))
    problem = make_problem(spec)
    apply = _keeping_products(problem.apply) if row.recompute else problem.apply
    method = _make_method(row.config, apply)
    if row.forward_mode:
        linearize = functools.partial(ltjax.linearize, method="linearize")
        method = dataclasses.replace(method, linearize=linearize)
    key = jax.random.key(1)

    def fun(state, batch, meta_batch):
        return method.step(state, batch, meta_batch, key)[0]

    return Step(fun, _init(method, problem, spec))


def plain_step(spec: Spec, gradient_of: Callable[..., tuple[Any, Any]]) -> Step:
    """A step of SGD without a method, and its first state.

    Args:
      spec: the model.
      gradient_of: ``(apply, state, batch) -> (gradient, rest)`` of the model, where
        ``rest`` is its new state.
    """
    problem = make_problem(spec)
    method = _make_method(METHODS["sgd"].config, problem.apply)

    def fun(state, batch, meta_batch):
        del meta_batch
        gradient, rest = gradient_of(problem.apply, state, batch)
        updates, opt_state = method.optimizer.update(
            gradient, state.opt_state, state.params
        )
        return state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            opt_state=opt_state,
        )

    return Step(fun, _init(method, problem, spec))


def _mean_gradient(apply, state, batch):
    """The baseline: the gradient of the mean loss."""

    def mean_loss(params):
        outputs, rest = apply(params, state.rest, batch.inputs, train=True)
        return cross_entropy(outputs.logits, batch.targets).mean(), rest

    return jax.grad(mean_loss, has_aux=True)(state.params)


def _make_method(
    config: methods.MethodConfig, apply: Callable[..., Any]
) -> methods.Method:
    return methods.make_method(
        config,
        apply,
        optimizer=_OPTIMIZER,
        epochs=1,
        steps_per_epoch=1,
        class_counts=class_counts(),
    )


def _init(method: methods.Method, problem: Problem, spec: Spec) -> methods.State:
    inputs = jnp.zeros((1, *spec.input_shape))
    return method.init(problem.params, problem.rest, inputs, jax.random.key(1))


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
