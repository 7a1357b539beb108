"""Small numerical helpers shared by the methods."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

EPS = 1e-12


def widest(*dtypes: Any) -> Any:
    """The widest of some floating dtypes and float32."""
    options = [jnp.dtype(jnp.float32), *dtypes]
    return max(options, key=lambda d: jnp.finfo(d).bits)


def at_least_float32(x: jax.Array) -> jax.Array:
    """``x`` in its own floating dtype, or in float32 where that is narrower."""
    return x.astype(widest(x.dtype))


def masked(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """``x``, and 0 (with zero gradients) where a mask of its leading axes is false."""
    if where is None:
        return x
    mask = jnp.reshape(where, where.shape + (1,) * (jnp.ndim(x) - where.ndim))
    return jnp.where(mask, x, jnp.zeros_like(x))


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x / y``, and 0 (with zero gradients) where ``y`` is 0."""
    zero = y == 0
    return jnp.where(zero, jnp.zeros_like(x), x / jnp.where(zero, jnp.ones_like(y), y))


def squared_norm(x: jax.Array) -> jax.Array:
    """Sum of the squared magnitudes of all entries, in at least float32."""
    if jnp.iscomplexobj(x):
        return squared_norm(x.real) + squared_norm(x.imag)
    return jnp.sum(jnp.square(at_least_float32(x)))


def power_of_two(x: jax.Array) -> jax.Array:
    """The power of two nearest to ``x``, among those whose inverse is a normal number.

    Products with it do not round. ``x`` is not negative; 0 has the smallest power.
    """
    info = jnp.finfo(x.dtype)
    largest = 2.0 ** (info.maxexp - 8)
    return jnp.clip(lax.reduce_precision(x, info.nexp, 0), 1 / largest, largest)


def safe_norm(x: jax.Array, axis: int = -1, *, keepdims: bool = False) -> jax.Array:
    """Euclidean norm along ``axis`` whose gradient at 0 is 0 instead of NaN."""
    squares = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    zero = squares == 0
    root = jnp.sqrt(jnp.where(zero, jnp.ones_like(squares), squares))
    return jnp.where(zero, jnp.zeros_like(squares), root)
