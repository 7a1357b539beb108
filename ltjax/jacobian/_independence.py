"""Batch axes of whole programs, from those of their outputs back to the inputs."""

from collections.abc import Sequence

# Importing the rules of operations that hold programs registers them.
from ltjax.jacobian import _calls as _calls
from ltjax.jacobian import _rules
from ltjax.jacobian._constants import Constants
from ltjax.jacobian._jaxpr import Op, Program, Value
from ltjax.jacobian._rules import BOTH, SHARED, Axis, Question, join


def operand_axes(
    op: Op,
    axes: Sequence[Axis],
    size: int,
    constants: Constants,
    *,
    values: bool = False,
    alike: frozenset[str] = frozenset(),
) -> list[Axis] | None:
    """Batch axes of the operands of ``op``, or None if they are not known.

    Args:
      op: an operation.
      axes: batch axes of its results; at least one is an axis.
      size: number of examples.
      constants: known integers of the program that ``op`` is part of.
      values: whether only values must keep examples apart, not derivatives.
      alike: see `Question`.
    """

    def inner(program, axes, values, size=size, alike=alike):
        return input_axes(program, axes, size, values=values, alike=alike)

    question = Question(op, axes, size, constants, inner, values=values, alike=alike)
    return _rules.answer(question)


def input_axes(
    program: Program,
    axes: Sequence[Axis],
    size: int,
    *,
    values: bool = False,
    alike: frozenset[str] = frozenset(),
) -> list[Axis]:
    """Batch axes of the inputs of a whole program, given those of its outputs.

    Inputs that are of examples in one use and needed whole in another are `BOTH`.
    """
    constants = Constants(program)
    found: dict[Value, Axis] = {}
    both: set[Value] = set()

    def meet(atom, axis):
        if not isinstance(atom, Value):
            return
        known = found.get(atom)
        joined = SHARED if axis == BOTH else join(known, axis)
        if axis == BOTH or (joined == SHARED and {known, axis} - {None, SHARED}):
            both.add(atom)
        found[atom] = joined

    for atom, axis in zip(program.outputs, axes, strict=True):
        meet(atom, axis)
    for op in reversed(program.ops):
        results = [found.get(v) for v in op.outputs]
        if all(axis is None for axis in results):
            continue
        operands = None
        if any(isinstance(axis, int) for axis in results):
            operands = operand_axes(
                op, results, size, constants, values=values, alike=alike
            )
        if operands is None:
            operands = [SHARED] * len(op.inputs)
        for atom, axis in zip(op.inputs, operands, strict=True):
            meet(atom, axis)
    return [BOTH if v in both else found.get(v) for v in program.inputs]
