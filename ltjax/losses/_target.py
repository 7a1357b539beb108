"""The target of an example: an integer, or probabilities of all classes.

A loss is computed for the integer, ``[B]``, or for every class, ``[B, C]``, of which
`expect` then takes the mean under the probabilities. Most are functions of the target's
deficit, in which they are simple and stable.
"""

import jax
import jax.numpy as jnp
import optax

from ltjax import _numerics, _validate


def prepare(
    logits: jax.Array, labels: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Checked logits, in at least float32, and labels; both are 0 for padding.

    The loss of a padded example and its derivatives are then finite whatever it held,
    so that `_numerics.masked` makes zeros of both.
    """
    _validate.targets(logits, labels)
    _validate.mask(where, logits.shape[:1])
    z = _numerics.at_least_float32(logits)
    return _numerics.masked(z, where), _numerics.masked(labels, where)


def deficit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""How far the target trails all other classes together, ``[B]`` or ``[B, C]``.

    With :math:`m = \log \sum_{c \ne y} e^{z_c} - z_y` the probability of the target is
    ``sigmoid(-m)``: cross-entropy is ``softplus(m)``, and the log-probability of
    all other classes ``-softplus(-m)``. Both are exact at either end, and the
    gradient of ``m`` is bounded.
    """
    if labels.ndim == 2:  # of no class that cannot be the target: it may be masked
        return jnp.where(labels == 0, 0, _deficits(logits))
    is_target = jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.bool_)
    target = jnp.sum(logits, axis=1, where=is_target)
    return jax.nn.logsumexp(logits, axis=1, where=~is_target) - target


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy with the target, ``[B]``; its mean under probabilities."""
    if labels.ndim == 2:
        return expect(jax.nn.softplus(deficit(logits, labels)), labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def expect(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Values of the target, ``[B]``; the mean of all under probabilities."""
    if labels.ndim == 2:
        return jnp.sum(labels.astype(values.dtype) * values, axis=1)
    return values


def pick(class_vector: jax.Array, labels: jax.Array) -> jax.Array:
    """A class vector ``[C]`` at the target, ``[B]``; ``[1, C]`` for all classes."""
    return class_vector[None, :] if labels.ndim == 2 else class_vector[labels]


def probabilities(labels: jax.Array, num_classes: int, dtype: jnp.dtype) -> jax.Array:
    """Labels as probabilities ``[B, C]``."""
    if labels.ndim == 2:
        return labels.astype(dtype)
    return jax.nn.one_hot(labels, num_classes, dtype=dtype)


def _deficits(logits: jax.Array) -> jax.Array:
    """Deficits of all classes, ``[B, C]``."""
    is_top = jax.nn.one_hot(
        jnp.argmax(logits, axis=1), logits.shape[1], dtype=jnp.bool_
    )
    below_top = jax.nn.logsumexp(logits, axis=1, where=~is_top)
    total = jax.nn.logsumexp(logits, axis=1)
    # No class but the largest has a probability above one half.
    p = jnp.exp(logits - total[:, None])
    p = jnp.where(is_top, jnp.zeros_like(p), p)
    others = total[:, None] + jnp.log1p(-p)
    return jnp.where(is_top, below_top[:, None], others) - logits
