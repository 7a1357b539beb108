"""Weights on the flows of the loss gradient through each logit of an example.

A flow is an entry of ``D = p - onehot(y)``, the derivative of the cross-entropy by the
logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ltjax import _validate
from ltjax._numerics import EPS, at_least_float32, masked

_MAX_PROBABILITY = 0.999
_WEIGHT_RANGE = (1e-6, 1e6)


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
    return _zero_mean(weights, flows_of(logits, labels, weights.dtype))


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
    return cotangents_of(weights, flows_of(logits, labels, weights.dtype, where))


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
    check_change(step_size, clip)
    example_weights = at_least_float32(example_weights)
    flows = flows_of(logits, labels, example_weights.dtype, where)
    first = every_class(example_weights, flows)
    weights = second_stage(first, meta_gradient, flows, step_size, clip)
    return masked(weights, flows.counted)


class Flows(NamedTuple):
    """What the logits say of a batch, computed once per step."""

    probs: jax.Array  # [B, C], float; capped
    target: jax.Array  # [B, C], bool; whether the class is the label
    losses: jax.Array  # [B], float; cross-entropy
    counted: jax.Array  # [B, 1], bool; false for padding

    @property
    def size(self) -> jax.Array:
        """Number of examples without padding, at least 1."""
        return jnp.maximum(jnp.sum(self.counted), 1).astype(self.losses.dtype)


def flows_of(logits, labels, dtype, where=None):
    """The flows of a batch; no gradient passes to the logits."""
    _validate.mask(where, labels.shape)
    counted = jnp.ones(labels.shape, bool) if where is None else where
    log_probs = jax.nn.log_softmax(jax.lax.stop_gradient(logits).astype(dtype), axis=1)
    target = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    return Flows(
        probs=jnp.minimum(jnp.exp(log_probs), _MAX_PROBABILITY),
        target=target,
        losses=-jnp.sum(log_probs, axis=1, where=target),
        counted=counted[:, None],
    )


def every_class(example_weights, flows):
    """``[B]`` weights for all classes, zero-mean."""
    weights = jnp.broadcast_to(example_weights[:, None], flows.probs.shape)
    return _zero_mean(weights, flows)


def _zero_mean(weights, flows):
    others = jnp.sum(weights * flows.probs, axis=1, where=~flows.target)
    remaining = 1 - jnp.sum(flows.probs, axis=1, where=flows.target)
    return jnp.where(flows.target, (others / remaining)[:, None], weights)


def cotangents_of(weights, flows):
    """Weighted derivative of the mean cross-entropy by the logits."""
    left_out = flows.target | ~flows.counted
    others = jnp.where(left_out, 0, weights * flows.probs) / flows.size
    return jnp.where(flows.target, -jnp.sum(others, axis=1, keepdims=True), others)


def second_stage(weights, meta_gradient, flows, step_size, clip):
    """Zero-mean weights after a normalised, clipped step down the meta gradient."""
    dtype = weights.dtype
    if step_size is None:
        step_size = 0.1 * weights.shape[1] * flows.size
    size, limit = scalar(step_size, dtype), scalar(clip, dtype)
    derivative = masked(flows.probs - flows.target.astype(dtype), flows.counted)
    gradient = derivative * meta_gradient.astype(dtype) / flows.size
    total = jnp.maximum(jnp.sum(jnp.abs(gradient)), EPS)
    change = jnp.clip(size * (gradient / total), -limit, limit)
    return _zero_mean(jnp.clip(weights - change, *_WEIGHT_RANGE), flows)


def scalar(value, dtype):
    """A number, traced or not, in the dtype it is computed with."""
    return jnp.asarray(value, dtype)


def check_change(step_size, clip):
    """Checks what `second_stage` is set by."""
    if step_size is not None:
        _validate.number("step_size", step_size, low=0)
    _validate.number("clip", clip, low=0)


def _check(weights, logits, labels):
    _validate.classification(logits, labels)
    _validate.array("weights", weights, shape=logits.shape, kind="floating")
