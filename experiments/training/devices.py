"""Devices: the mesh that a run is on, where arrays lie on it, and several seeds."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_SMALL = 2**12  # arrays below this size are not worth splitting


def make_mesh(devices: int | None = None) -> Mesh:
    """A line of devices: the first few, or all of all processes."""
    available = jax.devices()
    if devices is not None and not 1 <= devices <= len(available):
        raise ValueError(f"devices must be in 1 to {len(available)}, got {devices}.")
    chosen = available[:devices]
    # Explicit axes, the default, refuse gathers by label and the like.
    return jax.make_mesh(
        (len(chosen),), ("data",), axis_types=(AxisType.Auto,), devices=chosen
    )


def copied(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The batch axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def parameter_sharding(
    x: jax.ShapeDtypeStruct, mesh: Mesh, *, fsdp: bool
) -> NamedSharding:
    """A copy everywhere, or (fsdp) the largest axis that divides split."""
    axes = [a for a in range(1, x.ndim) if x.shape[a] % mesh.size == 0]
    if not fsdp or x.size < _SMALL or not axes:
        return copied(mesh)
    return batch_split(mesh, max(axes, key=lambda a: x.shape[a]))


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has in full, on the devices of all of them."""
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: np.asarray(array[index])
    )


def on_host(arrays: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Arrays on the host, whole; all processes must take part."""
    gathered = {}
    for name, array in arrays.items():
        if not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
        gathered[name] = np.asarray(array)
    return gathered


def per_seed(fun: Callable[..., Any], *axes: int | None, seeds: int) -> Callable:
    """Maps a function over a leading axis of seeds, where ``axes`` says it is 0.

    A single seed is not mapped, only given the axis: XLA makes slower convolutions of
    mapped ones.
    """
    if seeds > 1:
        return jax.vmap(fun, in_axes=axes)

    def single(*args):
        own = [
            x if axis is None else jax.tree.map(lambda leaf: leaf[0], x)
            for x, axis in zip(args, axes, strict=True)
        ]
        return jax.tree.map(lambda x: x[None], fun(*own))

    return single
