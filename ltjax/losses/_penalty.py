"""Regularisation of the features."""

import jax
import jax.numpy as jnp

from ltjax import _numerics, _validate


def feature_penalty(
    embeddings: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    r"""Half the squared length of every embedding.

    .. math:: \ell_i = \tfrac12 \|h_i\|^2

    Add it to the losses times a strength, ``losses + 1e-2 * feature_penalty(h)``: their
    mean then contains ``(strength / 2) mean |h|^2``, as weight decay contains half the
    squared parameters.

    Args:
      embeddings: ``[B, E]`` features, any float dtype.
      where: ``[B]`` booleans, false for padding: penalty 0, whatever its features.

    Returns:
      ``[B]`` penalties in at least float32, not reduced.

    Examples:
      >>> print(ltjax.losses.feature_penalty(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
      [12.5  0. ]

    References:
      Hasegawa and Sato, *Exploring weight balancing on long-tailed recognition
      problem*, ICLR 2024 (arXiv 2305.16573).
    """
    _validate.array("embeddings", embeddings, ndim=2, kind="floating")
    _validate.mask(where, embeddings.shape[:1])
    h = _numerics.masked(_numerics.at_least_float32(embeddings), where)
    return 0.5 * jnp.sum(h**2, axis=1)
