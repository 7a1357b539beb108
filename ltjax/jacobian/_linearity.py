"""Whether the outputs of a program are linear in some of its inputs."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ltjax.jacobian._constants import Constants
from ltjax.jacobian._jaxpr import (
    Op,
    Program,
    Value,
    bodies,
    is_inexact,
    scan_sizes,
)
from ltjax.jacobian._rules import ELEMENTWISE

ZERO: Final = "zero"
CONSTANT: Final = "constant"  # does not depend on the inputs asked about
LINEAR: Final = "linear"
NONLINEAR: Final = "nonlinear"
UNKNOWN: Final = "unknown"

# Linear in the first operand; the others must not depend on the inputs.
_FIRST = frozenset(
    [
        *("neg", "copy", "real", "imag", "conj", "convert_element_type", "name"),
        *("reshape", "squeeze", "transpose", "broadcast_in_dim", "rev", "slice"),
        *("reduce_sum", "cumsum", "reduce_window_sum", "fft", "reduce_precision"),
        *("dynamic_slice", "gather", "split", "unstack", "div", "tile"),
        *("stop_gradient", "copy_p"),
        *("sharding_constraint", "reshard", "pvary", "pcast", "mesh_cast"),
    ]
)
# Linear in all operands at once, so each is linear or zero.
_JOINTLY = frozenset(["add", "sub", "add_any", "concatenate", "stack", "complex"])
# Linear in each of two operands, so one is constant.
_PRODUCTS = frozenset(["mul", "dot_general", "conv_general_dilated"])
# Linear in the operand and the updates at once; the number is the updates' position.
_UPDATES = {"scatter": 2, "scatter-add": 2, "scatter_add": 2, "dynamic_update_slice": 1}
_NONLINEAR = (
    ELEMENTWISE | {"sort", "top_k", "reduce_max", "reduce_min", "reduce_prod"}
) - (_FIRST | _JOINTLY | _PRODUCTS | {"select_n"})


def linearity(program: Program, skip: int) -> list[str]:
    """How each output depends on the inputs after the first ``skip``.

    ``"linear"`` and ``"zero"`` are proven, as is ``"nonlinear"``, which includes
    outputs with a constant part; ``"unknown"`` is none of these.
    """
    given = [CONSTANT] * skip + [LINEAR] * (len(program.inputs) - skip)
    return [NONLINEAR if k == CONSTANT else k for k in _outputs(program, given)]


def _outputs(program: Program, given: Sequence[str]) -> list[str]:
    constants = Constants(program)
    kinds: dict[Value, str] = dict.fromkeys(program.consts, CONSTANT)
    kinds.update(zip(program.inputs, given, strict=True))

    def kind(atom):
        found = kinds[atom] if isinstance(atom, Value) else CONSTANT
        return ZERO if found == CONSTANT and constants.is_zero(atom) else found

    for op in program.ops:
        found = _results(op, [kind(a) for a in op.inputs])
        for v, k in zip(op.outputs, found, strict=True):
            kinds[v] = UNKNOWN if k == LINEAR and not is_inexact(v) else k
    return [kind(atom) for atom in program.outputs]


def _results(op: Op, kinds: list[str]) -> list[str]:
    """Kinds of the results of an operation."""
    if all(k in (CONSTANT, ZERO) for k in kinds):
        return [_constant(op, kinds)] * len(op.outputs)
    for bad in (UNKNOWN, NONLINEAR):
        if bad in kinds:
            return [bad] * len(op.outputs)
    if op.name == "optimization_barrier":
        return kinds
    if op.name in ("custom_jvp_call", "checkpoint", "remat", "remat2"):
        (body,) = bodies(op)
        return _outputs(body, kinds)
    if op.name == "scan" and (sizes := scan_sizes(op)):
        return _scan(op, kinds, *sizes)
    return [_result(op, kinds)] * len(op.outputs)


def _constant(op: Op, kinds: list[str]) -> str:
    zeros = [k == ZERO for k in kinds]
    kept = (
        (op.name in _FIRST and zeros[0])
        or (op.name in _JOINTLY and all(zeros))
        or (op.name in _PRODUCTS and any(zeros))
    )
    return ZERO if kept else CONSTANT


def _scan(op: Op, kinds: list[str], consts: int, carried: int) -> list[str]:
    """Kinds of what a loop carries, joined until they stay as they are."""
    (body,) = bodies(op)
    last = consts + carried
    carry = kinds[consts:last]
    while True:
        found = _outputs(body, [*kinds[:consts], *carry, *kinds[last:]])
        joined = [_join(a, b) for a, b in zip(carry, found, strict=False)]
        if joined == carry:
            return [*carry, *found[len(carry) :]]
        carry = joined


def _fills(op: Op) -> bool:
    """Whether a gather may return a number of its own: NaN marks an error, not that."""
    fill: Any = op.params.get("fill_value")
    return bool(fill) and bool(np.isfinite(fill))


def _join(a: str, b: str) -> str:
    """The kind of a value that is one or the other."""
    if a == b or {a, b} == {ZERO, LINEAR}:
        return a if a == b else LINEAR
    if {a, b} == {ZERO, CONSTANT}:
        return CONSTANT
    return UNKNOWN if UNKNOWN in (a, b) else NONLINEAR


def _result(op: Op, kinds: list[str]) -> str:
    fixed = [k in (CONSTANT, ZERO) for k in kinds]
    if op.name in _FIRST:
        return LINEAR if all(fixed[1:]) and not _fills(op) else NONLINEAR
    if op.name in _JOINTLY:
        return NONLINEAR if CONSTANT in kinds else LINEAR
    if op.name in _PRODUCTS:
        return LINEAR if sum(fixed) == 1 else NONLINEAR
    if op.name == "select_n":
        return LINEAR if fixed[0] and CONSTANT not in kinds[1:] else NONLINEAR
    if op.name == "pad":
        return LINEAR if kinds[1] == ZERO else NONLINEAR
    if op.name in _UPDATES:
        updates = kinds[_UPDATES[op.name]]
        return NONLINEAR if CONSTANT in (kinds[0], updates) else LINEAR
    return NONLINEAR if op.name in _NONLINEAR else UNKNOWN
