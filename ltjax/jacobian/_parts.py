"""Where shared values meet examples in a program, at any depth.

Where a shared value enters an operation whose results are those of examples is a *tap*:
all that parameters do to losses, they do there. Programs inside operations (bodies of
loops, checkpointed functions, branches) are split in the same way.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ltjax.jacobian._flow import Flow
from ltjax.jacobian._jaxpr import Op, Program, Value, bodies
from ltjax.jacobian._rules import Axis


@dataclasses.dataclass(frozen=True)
class Tap:
    """Where shared values meet examples.

    Attributes:
      op: the operation.
      operands: shared values that are made of parameters, by position.
      axes: batch axes of all operands.
      results: batch axes of the results that are used.
      parts: the programs that the operation holds, if they are split too.
    """

    op: Op
    operands: Mapping[int, Value]
    axes: tuple[Axis, ...]
    results: Mapping[int, int]
    parts: tuple["Part", ...] = ()


@dataclasses.dataclass(frozen=True)
class LoopTap(Tap):
    """A tap in the body of a loop, in all iterations at once.

    Attributes:
      step: the tap in one iteration.
    """

    op: "Unrolled"
    step: Tap = dataclasses.field(kw_only=True)

    @property
    def layered(self) -> bool:
        """Whether every iteration has shared operands of its own."""
        return all(self.op.stacked[j] for j in self.operands)


@dataclasses.dataclass(frozen=True)
class Part:
    """A program split into what is shared and what belongs to single examples.

    Attributes:
      program: the program.
      size: number of examples.
      frozen: operations whose results count as constants.
      active: values with a derivative with respect to the parameters.
      flow: how examples run through the program.
      taps: where the two meet, in the order of the program.
      shared_ops: operations on shared values alone that parameters reach.
      made_of: for each shared value, the inputs it is made of, by position.
      loops: loops whose taps are among ``taps``.
      probes: for each result of a tap, a value with the same cotangents.
    """

    program: Program
    size: int
    frozen: frozenset[Op]
    active: frozenset[Value]
    flow: Flow
    taps: Mapping[Op, Tap]
    shared_ops: tuple[Op, ...]
    made_of: Mapping[Value, frozenset[int]]
    loops: Mapping[Op, "Loop"]
    probes: Mapping[Value, Value]

    @property
    def ops(self) -> Iterator[Op]:
        """Operations in the order of evaluation, those out of loops included."""
        for op in self.program.ops:
            yield op
            if op in self.loops:
                yield from self.loops[op].ops

    def shared_operands(self, op: Op) -> dict[int, Value]:
        """Operands made of parameters and of no example, by position."""
        return {
            j: a
            for j, a in enumerate(op.inputs)
            if isinstance(a, Value) and self.made_of.get(a)
        }


@dataclasses.dataclass(frozen=True)
class Loop:
    """A scan whose taps are seen from outside, all iterations at once.

    Attributes:
      part: the body.
      consts: constants of the body, which ``ops`` use too.
      probes: values of the body whose cotangents are asked for, and results of the taps
        outside that these are the cotangents of.
      kept: values of the body, and arrays of what they are in every iteration.
      ops: what the taps need besides: operations of the body, evaluated outside.
      taps: the taps outside.
      shared_ops: those of ``ops`` on shared values alone that parameters reach.
      made_of: for each shared value, the inputs of the outer program it is made of.
    """

    part: Part
    consts: Mapping[Value, Any]
    probes: Mapping[Value, Value]
    kept: Mapping[Value, Value]
    ops: tuple[Op, ...]
    taps: tuple[Tap, ...]
    shared_ops: tuple[Op, ...]
    made_of: Mapping[Value, frozenset[int]]


class Unrolled(Op):
    """An operation of a loop's body in all iterations at once.

    Attributes:
      step: the operation in one iteration.
      stacked: which operands differ between iterations; these have a leading axis.
    """

    __slots__ = ("stacked", "step")

    def __init__(
        self,
        step: Op,
        inputs: Sequence[Any],
        outputs: Sequence[Value],
        stacked: tuple[bool, ...],
    ):
        super().__init__(step._eqn, inputs, outputs)
        self.step = step
        self.stacked = stacked

    def renamed(self, inputs: Sequence[Any], outputs: Sequence[Value]) -> "Unrolled":
        return Unrolled(self.step, inputs, outputs, self.stacked)

    def bind(self, *operands: Any, **changed: Any) -> tuple[Any, ...]:
        def one(some):
            return self.step.bind(*self.filled(operands, some), **changed)

        if not any(self.stacked):
            length = self.outputs[0].shape[0]
            same = self.step.bind(*operands, **changed)
            return tuple(jnp.broadcast_to(x, (length, *x.shape)) for x in same)
        # What holds programs may be there to save memory.
        each = lax.map if bodies(self) else lambda fun, xs: jax.vmap(fun)(xs)
        return each(one, self.slices(operands))

    def slices(self, operands: Sequence[Any]) -> list[Any]:
        """The operands that differ between iterations."""
        return [x for x, s in zip(operands, self.stacked, strict=True) if s]

    def filled(self, operands: Sequence[Any], some: Sequence[Any]) -> list[Any]:
        """All operands of an iteration, ``some`` in place of those that differ."""
        left = iter(some)
        return [
            next(left) if s else x for x, s in zip(operands, self.stacked, strict=True)
        ]
