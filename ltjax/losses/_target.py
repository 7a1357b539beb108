"""The target's lead over the rest, in which many losses are simple and stable."""

import jax
import jax.numpy as jnp


def deficit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""How far the target trails all other classes together, ``[B]``.

    With :math:`m = \log \sum_{c \ne y} e^{z_c} - z_y` the probability of the target is
    ``sigmoid(-m)``: cross-entropy is ``softplus(m)``, and the log-probability of
    all other classes ``-softplus(-m)``. Both are exact at either end, and the
    gradient of ``m`` is bounded.
    """
    is_target = jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.bool_)
    target = jnp.sum(logits, axis=1, where=is_target)
    return jax.nn.logsumexp(logits, axis=1, where=~is_target) - target
