"""Where arrays lie: explicit shardings, and the varying values of `jax.shard_map`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType


def varying_axes(aval: Any) -> frozenset[str]:
    """Mesh axes along which a value differs between devices inside `jax.shard_map`."""
    kind = getattr(aval, "manual_axis_type", None)
    return kind.varying if kind else getattr(aval, "vma", frozenset())


def vary(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """``x`` as a value that may differ between devices along ``axes``."""
    missing = tuple(sorted(axes - varying_axes(jax.typeof(x))))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def zeros(aval: Any) -> jax.Array:
    """Zeros of the type of a traced value, its place on a mesh included."""
    sharding = getattr(aval, "sharding", None)
    types = sharding.mesh.axis_types if sharding is not None else ()
    explicit = sharding if AxisType.Explicit in types else None
    made = jnp.zeros(aval.shape, aval.dtype, out_sharding=explicit)
    return vary(made, varying_axes(aval))


def positions(x: jax.Array) -> jax.Array:
    """The place of each element in the flattened array, placed as ``x`` is."""
    count = jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape)
    return count + jnp.zeros_like(x, jnp.int32)
