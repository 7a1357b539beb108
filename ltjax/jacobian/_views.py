"""Which entries of a parameter a shared value consists of.

A value made by slicing, transposing and the like is a *view*: its entries are entries
of one parameter, each at most once, so a row with respect to the value has the norm of
that part of the parameter's row. Views of arrays that are never filled stand for the
entries here, and NumPy tells which of them overlap.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import jax.numpy as jnp
import numpy as np

from ltjax.jacobian._constants import Constants, slices
from ltjax.jacobian._jaxpr import Op, Program, Value

_EFFORT: Final = 10_000  # candidates tried before two views count as overlapping


def views(program: Program, shared_ops: Sequence[Op]) -> dict[Value, np.ndarray]:
    """Parameters, and the shared values that are views of one of them."""
    constants = Constants(program)
    found = {v: np.empty(v.shape, np.uint8) for v in program.inputs}
    for op in shared_ops:
        source = op.inputs[0]
        if op.name not in _VIEWS or not all(map(_is_real, (source, *op.outputs))):
            continue
        if source in found:
            results = _VIEWS[op.name](op, found[source], constants)
            for value, view in zip(op.outputs, results, strict=True):
                if view is not None and view.shape == value.shape:
                    found[value] = view
    return found


def overlapping(views: Sequence[np.ndarray]) -> list[bool]:
    """For each view, whether it shares an entry with another one."""
    found = [False] * len(views)
    for (i, a), (j, b) in itertools.combinations(enumerate(views), 2):
        if _overlap(a, b):
            found[i] = found[j] = True
    return found


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_EFFORT)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _is_real(value) -> bool:
    return isinstance(value, Value) and jnp.issubdtype(value.dtype, jnp.floating)


def _reshaped(view: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    try:
        return view.reshape(shape, copy=False)
    except ValueError:
        return None


def _broadcast(op: Op, view: np.ndarray, constants: Constants):
    return [_reshaped(view, op.params["shape"]) if _same_size(op) else None]


def _same_size(op: Op) -> bool:
    return op.values[0].size == op.outputs[0].size


def _dynamic_slice(op: Op, view: np.ndarray, constants: Constants):
    known = [constants.value(a) for a in op.inputs[1:]]
    starts = [int(s) for s in known if s is not None]
    if len(starts) < len(known):
        return [None]
    sizes = op.params["slice_sizes"]
    # As XLA does, a start is moved so that the slice lies inside.
    where = tuple(
        slice(start := min(max(s, 0), full - size), start + size)
        for s, size, full in zip(starts, sizes, view.shape, strict=True)
    )
    return [view[where]]


def _split(op: Op, view: np.ndarray, constants: Constants):
    ends = np.cumsum(op.params["sizes"])[:-1]
    return np.split(view, ends, op.params["axis"])


def _unstack(op: Op, view: np.ndarray, constants: Constants):
    return list(np.moveaxis(view, op.params["axis"], 0))


def _same(op: Op, view: np.ndarray, constants: Constants):
    return [view]


_VIEWS: Mapping[str, Callable[[Op, np.ndarray, Constants], Sequence]] = {
    **dict.fromkeys(
        [
            *("convert_element_type", "copy", "copy_p", "neg", "name"),
            *("sharding_constraint", "reshard", "mesh_cast"),
        ],
        _same,
    ),
    "broadcast_in_dim": _broadcast,
    "dynamic_slice": _dynamic_slice,
    "reshape": lambda op, x, _: [
        None if op.params.get("dimensions") else _reshaped(x, op.params["new_sizes"])
    ],
    "rev": lambda op, x, _: [np.flip(x, op.params["dimensions"])],
    "slice": lambda op, x, _: [x[slices(op)]],
    "split": _split,
    "squeeze": lambda op, x, _: [np.squeeze(x, op.params["dimensions"])],
    "transpose": lambda op, x, _: [np.transpose(x, op.params["permutation"])],
    "unstack": _unstack,
}
