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
from ltjax._numerics import EPS, at_least_float32
from ltjax.jacobian._operator import Jacobian
from ltjax.jacobian._updates import as_jacobian
from ltjax.transforms._weighting import (
    Update,
    Weighting,
    check_mask,
    count_step,
    masked,
    outputs_of,
    state_dtype,
)

LEVELS = ("class", "instance")
_MAX_PROBABILITY = 0.999
_WEIGHT_RANGE = (1e-6, 1e6)


class GdwState(NamedTuple):
    """State of `gdw`."""

    step: jax.Array  # shape=(), int32; steps taken
    net: dict[str, jax.Array]  # the weighting net, see `init_weighting_net`
    net_opt_state: optax.OptState  # of the net's Adam
    target_weight: jax.Array  # shape=(), float; last batch's mean weight at the labels
    other_weight: jax.Array  # shape=(), float; ... and at the other classes


def init_weighting_net(
    key: jax.Array, hidden: int = 100, dtype: Any = jnp.float32
) -> dict[str, jax.Array]:
    r"""A net from a loss to a weight, one hidden layer, uniform in
    :math:`\pm 1 / \sqrt{\text{fan-in}}`.

    Args:
      key: typed PRNG key.
      hidden: width H.
      dtype: floating dtype of the arrays.

    Returns:
      ``{"w1": [1, H], "b1": [H], "w2": [H, 1], "b2": [1]}``.
    """
    _validate.key("key", key)
    _validate.integer("hidden", hidden, low=1)
    shapes = {"w1": (1, hidden), "b1": (hidden,), "w2": (hidden, 1), "b2": (1,)}
    bounds = {"w1": 1.0, "b1": 1.0, "w2": hidden**-0.5, "b2": hidden**-0.5}
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    return {
        name: jax.random.uniform(keys[name], shape, dtype, -bounds[name], bounds[name])
        for name, shape in shapes.items()
    }


def apply_weighting_net(net: dict[str, jax.Array], losses: jax.Array) -> jax.Array:
    r"""Weights in (0, 1): :math:`\sigma(w_2^\top \max(w_1 \ell + b_1, 0) + b_2)`.

    Args:
      net: as `init_weighting_net` makes it.
      losses: ``[B]``; no gradient flows to them.

    Returns:
      ``[B]`` weights in the dtype of the net.
    """
    _validate.array("losses", losses, ndim=1, kind="floating")
    x = jax.lax.stop_gradient(losses).astype(net["w1"].dtype)[:, None]
    hidden = jax.nn.relu(jnp.dot(x, net["w1"], precision="highest") + net["b1"][None])
    out = jnp.dot(hidden, net["w2"], precision="highest") + net["b2"][None]
    return jax.nn.sigmoid(out[:, 0])


def zero_mean_weights(
    weights: jax.Array, logits: jax.Array, labels: jax.Array
) -> jax.Array:
    r"""Weights whose label's entry makes each example's weighted flow sum to zero.

    .. math::

        \omega_{i y_i} \leftarrow
            \frac{\sum_{c \ne y_i} \omega_{ic}\, p_{ic}}{1 - p_{i y_i}}
        \quad\Longrightarrow\quad \sum_c \omega_{ic} D_{ic} = 0

    Args:
      weights: ``[B, C]``; the entries at the labels are not read.
      logits: ``[B, C]``; no gradient flows to them.
      labels: ``[B]`` integers in ``[0, C)``.

    Returns:
      ``[B, C]`` weights in at least float32.
    """
    _check(weights, logits, labels)
    weights = at_least_float32(weights)
    return _zero_mean(weights, _flows(logits, labels, weights.dtype))


def logit_cotangents(
    weights: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The weighted derivative of the mean cross-entropy by the logits.

    .. math:: \omega_{ic} D_{ic} / B, \qquad
              \omega_{i y_i} D_{i y_i} = -\sum_{c \ne y_i} \omega_{ic}\, p_{ic}

    Args:
      weights: ``[B, C]``; the entries at the labels follow from the others by the
        zero-mean constraint and are not read.
      logits: ``[B, C]``; no gradient flows to them.
      labels: ``[B]`` integers in ``[0, C)``.
      where: ``[B]`` booleans, false for padding: cotangents 0, not counted in B.

    Returns:
      ``[B, C]`` in at least float32, what `ltjax.Jacobian.vjp` of the logits takes.

    Examples:
      >>> logits, labels = jnp.zeros((1, 4)), jnp.array([0])
      >>> weights = jnp.array([[9.0, 1.0, 1.0, 0.0]])
      >>> print(ltjax.logit_cotangents(weights, logits, labels))
      [[-0.5   0.25  0.25  0.  ]]
    """
    _check(weights, logits, labels)
    weights = at_least_float32(weights)
    return _cotangents(weights, _flows(logits, labels, weights.dtype, where))


def gdw_weights(
    example_weights: jax.Array,
    meta_gradient: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    *,
    step_size: float | jax.Array | None = None,
    clip: float | jax.Array = 0.2,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Class-level weights: example weights after one step down the meta loss.

    .. math::

        g = D \odot \frac{\partial L}{\partial (\omega \odot D)}, \qquad
        \omega \leftarrow v - \mathrm{clip}\Big(
            \frac{k\, g}{\sum_{ic} |g_{ic}|}, \pm \text{clip} \Big)

    with the zero-mean constraint before and after, and :math:`\omega` kept in
    [1e-6, 1e6].

    Args:
      example_weights: ``[B]`` weights v.
      meta_gradient: ``[B, C]`` derivative of the meta loss L by the cotangents
        ``omega * D / B`` of the look-ahead.
      logits: ``[B, C]``.
      labels: ``[B]`` integers in ``[0, C)``.
      step_size: k, not negative; ``0.1 * B * C`` by default.
      clip: largest change of a weight, not negative.
      where: ``[B]`` booleans, false for padding: weights 0, not counted in B.

    Returns:
      ``[B, C]`` weights in at least float32.

    Examples:
      >>> logits, labels = jnp.zeros((2, 3)), jnp.array([0, 1])
      >>> gradient = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
      >>> print(ltjax.gdw_weights(jnp.array([0.5, 0.5]), gradient, logits, labels))
      [[0.5 0.5 0.5]
       [0.5 0.4 0.3]]
    """
    _validate.classification(logits, labels)
    batch = labels.shape[0]
    _validate.array("example_weights", example_weights, shape=(batch,), kind="floating")
    _validate.array("meta_gradient", meta_gradient, shape=logits.shape, kind="floating")
    _check_change(step_size, clip)
    example_weights = at_least_float32(example_weights)
    flows = _flows(logits, labels, example_weights.dtype, where)
    first = _every_class(example_weights, flows)
    weights = _second_stage(first, meta_gradient, flows, step_size, clip)
    return masked(weights, flows.counted)


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
    _check_change(step_size, clip)
    _validate.integer("hidden", hidden, low=1)
    _validate.number("net_learning_rate", net_learning_rate, low=0)
    _validate.number("net_weight_decay", net_weight_decay, low=0)
    _validate.choice("level", level, LEVELS)

    def net_optimizer(dtype):
        return optax.chain(
            optax.add_decayed_weights(_scalar(net_weight_decay, dtype)),
            optax.scale_by_adam(),
            optax.scale(-_scalar(net_learning_rate, dtype)),
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
        flows = _flows(logits, labels, dtype, where)

        v, pullback = jax.vjp(
            lambda net: apply_weighting_net(net, flows.losses), state.net
        )
        first = _every_class(v, flows)
        ahead = _lookahead(jac, params, _cotangents(first, flows), lr)
        tangents = meta_tangents(jac, meta_grad_fn(ahead)).astype(dtype)
        meta_gradient = -_scalar(lr, dtype) * tangents

        unit = _cotangents(jnp.ones_like(first), flows)
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
            w = _second_stage(first, meta_gradient, flows, step_size, clip)
        else:
            w = _every_class(apply_weighting_net(net, flows.losses), flows)
        counted = jnp.broadcast_to(flows.counted, w.shape)
        state = state._replace(
            net=net,
            net_opt_state=net_opt_state,
            target_weight=jnp.mean(w, where=flows.target & counted),
            other_weight=jnp.mean(w, where=~flows.target & counted),
        )
        return masked(w, counted), _cotangents(w, flows), state

    return Weighting(init, Update(_logits_jacobian, weigh, count_step))


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
        return p - _scalar(learning_rate, p.dtype) * g

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


class _Flows(NamedTuple):
    """What the logits say of a batch, computed once per step."""

    probs: jax.Array  # [B, C], float; capped
    target: jax.Array  # [B, C], bool; whether the class is the label
    losses: jax.Array  # [B], float; cross-entropy
    counted: jax.Array  # [B, 1], bool; false for padding

    @property
    def size(self) -> jax.Array:
        """Number of examples without padding, at least 1."""
        return jnp.maximum(jnp.sum(self.counted), 1).astype(self.losses.dtype)


def _flows(logits, labels, dtype, where=None):
    check_mask(where, labels.shape)
    counted = jnp.ones(labels.shape, bool) if where is None else where
    log_probs = jax.nn.log_softmax(jax.lax.stop_gradient(logits).astype(dtype), axis=1)
    target = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    return _Flows(
        probs=jnp.minimum(jnp.exp(log_probs), _MAX_PROBABILITY),
        target=target,
        losses=-jnp.sum(log_probs, axis=1, where=target),
        counted=counted[:, None],
    )


def _every_class(example_weights, flows):
    """``[B]`` weights for all classes, zero-mean."""
    weights = jnp.broadcast_to(example_weights[:, None], flows.probs.shape)
    return _zero_mean(weights, flows)


def _zero_mean(weights, flows):
    others = jnp.sum(weights * flows.probs, axis=1, where=~flows.target)
    remaining = 1 - jnp.sum(flows.probs, axis=1, where=flows.target)
    return jnp.where(flows.target, (others / remaining)[:, None], weights)


def _cotangents(weights, flows):
    left_out = flows.target | ~flows.counted
    others = jnp.where(left_out, 0, weights * flows.probs) / flows.size
    return jnp.where(flows.target, -jnp.sum(others, axis=1, keepdims=True), others)


def _second_stage(weights, meta_gradient, flows, step_size, clip):
    """Zero-mean weights after a normalised, clipped step down the meta gradient."""
    dtype = weights.dtype
    if step_size is None:
        step_size = 0.1 * weights.shape[1] * flows.size
    size, limit = _scalar(step_size, dtype), _scalar(clip, dtype)
    derivative = masked(flows.probs - flows.target.astype(dtype), flows.counted)
    gradient = derivative * meta_gradient.astype(dtype) / flows.size
    total = jnp.maximum(jnp.sum(jnp.abs(gradient)), EPS)
    change = jnp.clip(size * (gradient / total), -limit, limit)
    return _zero_mean(jnp.clip(weights - change, *_WEIGHT_RANGE), flows)


def _scalar(value, dtype):
    return jnp.asarray(value, dtype)


def _check_change(step_size, clip):
    if step_size is not None:
        _validate.number("step_size", step_size, low=0)
    _validate.number("clip", clip, low=0)


def _check(weights, logits, labels):
    _validate.classification(logits, labels)
    _validate.array("weights", weights, shape=logits.shape, kind="floating")
