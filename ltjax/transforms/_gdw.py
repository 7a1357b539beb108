"""GDW: class-level weights steered by a small clean set; MW-Net is its instance level.

The loss gradient reaches the parameters through each of the ``C`` logits of an
example. With ``D = p - onehot(y)`` the derivative of the cross-entropy by the logits
and ``J`` their Jacobian, weights ``omega [B, C]`` on these flows give the gradient
``J^T (D * omega / B)``. The derivative of the loss on a clean meta set by these weights
is one more product with ``J``, so nothing here is differentiated twice.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ltjax import _validate
from ltjax._numerics import masked
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._updates import as_jacobian
from ltjax.transforms._gdw_weights import (
    check_change,
    cotangents_of,
    every_class,
    flows_of,
    scalar,
    second_stage,
)
from ltjax.transforms._weighting import (
    Update,
    Weighting,
    count_step,
    outputs_of,
    state_dtype,
)
from ltjax.transforms._weighting_net import apply_weighting_net, init_weighting_net

LEVELS = ("class", "instance")


class GdwState(NamedTuple):
    """State of `gdw`."""

    step: jax.Array  # shape=(), int32; steps taken
    net: dict[str, jax.Array]  # the weighting net, see `init_weighting_net`
    net_opt_state: optax.OptState  # of the net's Adam
    target_weight: jax.Array  # shape=(), float; last batch's mean weight at the labels
    other_weight: jax.Array  # shape=(), float; ... and at the other classes


def gdw(
    num_classes: int,
    *,
    lookahead_lr: float | jax.Array | optax.Schedule,
    key: jax.Array,
    step_size: float | jax.Array | None = None,
    clip: float | jax.Array = 0.2,
    hidden: int = 100,
    net_learning_rate: float | jax.Array = 1e-3,
    net_weight_decay: float | jax.Array = 1e-4,
    level: str = "class",
) -> Weighting:
    r"""Weights the gradient's flow through every logit to suit a small clean set.

    A net gives each example a weight v from its loss. A virtual plain SGD step with
    these weights leads to parameters whose meta gradient u shows, through the
    Jacobian J of the logits, how the weights should change:

    .. math::

        \theta' = \theta - \eta J^\top (D \odot \omega / B), \qquad
        u = \nabla L_\text{meta}(\theta'), \qquad
        \frac{\partial L_\text{meta}}{\partial \omega}
            = -\frac{\eta}{B}\, D \odot (J u)

    The net learns from this derivative (Adam with L2). The step itself is taken with
    the weights of `gdw_weights`, where the net's are those before its update; with
    ``level="instance"`` (MW-Net) with the weights of the net after it, the same for
    all classes. Cost over plain SGD: the meta gradient, one more backward and one
    forward-mode pass; no second-order differentiation.

    ``updates`` is the Jacobian of the ``[B, C]`` logits, or a tree of leaves
    ``(B, C, *param.shape)``. ``update`` needs ``params`` and

    - ``labels=[B]`` of the batch, and ``logits=[B, C]`` with a tree of gradients,
    - ``meta_grad_fn``: ``params -> gradient`` of the mean loss on a batch of clean,
      balanced data, called once with the parameters of the look-ahead. With batch
      normalisation it should use the meta batch's own statistics and discard the
      updated running ones: meta passes must not change them.

    The residuals of the logits stay in memory across the meta gradient. To save memory,
    linearize ``jax.checkpoint(logits_fn,
    policy=jax.checkpoint_policies.dots_saveable)``: it keeps products and convolutions
    and recomputes everything else, which is nearly free in FLOPs (docs/cost.md).

    Args:
      num_classes: C.
      lookahead_lr: eta, not negative; a number or a schedule of the step. The current
        learning rate of the optimiser that follows.
      key: typed PRNG key for the net's initial values.
      step_size: k of `gdw_weights`, ``0.1 * B * C`` by default.
      clip: see `gdw_weights`.
      hidden: width of the net.
      net_learning_rate: of the net's Adam.
      net_weight_decay: of the net's Adam, coupled (added to the gradient).
      level: ``"class"`` or ``"instance"``.

    Returns:
      A `Weighting` of logits, to be used as the first transformation of a chain. With
      `optax.inject_hyperparams`, name ``static_args=("num_classes", "hidden")``.

    Examples:
      >>> x, y = jnp.eye(4), jnp.array([0, 1, 2, 0])  # the last label is wrong
      >>> x_meta, y_meta = jnp.eye(4), jnp.array([0, 1, 2, 2])
      >>> def meta_loss(w):
      ...     return optax.softmax_cross_entropy_with_integer_labels(
      ...         x_meta @ w, y_meta).mean()
      >>> key = jax.random.key(0)
      >>> tx = optax.chain(ltjax.gdw(3, lookahead_lr=0.1, key=key), optax.sgd(0.1))
      >>> params = jnp.zeros((4, 3))
      >>> state = tx.init(params)
      >>> logits, jac = ltjax.linearize(lambda w: x @ w, params)
      >>> updates, state = tx.update(
      ...     jac, state, params, logits=logits, labels=y,
      ...     meta_grad_fn=jax.grad(meta_loss))
      >>> bool(updates[2, 2] > updates[3, 0])  # right labels count more
      True

    References:
      Chen et al., *Generalized DataWeighting via Class-Level Gradient
      Manipulation*, NeurIPS 2021 (arXiv:2111.00056), algorithm 1; Shu et al.,
      *Meta-Weight-Net*, NeurIPS 2019 (arXiv:1902.07379) for ``level="instance"``.
      As in the released code, probabilities are capped at 0.999, constants for the
      constraint, and the virtual step has neither momentum nor weight decay. Unlike it,
      a meta gradient of zero gives finite weights, and k follows B and C: 0.1 B C is
      both of its settings (100 at C = 10, 1000 at C = 100, B = 100).
    """
    _validate.integer("num_classes", num_classes, low=2)
    if not callable(lookahead_lr):
        _validate.number("lookahead_lr", lookahead_lr, low=0)
    _validate.key("key", key)
    check_change(step_size, clip)
    _validate.integer("hidden", hidden, low=1)
    _validate.number("net_learning_rate", net_learning_rate, low=0)
    _validate.number("net_weight_decay", net_weight_decay, low=0)
    _validate.choice("level", level, LEVELS)

    def net_optimizer(dtype):
        return optax.chain(
            optax.add_decayed_weights(scalar(net_weight_decay, dtype)),
            optax.scale_by_adam(),
            optax.scale(-scalar(net_learning_rate, dtype)),
        )

    def init(params):
        dtype = state_dtype(params)
        net = init_weighting_net(key, hidden, dtype)
        return GdwState(
            step=jnp.zeros((), jnp.int32),
            net=net,
            net_opt_state=net_optimizer(dtype).init(net),
            target_weight=jnp.zeros((), dtype),
            other_weight=jnp.zeros((), dtype),
        )

    def weigh(
        jac,
        state,
        params=None,
        *,
        labels,
        meta_grad_fn,
        logits=None,
        where=None,
        **extra_args,
    ):
        del extra_args
        logits = outputs_of(jac, "logits", logits)
        _validate.array("logits", logits, shape=(None, num_classes))
        check_meta(params, meta_grad_fn)
        dtype = state.net["w1"].dtype
        lr = lookahead_lr(state.step) if callable(lookahead_lr) else lookahead_lr
        flows = flows_of(logits, labels, dtype, where)

        v, pullback = jax.vjp(
            lambda net: apply_weighting_net(net, flows.losses), state.net
        )
        first = every_class(v, flows)
        ahead = _lookahead(jac, params, cotangents_of(first, flows), lr)
        tangents = meta_tangents(jac, meta_grad_fn(ahead)).astype(dtype)
        meta_gradient = -scalar(lr, dtype) * tangents

        unit = cotangents_of(jnp.ones_like(first), flows)
        (net_gradient,) = pullback(jnp.sum(unit * meta_gradient, axis=1))
        with jax.numpy_dtype_promotion("standard"):  # which optax's Adam relies on
            net_updates, net_opt_state = net_optimizer(dtype).update(
                net_gradient, state.net_opt_state, state.net
            )
        net = optax.apply_updates(state.net, net_updates)
        squares = jax.tree.map(jnp.square, net_gradient)  # which Adam keeps
        usable = jnp.any(flows.counted) & _all_finite(squares)
        net, net_opt_state = jax.tree.map(
            functools.partial(jnp.where, usable),
            (net, net_opt_state),
            (state.net, state.net_opt_state),
        )

        if level == "class":
            w = second_stage(first, meta_gradient, flows, step_size, clip)
        else:
            w = every_class(apply_weighting_net(net, flows.losses), flows)
        counted = jnp.broadcast_to(flows.counted, w.shape)
        state = state._replace(
            net=net,
            net_opt_state=net_opt_state,
            target_weight=_mean(w, flows.target & counted, state.target_weight),
            other_weight=_mean(w, ~flows.target & counted, state.other_weight),
        )
        return masked(w, counted), cotangents_of(w, flows), state

    return Weighting(init, Update(_logits_jacobian, weigh, count_step))


def _mean(weights: jax.Array, where: jax.Array, otherwise: jax.Array) -> jax.Array:
    """Mean of the weights that count, or the one before where there is none."""
    count = jnp.sum(where)
    total = jnp.sum(weights, where=where)
    mean = total / jnp.maximum(count, 1).astype(weights.dtype)
    return jnp.where(count > 0, mean.astype(otherwise.dtype), otherwise)


def check_meta(params: Any, meta_grad_fn: Any) -> None:
    """Checks what ``update`` of a method with a meta set was called with."""
    if params is None:
        raise ValueError("params must be given to update, got None.")
    if not callable(meta_grad_fn):
        raise TypeError(
            "meta_grad_fn must be a function of params, "
            f"got {type(meta_grad_fn).__name__}."
        )


def meta_tangents(jac: Jacobian, meta_gradient: Any) -> jax.Array:
    """``J u``: change of every output along the meta gradient."""
    try:
        return jac.jvp(meta_gradient)
    except (TypeError, ValueError) as error:
        message = f"meta_grad_fn must return a gradient like params: {error}"
        raise type(error)(message) from None


def _all_finite(tree):
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _lookahead(jac, params, cotangents, learning_rate):
    """Parameters after a plain SGD step."""

    def step(p, g):
        p = jnp.asarray(p)
        return p - scalar(learning_rate, p.dtype) * g

    return jax.tree.map(step, params, jac.vjp(cotangents))


def _logits_jacobian(updates, params, *, labels, logits=None, **extra_args):
    """``updates`` as the Jacobian of logits."""
    del extra_args
    if logits is not None:
        _validate.classification(logits, labels)
        return as_jacobian(updates, params, logits.shape)
    jac = as_jacobian(updates, params, None)
    _validate.classification(outputs_of(jac, "logits", None), labels)
    return jac
