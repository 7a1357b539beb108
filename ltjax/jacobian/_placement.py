"""Where arrays lie: explicit shardings, and the varying values of `jax.shard_map`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def mesh_axes(spec: P, axis: Any) -> tuple[str, ...] | None:
    """Mesh axes along which a spec cuts an axis of an array, the major one first."""
    if not isinstance(axis, int):
        return None
    names = spec[axis] if axis < len(spec) else None
    return names if isinstance(names, tuple) else (names,) if names else ()


def on_each_device(
    fun: Callable[..., Any], op: Any, results: Mapping[int, int]
) -> Callable[..., Any]:
    """A function of operands and results of a `jax.shard_map`, as one on its devices.

    What it returns are numbers of examples, which are on some axis of the results.
    """
    params = op.params
    ends = [params["out_specs"][j] for j in results]
    names = mesh_axes(ends[0], next(iter(results.values()))) or ()

    # Derivatives are those of one device: unchecked, what is replicated is not summed.
    return jax.shard_map(
        fun,
        mesh=params["mesh"],
        in_specs=(list(params["in_specs"]), ends),
        out_specs=P(names),
        axis_names=params["newly_manual_axes"],
        check_vma=False,
    )


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
