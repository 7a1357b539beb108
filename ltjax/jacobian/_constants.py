"""Integers of a program that are known while it is traced.

Whether ``h[index]`` keeps examples apart depends on the numbers in ``index``. Indices
such as ``jnp.arange(B)`` are made of literals by a few operations; these are evaluated
here with NumPy, so that a claim about an index is checked against its entries.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from ltjax.jacobian._jaxpr import Op, Program, Value, shape_of

_LARGEST: Final = 2**24  # entries; larger arrays count as unknown


class Constants:
    """Known integer arrays of a program, evaluated where they are asked for."""

    def __init__(self, program: Program):
        self._producers = {v: op for op in program.ops for v in op.outputs}
        self._consts = program.consts
        self._known: dict[Value, np.ndarray | None] = {
            v: _concrete(x) for v, x in program.consts.items()
        }

    def value(self, atom: Any) -> np.ndarray | None:
        """Entries of an array of integers or booleans, or None if not known."""
        if not isinstance(atom, Value):
            return _concrete(atom.val)
        pending = [atom]
        while pending:  # no recursion: programs may be long
            missing = [a for a in self._operands(pending[-1]) if a not in self._known]
            if missing:
                pending.extend(missing)
                continue
            value = pending.pop()
            if value not in self._known:
                self._known[value] = self._evaluate(value)
        return self._known[atom]

    def counts(self, atom: Any, axis: int, component: int) -> bool:
        """Whether each entry of a component is its own position along ``axis``.

        Args:
          atom: an array of indices.
          axis: one of its axes other than the last.
          component: position on the last axis.
        """
        entries = self.value(atom)
        if entries is not None:
            positions = np.arange(entries.shape[axis])
            shape = [-1 if k == axis else 1 for k in range(entries.ndim - 1)]
            return bool(np.all(entries[..., component] == positions.reshape(shape)))
        op = self._producers.get(atom)
        last = len(shape_of(atom)) - 1
        if op is None or op.name != "concatenate" or op.params["dimension"] != last:
            return False
        for operand in op.inputs:
            width = shape_of(operand)[last]
            if component < width:
                return self.counts(operand, axis, component)
            component -= width
        return False

    def is_zero(self, atom: Any) -> bool:
        """Whether all entries are known to be 0, whatever the dtype."""
        if not isinstance(atom, Value):
            return not np.any(atom.val)
        op = self._producers.get(atom)
        if op is not None and op.name in _KEEPS_ZEROS:
            return self.is_zero(op.inputs[0])
        known = self._consts.get(atom)
        if jnp.issubdtype(atom.dtype, jax.dtypes.prng_key):
            return False
        if isinstance(known, (np.ndarray, jax.Array)):
            traced = isinstance(known, jax.core.Tracer)
            return not traced and not np.any(np.asarray(known))
        entries = self.value(atom)
        return entries is not None and not entries.any()

    def is_made_of_literals(self, atom: Any) -> bool:
        """Whether no data enters: all is computed from literals and counts."""
        pending, seen = [atom], set()
        while pending:
            value = pending.pop()
            if not isinstance(value, Value) or value in seen:
                continue
            seen.add(value)
            if value not in self._producers:
                return False
            pending.extend(self._producers[value].inputs)
        return True

    def is_uniform(self, atom: Any) -> bool:
        """Whether all entries are known to be equal."""
        if not isinstance(atom, Value):
            return np.size(atom.val) == 1
        op = self._producers.get(atom)
        if op is None or op.name not in _KEEPS_UNIFORM:
            return False
        return all(map(self.is_uniform, op.inputs))

    def _folded(self, value: Value) -> Op | None:
        """The operation that a value can be evaluated by."""
        op = self._producers.get(value)
        if op is None or op.name not in _FOLDED or value.size > _LARGEST:
            return None
        return op if _is_integral(value.dtype) else None

    def _operands(self, value: Value) -> list[Value]:
        """What has to be known before a value is."""
        op = None if value in self._known else self._folded(value)
        return op.values if op else []

    def _evaluate(self, value: Value) -> np.ndarray | None:
        op = self._folded(value)
        if op is None:
            return None
        operands = [self.value(a) for a in op.inputs]
        if any(x is None for x in operands):
            return None
        with np.errstate(all="ignore"):
            result = _FOLDED[op.name](op, *operands)
        if result is None or result.shape != value.shape:
            return None
        return result.astype(value.dtype, copy=False)


def _is_integral(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def _concrete(x: Any) -> np.ndarray | None:
    """Entries of an array that is not traced."""
    dtype = getattr(x, "dtype", None) or np.result_type(x)
    if isinstance(x, jax.core.Tracer) or not _is_integral(dtype):
        return None
    if not getattr(x, "is_fully_addressable", True) or np.size(x) > _LARGEST:
        return None
    return np.asarray(x)


def _iota(op: Op) -> np.ndarray:
    shape, axis = op.params["shape"], op.params["dimension"]
    count = np.arange(shape[axis]).astype(op.params["dtype"])
    return np.broadcast_to(
        count.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape
    )


def _convert(op: Op, x: np.ndarray) -> np.ndarray | None:
    return x.astype(op.params["new_dtype"])


def _broadcast_in_dim(op: Op, x: np.ndarray) -> np.ndarray:
    shape, where = op.params["shape"], op.params["broadcast_dimensions"]
    inner = [1] * len(shape)
    for k, size in zip(where, x.shape, strict=True):
        inner[k] = size
    return np.broadcast_to(x.reshape(inner), shape)


def _reshape(op: Op, x: np.ndarray) -> np.ndarray | None:
    return None if op.params.get("dimensions") else x.reshape(op.params["new_sizes"])


def _slice(op: Op, x: np.ndarray) -> np.ndarray:
    return x[slices(op)]


def _select_n(op: Op, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.select([which == k for k in range(len(cases))], cases)


def slices(op: Op) -> tuple[slice, ...]:
    """What an operation ``slice`` takes of its operand."""
    start, limit = op.params["start_indices"], op.params["limit_indices"]
    strides = op.params["strides"] or [1] * len(start)
    return tuple(slice(*s) for s in zip(start, limit, strides, strict=True))


_FOLDED: Mapping[str, Callable[..., np.ndarray | None]] = {
    "iota": _iota,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "slice": _slice,
    "select_n": _select_n,
    "squeeze": lambda op, x: np.squeeze(x, op.params["dimensions"]),
    "transpose": lambda op, x: np.transpose(x, op.params["permutation"]),
    "rev": lambda op, x: np.flip(x, op.params["dimensions"]),
    "concatenate": lambda op, *xs: np.concatenate(xs, op.params["dimension"]),
    "stack": lambda op, *xs: np.stack(xs, op.params["axis"]),
    "copy": lambda op, x: x,
    "stop_gradient": lambda op, x: x,
    "add": lambda op, x, y: np.add(x, y),
    "sub": lambda op, x, y: np.subtract(x, y),
    "mul": lambda op, x, y: np.multiply(x, y),
    "max": lambda op, x, y: np.maximum(x, y),
    "min": lambda op, x, y: np.minimum(x, y),
    "rem": lambda op, x, y: None if np.any(y == 0) else np.fmod(x, y),
    "lt": lambda op, x, y: np.less(x, y),
    "le": lambda op, x, y: np.less_equal(x, y),
    "gt": lambda op, x, y: np.greater(x, y),
    "ge": lambda op, x, y: np.greater_equal(x, y),
    "eq": lambda op, x, y: np.equal(x, y),
    "ne": lambda op, x, y: np.not_equal(x, y),
}
_KEEPS_ZEROS = frozenset(
    [
        *("broadcast_in_dim", "reshape", "squeeze", "transpose", "rev", "slice"),
        *("convert_element_type", "copy", "neg", "reduce_sum", "expand_dims"),
    ]
)
_KEEPS_UNIFORM = _KEEPS_ZEROS | {"add", "sub", "mul", "div", "sqrt", "rsqrt"}
