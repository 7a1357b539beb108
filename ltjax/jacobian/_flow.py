"""How examples run through a program, from its results back to what it is given.

Every active value, one with a derivative with respect to the parameters, is either
that of examples, along a batch axis, or shared by all of them. The batch axes are
followed backwards by the rules of `ltjax.jacobian._rules`. Where a value of examples
is needed whole, examples are coupled.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

from jax.extend import core

from ltjax.jacobian._constants import Constants
from ltjax.jacobian._independence import operand_axes
from ltjax.jacobian._jaxpr import Op, Program, Value, is_inexact
from ltjax.jacobian._rules import BOTH, SHARED, Axis


@dataclasses.dataclass(frozen=True)
class Flow:
    """How examples run through a program."""

    axes: Mapping[Value, Axis]  # of the active values that the results depend on
    edges: Mapping[Op, list[Axis]]  # axes that each operation needs of its operands
    couplings: tuple[tuple[Op, int], ...]  # operands of examples that are needed whole
    unknown: tuple[Op, ...]  # without a rule that shows that examples stay apart
    both: tuple[Op, ...]  # results of examples beside shared ones


def active_values(
    program: Program,
    sources: Iterable[Value],
    frozen: frozenset[Op] = frozenset(),
    *,
    empty: bool = False,
) -> frozenset[Value]:
    """Values with a derivative with respect to ``sources``.

    That of ``empty`` arrays, and with respect to them, is 0 but JAX asks for it.
    """

    def counts(value):
        return is_inexact(value) and (empty or value.size > 0)

    active = set(filter(counts, sources))
    for op in program.ops:
        constant = op.name == "stop_gradient" or op in frozen
        if not constant and any(v in active for v in op.values):
            active.update(filter(counts, op.outputs))
    return frozenset(active)


def is_active(atom: Value | core.Literal, active: frozenset[Value]) -> TypeGuard[Value]:
    """Whether an operand, a literal perhaps, has a derivative."""
    return isinstance(atom, Value) and atom in active


def follow_examples(
    program: Program,
    size: int,
    active: frozenset[Value],
    shared: frozenset[Value],
    results: Sequence[Axis],
) -> Flow:
    """Batch axes of all active values.

    Args:
      program: the program.
      size: number of examples.
      active: values with a derivative.
      shared: inputs that belong to no example, however they are used.
      results: batch axes of the outputs.
    """
    constants = Constants(program)
    uses: dict[Value, list[tuple[Op | None, int, Axis]]] = {}
    axes: dict[Value, Axis] = dict.fromkeys(shared, SHARED)
    edges: dict[Op, list[Axis]] = {}
    couplings: list[tuple[Op, int]] = []
    unknown: list[Op] = []
    both: list[Op] = []

    def settle(value):
        """A value is that of examples if any use says so; other uses couple."""
        if value in shared or value not in uses:
            return
        found = [axis for _, _, axis in uses[value]]
        axes[value] = next((a for a in found if a is not SHARED), SHARED)
        for op, position, axis in uses[value]:
            if axis != axes[value] and op is not None:
                couplings.append((op, position))

    for atom, axis in zip(program.outputs, results, strict=True):
        if is_active(atom, active) and axis is not None:
            uses.setdefault(atom, []).append((None, 0, axis))
    for op in reversed(program.ops):
        for value in op.outputs:
            if value in active:
                settle(value)
        found = [axes.get(v) for v in op.outputs]
        if all(axis is None for axis in found):
            continue
        operands = None
        if any(isinstance(axis, int) for axis in found):
            operands = operand_axes(op, found, size, constants)
            if operands is None:
                unknown.append(op)
            if SHARED in found:
                both.append(op)
        operands = operands or [SHARED] * len(op.inputs)
        couplings += [
            (op, j)
            for j, (atom, axis) in enumerate(zip(op.inputs, operands, strict=True))
            if axis == BOTH and is_active(atom, active) and atom not in shared
        ]
        edges[op] = [SHARED if axis == BOTH else axis for axis in operands]
        for position, (atom, axis) in enumerate(zip(op.inputs, edges[op], strict=True)):
            if is_active(atom, active) and axis is not None:
                uses.setdefault(atom, []).append((op, position, axis))
    for value in program.inputs:
        settle(value)
    return Flow(axes, edges, tuple(couplings), tuple(unknown), tuple(both))
