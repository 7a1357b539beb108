"""Losses that are robust to wrong labels."""

import math

import jax
import jax.numpy as jnp

from ltjax import _numerics, _validate
from ltjax.losses import _target

_SMALLEST_PROBABILITY = 1e-7
_SMALLEST_TARGET = 1e-4


def symmetric_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    alpha: float | jax.Array,
    beta: float | jax.Array,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Cross-entropy plus its reverse, in which labels and predictions swap roles.

    .. math::
      \ell_i = -\alpha \log p_{i, y_i} + \beta A \sum_{c \ne y_i} \max(p_{ic}, 10^{-7}),
      \qquad A = -\log 10^{-4}

    The reverse term is ``-sum_c clip(p_c, 1e-7, 1) log clip(Y_c, 1e-4, 1)`` with
    one-hot ``Y``: bounded by ``A``, so that no single wrong label can dominate.

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      alpha: weight of cross-entropy, at least 0. May be traced.
      beta: weight of the reverse term, at least 0; 0 gives ``alpha`` times plain
        cross-entropy. May be traced.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.zeros((1, 4)), jnp.array([1])
      >>> f"{ltjax.losses.symmetric_cross_entropy(z, y, alpha=0.1, beta=1.0)[0]:.3f}"
      '7.046'

    References:
      Wang et al., *Symmetric cross entropy for robust learning with noisy labels*,
      ICCV 2019, section 3. The clipping constants are those of released code.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.number("alpha", alpha, low=0.0)
    _validate.number("beta", beta, low=0.0)
    p = jnp.maximum(jax.nn.softmax(z), _SMALLEST_PROBABILITY)
    others = 1 - _target.probabilities(labels, z.shape[1], z.dtype)
    reverse = -math.log(_SMALLEST_TARGET) * jnp.sum(others * p, axis=1)
    forward = _target.expect(jax.nn.softplus(_target.deficit(z, labels)), labels)
    alpha, beta = jnp.asarray(alpha, z.dtype), jnp.asarray(beta, z.dtype)
    return _numerics.masked(alpha * forward + beta * reverse, where)


def generalized_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    q: float | jax.Array = 0.7,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""A bridge from cross-entropy (``q`` to 0) to the mean absolute error (``q = 1``).

    .. math:: \ell_i = \frac{1 - p_{i, y_i}^q}{q}, \qquad p_i = \mathrm{softmax}(z_i)

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      q: in ``(0, 1]``; larger values tolerate more noise and learn more slowly. May be
        traced.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced, each in ``[0, 1/q]``.

    Examples:
      >>> z, y = jnp.zeros((1, 4)), jnp.array([1])
      >>> f"{ltjax.losses.generalized_cross_entropy(z, y, q=0.5)[0]:.3f}"
      '1.000'

    References:
      Zhang and Sabuncu, *Generalized cross entropy loss for training deep neural
      networks with noisy labels*, NeurIPS 2018, section 3.2.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.number("q", q, low=0.0, high=1.0, open_low=True)
    cross_entropy = jax.nn.softplus(_target.deficit(z, labels))
    losses = _target.expect(_box_cox(cross_entropy, q), labels)
    return _numerics.masked(losses, where)


def truncated_generalized_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    q: float | jax.Array = 0.7,
    k: float | jax.Array = 0.5,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Generalised cross-entropy, constant where the target is less likely than ``k``.

    .. math:: \ell_i = \frac{1 - \max(p_{i, y_i}, k)^q}{q}

    An example that the model contradicts has no gradient. At initialisation that is
    nearly every example, so truncation must start later: train with ``k = 0`` first,
    which truncates nothing, as ``k=jnp.where(epoch < 80, 0.0, 0.5)`` does.

    Args:
      logits: ``[B, C]`` scores, any float dtype.
      labels: ``[B]`` integers in ``[0, C)``; out-of-range values are not detected.
        Or ``[B, C]`` probabilities (one-hot, smoothed, mixed): the loss is then its
        mean under them.
      q: in ``(0, 1]``, see :func:`generalized_cross_entropy`. May be traced.
      k: truncation probability in ``[0, 1)``; 0 gives the untruncated loss. May be
        traced, as a schedule needs.
      where: ``[B]`` booleans, false for padding: loss 0, whatever its logits and label.

    Returns:
      ``[B]`` losses in at least float32, not reduced.

    Examples:
      >>> z, y = jnp.array([[0.0, 9.0], [0.0, 1.0]]), jnp.array([0, 1])
      >>> loss = ltjax.losses.truncated_generalized_cross_entropy(z, y, q=1.0, k=0.5)
      >>> f"{loss[0]:.3f} {loss[1]:.3f}"
      '0.500 0.269'

    References:
      Zhang and Sabuncu, NeurIPS 2018, section 3.3. The authors find which examples to
      truncate once every few epochs; here the current prediction decides.
    """
    z, labels = _target.prepare(logits, labels, where)
    _validate.number("q", q, low=0.0, high=1.0, open_low=True)
    _validate.number("k", k, low=0.0, high=1.0, open_high=True)
    cross_entropy = jax.nn.softplus(_target.deficit(z, labels))
    limit = -jnp.log(jnp.asarray(k, z.dtype))
    truncated = jnp.where(cross_entropy < limit, cross_entropy, limit)
    losses = _target.expect(_box_cox(truncated, q), labels)
    return _numerics.masked(losses, where)


def _box_cox(cross_entropy, q):
    """``(1 - p^q) / q`` from ``-log p``, without cancellation as ``q`` vanishes."""
    q = jnp.asarray(q, cross_entropy.dtype)
    return -jnp.expm1(-q * cross_entropy) / q
