r"""Squared norms of sums of outer products, without the sums.

For a matrix product over the positions ``t`` of an example,

.. math:: \Big\| \sum_t a_t d_t^\top \Big\|^2
          = \sum_{t, u} \langle a_t, a_u \rangle \langle d_t, d_u \rangle

needs the Gram matrices of the positions only. Rounding is relative to the sum of the
parts, so a sum that is much smaller than its parts is computed itself.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Final

import jax
import jax.numpy as jnp
from jax import lax

from ltjax._numerics import at_least_float32, power_of_two, squared_norm, widest
from ltjax.jacobian._chunks import ChunkSize, map_chunks

# A squared norm below this multiple of machine epsilon times that of the parts is not
# taken from Gram matrices: less than three digits of it would be left.
_CANCELLED: Final = 1000


def _single(fun: Callable[[jax.Array], jax.Array], a: jax.Array) -> jax.Array:
    """The sum over a single factor."""
    return fun(a)


@dataclasses.dataclass(frozen=True)
class Parts:
    """Left factors ``[H, T, K]`` of an example's products, seen one after the other.

    Attributes:
      width: K.
      count: how many there are.
      total: ``(fun, source)``: the sum of ``fun`` over the factors made of a source.
    """

    width: int
    count: int = 1
    total: Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array] = _single


def product_squares(a: jax.Array, parts: Parts, d: jax.Array, chunk_size: ChunkSize):
    """Squared norms of the products of all left factors with ``d``, ``[B]``.

    Cotangents of well fitted examples may be tiny, so their squares are taken of
    multiples near 1.

    Args:
      a: sources of the left factors, ``[B, ...]``; ``[B, H, T, K]`` for a single one.
      parts: the left factors of an example.
      d: cotangents, ``[B, H, T, N]``.
      chunk_size: see `chunk_sizes`.
    """
    largest = jnp.max(jnp.abs(lax.stop_gradient(d)), (1, 2, 3), initial=0)
    scale = power_of_two(largest)
    # The barriers keep the compiler from squaring the scale.
    scaled = lax.optimization_barrier(d * (1 / scale)[:, None, None, None])
    squares = _scaled_squares(a, parts, scaled, chunk_size)
    vanished = jnp.all(scaled == 0, (1, 2, 3))
    scale = scale.astype(squares.dtype)
    return jnp.where(vanished, 0, lax.optimization_barrier(squares * scale) * scale)


def _scaled_squares(a: jax.Array, parts: Parts, d: jax.Array, chunk_size: ChunkSize):
    """`product_squares` without a scale.

    One position needs norms only; otherwise the smaller of the Gram matrices of the
    positions and of the rows themselves is made.
    """
    heads, times, width = d.shape[1:]
    wide = widest(d.dtype)
    product = functools.partial(
        jnp.einsum, precision="highest", preferred_element_type=wide
    )

    def outer(example):
        a, d = example
        squares = row_squares(d)
        return parts.total(lambda x: jnp.sum(row_squares(x) * squares), a)

    def direct(example):
        a, d = example
        return parts.total(lambda x: squared_norm(product("htk,htn->hkn", x, d)), a)

    def gram(example):
        a, d = example
        left = parts.total(lambda x: product("htk,hsk->hts", x, x), a)
        right = product("htn,hsn->hts", d, d)
        return jnp.sum(left * right), _bound(left, right)

    def mapped(fun, size):
        return map_chunks(fun, (a, d), chunk_size(size * wide.itemsize))

    def rows():
        return mapped(direct, heads * parts.width * width)

    if times == 1:
        return jax.vmap(outer)((a, d))
    depth = parts.count * parts.width
    if times * (depth + width) > depth * width:
        return rows()
    squares, bound = mapped(gram, 2 * heads * times * times)
    bound *= _CANCELLED * float(jnp.finfo(wide).eps)
    return lax.cond(jnp.any(squares < bound), rows, lambda: squares)


def _bound(left: jax.Array, right: jax.Array) -> jax.Array:
    """``sum_h (sum_t |a_t| |d_t|)^2`` from Gram matrices ``[H, T, T]``."""
    squares = jnp.maximum(_diagonals(left) * _diagonals(right), 0)
    return jnp.sum(jnp.square(jnp.sum(jnp.sqrt(squares), 1)))


def _diagonals(x: jax.Array) -> jax.Array:
    """Diagonals ``[H, T]`` of matrices ``[H, T, T]``."""
    heads, times, _ = x.shape
    flat = x.reshape(heads, times * times)
    return lax.slice_in_dim(flat, 0, None, times + 1, axis=1)


def row_squares(x: jax.Array) -> jax.Array:
    """Squared norms along the last axis, in at least float32."""
    return jnp.sum(jnp.square(at_least_float32(x)), -1)
