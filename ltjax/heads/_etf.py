"""A fixed classifier whose classes are as far apart as possible."""

import jax
import jax.numpy as jnp

from ltjax import _validate


def simplex_etf(key: jax.Array, num_classes: int, embed_dim: int) -> jax.Array:
    r"""Simplex equiangular tight frame in a random orientation.

    .. math:: W = (U M)^\top, \qquad
      M = \sqrt{\tfrac{C}{C - 1}} \, (I - \tfrac1C 1 1^\top)

    with ``U`` made of ``C`` orthonormal columns drawn uniformly (Haar). Rows have
    length 1 and sum to zero; every two have the cosine :math:`-1/(C - 1)`. Use it
    as a classifier ``h @ W.T + b`` that is neither trained nor decayed.

    Args:
      key: typed key, ``jax.random.key(seed)``.
      num_classes: ``C``, at least 2.
      embed_dim: ``E``, at least ``C``.

    Returns:
      ``[C, E]`` in the default float dtype.

    Examples:
      >>> w = ltjax.heads.simplex_etf(jax.random.key(0), 3, 8)
      >>> gram = w @ w.T
      >>> f"{gram[0, 0]:.3f} {gram[0, 1]:.3f}"
      '1.000 -0.500'

    References:
      Papyan et al., *Prevalence of neural collapse during the terminal phase of deep
      learning training*, PNAS 2020; as a fixed head in Hasegawa and Sato, ICLR 2024
      (arXiv 2305.16573). ``U`` is drawn by QR of an ``E x C`` Gaussian matrix, which
      has the law of the first ``C`` columns of an ``E x E`` one.
    """
    _validate.key("key", key)
    _validate.integer("num_classes", num_classes, low=2)
    _validate.integer("embed_dim", embed_dim, low=1)
    if num_classes > embed_dim:
        raise ValueError(
            "num_classes must be at most embed_dim, got "
            f"num_classes={num_classes} and embed_dim={embed_dim}."
        )
    q, r = jnp.linalg.qr(jax.random.normal(key, (embed_dim, num_classes)))
    # QR alone is not uniform: its signs are fixed by the algorithm.
    u = q * jnp.sign(jnp.diagonal(r))[None, :]
    centered = u - u.mean(axis=1, keepdims=True)
    return (num_classes / (num_classes - 1)) ** 0.5 * centered.T
