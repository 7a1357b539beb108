"""Batch axes of whole programs, from those of their outputs back to the inputs."""

from collections.abc import Sequence

# Importing the rules of operations that hold programs registers them.
from ltjax.jacobian import _calls as _calls
from ltjax.jacobian import _rules
from ltjax.jacobian._constants import Constants
from ltjax.jacobian._jaxpr import Op, Program, Value
from ltjax.jacobian._rules import SHARED, Axis, Question, join


def operand_axes(
    op: Op,
    axes: Sequence[Axis],
    size: int,
    constants: Constants,
    *,
    values: bool = False,
    cut: frozenset[str] | None = None,
) -> list[Axis] | None:
    """Batch axes of the operands of ``op``, or None if they are not known.

    Args:
      op: an operation.
      axes: batch axes of its results; at least one is an axis.
      size: number of examples.
      constants: known integers of the program that ``op`` is part of.
      values: whether only values must keep examples apart, not derivatives.
      cut: see `Question`.
    """

    def inner(program, axes, values, size=size, cut=cut):
        return input_axes(program, axes, size, values=values, cut=cut)

    question = Question(op, axes, size, constants, inner, values=values, cut=cut)
    return _rules.answer(question)


def input_axes(
    program: Program,
    axes: Sequence[Axis],
    size: int,
    *,
    values: bool = False,
    cut: frozenset[str] | None = None,
) -> list[Axis]:
    """Batch axes of the inputs of a whole program, given those of its outputs."""
    constants = Constants(program)
    found: dict[Value, Axis] = {}

    def meet(atom, axis):
        if isinstance(atom, Value):
            found[atom] = join(found.get(atom), axis)

    for atom, axis in zip(program.outputs, axes, strict=True):
        meet(atom, axis)
    for op in reversed(program.ops):
        results = [found.get(v) for v in op.outputs]
        if all(axis is None for axis in results):
            continue
        operands = None
        if any(isinstance(axis, int) for axis in results):
            operands = operand_axes(
                op, results, size, constants, values=values, cut=cut
            )
        if operands is None:
            operands = [SHARED] * len(op.inputs)
        for atom, axis in zip(op.inputs, operands, strict=True):
            meet(atom, axis)
    return [found.get(v) for v in program.inputs]
