"""Mapping over examples in bounded memory."""

from collections.abc import Callable
from typing import Any

import jax

from ltjax import _validate

_BYTES = 64 * 2**20

ChunkSize = Callable[[int], int]  # bytes that one row needs -> rows at a time


def chunk_sizes(chunk_size: int | None) -> ChunkSize:
    """Rows at a time: as given, or as many as fit 64 MiB."""
    if chunk_size is None:
        return lambda nbytes: max(1, _BYTES // max(nbytes, 1))
    _validate.integer("chunk_size", chunk_size, low=1)
    return lambda nbytes: chunk_size


def map_chunks(fun: Callable[[Any], Any], xs: Any, chunk_size: int) -> Any:
    """``vmap(fun)(xs)``, at most ``chunk_size`` elements at a time."""
    if jax.tree.leaves(xs)[0].shape[0] <= chunk_size:
        return jax.vmap(fun)(xs)
    return jax.lax.map(fun, xs, batch_size=chunk_size)
