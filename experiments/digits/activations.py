"""Activations that GradTail's study tries besides those of the library."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def tent(*, width: float | jax.Array) -> Callable[[jax.Array], jax.Array]:
    r""":math:`\max(0, 1 - |s| / r)`, which peaks where `transforms.bump` does."""
    return lambda s: jnp.maximum(1 - jnp.abs(s) / jnp.asarray(width, s.dtype), 0)


def sigmoid(*, slope: float | jax.Array) -> Callable[[jax.Array], jax.Array]:
    r""":math:`\sigma(-k s)`, which rises with disagreement."""
    return lambda s: jax.nn.sigmoid(-jnp.asarray(slope, s.dtype) * s)


def linear(*, slope: float | jax.Array) -> Callable[[jax.Array], jax.Array]:
    r""":math:`\max(0, 1 - k s)`, which rises with disagreement without bound."""
    return lambda s: jnp.maximum(1 - jnp.asarray(slope, s.dtype) * s, 0)
