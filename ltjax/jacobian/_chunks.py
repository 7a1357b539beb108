"""Mapping over examples in bounded memory."""

from collections.abc import Callable
from typing import Any

import jax


def map_chunks(fun: Callable[[Any], Any], xs: Any, chunk_size: int) -> Any:
    """``vmap(fun)(xs)``, at most ``chunk_size`` elements at a time."""
    if jax.tree.leaves(xs)[0].shape[0] <= chunk_size:
        return jax.vmap(fun)(xs)
    return jax.lax.map(fun, xs, batch_size=chunk_size)
