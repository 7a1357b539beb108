"""Where arrays lie: explicit shardings, and the varying values of `jax.shard_map`."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


def varying_axes(aval: Any) -> frozenset[str]:
    """Mesh axes along which a value differs between devices inside `jax.shard_map`."""
    kind = getattr(aval, "manual_axis_type", None)
    return kind.varying if kind else getattr(aval, "vma", frozenset())


def vary(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """``x`` as a value that may differ between devices along ``axes``."""
    missing = tuple(sorted(axes - varying_axes(jax.typeof(x))))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def vary_leaves(tree: Any, axes: frozenset[str]) -> Any:
    """A tree of arrays as values that may differ between devices."""
    return jax.tree.map(lambda x: vary(x, axes), tree)


def explicit_sharding(aval: Any) -> Any:
    """Sharding that is a part of the type of a value, or None."""
    sharding = getattr(aval, "sharding", None)
    types = sharding.mesh.axis_types if sharding is not None else ()
    return sharding if AxisType.Explicit in types else None


def mixes_meshes(avals: Iterable[Any]) -> bool:
    """Whether axes are explicit for some values, and automatic for others.

    So they are in `jax.sharding.auto_axes`, which is behind ``out_sharding`` of
    indexing. An operation on both kinds of values is an error.
    """
    avals = list(avals)
    meshes = {a.sharding.mesh for a in avals if getattr(a, "sharding", None)}
    some = any(explicit_sharding(a) for a in avals)
    return some and len({m for m in meshes if not m.empty}) > 1


def reshape(x: jax.Array, shape: Sequence[int], *, kept: int = 0) -> jax.Array:
    """``x.reshape(shape)``, where axes after the first ``kept`` lie on all devices."""
    sharding = explicit_sharding(jax.typeof(x))
    if sharding is None or any(sharding.spec[kept:]):
        return x.reshape(shape)
    spec = P(*sharding.spec[:kept], *[None] * (len(shape) - kept))
    return jnp.reshape(x, shape, out_sharding=NamedSharding(sharding.mesh, spec))


def zeros(aval: Any) -> jax.Array:
    """Zeros of the type of a traced value, its place on a mesh included."""
    made = jnp.zeros(aval.shape, aval.dtype, out_sharding=explicit_sharding(aval))
    return vary(made, varying_axes(aval))


def stacked_aval(aval: Any, length: int) -> Any:
    """The type of several values of one type, on a leading axis."""
    place = aval.sharding
    spec = P(None, *place.spec)
    return aval.update(
        shape=(length, *aval.shape), sharding=NamedSharding(place.mesh, spec)
    )


def positions(x: jax.Array) -> jax.Array:
    """The place of each element in the flattened array, placed as ``x`` is."""
    count = jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape)
    return count + jnp.zeros_like(x, jnp.int32)
