"""Taps in the body of a loop, as taps of the program around it.

A loop over layers or over time is differentiated once. What its taps are in single
iterations comes out stacked: inputs as results of the loop, cotangents as those of
probes that are scanned over. Outside, each tap is one operation on stacked arrays.
Parameters that are scanned over have a block of the row in every iteration; those that
all iterations share are summed over, as over the positions of an example.
"""

import dataclasses
from typing import Any

import jax

from ltjax.jacobian._jaxpr import (
    Op,
    Value,
    abstract,
    bodies,
    inlined,
    is_inexact,
    scan_sizes,
    trace,
)
from ltjax.jacobian._parts import Loop, LoopTap, Part, Tap, Unrolled
from ltjax.jacobian._placement import stacked_aval


def unroll(op: Op, part: Part, made_of) -> Loop:
    """The taps of a scan, seen from outside.

    Args:
      op: the scan.
      part: its body, split.
      made_of: for each operand of the scan that is shared, what it is made of.
    """
    around = _Around(op, part)
    shared_ops = [o for shared in part.shared_ops for o in around.move(shared)]
    found = dict(made_of)
    for shared in shared_ops:
        union = frozenset[int]().union(*(found.get(v, ()) for v in shared.values))
        found.update((v, union) for v in shared.outputs if union and is_inexact(v))
    taps = tuple(map(around.tap, part.taps.values()))
    return Loop(
        part=part,
        consts=around.consts,
        probes=around.probes,
        kept=around.kept,
        ops=tuple(around.ops),
        taps=taps,
        shared_ops=tuple(o for o in shared_ops if any(v in found for v in o.outputs)),
        made_of=found,
    )


class _Around:
    """What values in the body of a loop are called outside."""

    def __init__(self, op: Op, part: Part):
        consts, carried = scan_sizes(op)  # type: ignore[misc]
        inputs = part.program.inputs
        last = consts + carried
        self._length = op.params["length"]
        self._producers = {v: op for op in part.ops for v in op.outputs}
        self._constant = _constant(part, consts)
        self._same = part.probes
        self._names: dict[Value, Any] = {v: v for v in part.program.consts}
        self._names.update(zip(inputs[:consts], op.inputs[:consts], strict=True))
        self._names.update(zip(inputs[last:], op.inputs[last:], strict=True))
        self.consts = dict(part.program.consts)
        self.kept: dict[Value, Value] = {}
        self.probes: dict[Value, Value] = {}
        self.ops: list[Op] = []

    def atom(self, atom: Any) -> Any:
        """A value of the body, stacked if it differs between iterations."""
        if not isinstance(atom, Value) or atom in self._names:
            return self._names.get(atom, atom) if isinstance(atom, Value) else atom
        if self._varies(atom):
            self.kept[atom] = self._names[atom] = self._stacked(atom)
        else:
            self.move(self._producers[atom])
        return self._names[atom]

    def move(self, op: Op) -> list[Op]:
        """Has an operation evaluated outside, by the operations returned."""
        if op.outputs[0] in self._names:
            return []
        inputs = [self.atom(a) for a in op.inputs]
        stacked = tuple(map(self._varies, op.inputs))
        ops: list[Op]
        made: list[Any]
        if any(stacked) and bodies(op):  # random numbers in it may differ under vmap
            made = [self._stacked(v) for v in op.outputs]
            ops = [Unrolled(op, inputs, made, stacked)]
        elif any(stacked):
            axes = [0 if s else None for s in stacked]
            mapped = jax.vmap(lambda *xs: op.bind(*xs), axes)
            program, _ = trace(lambda *xs: mapped(*xs), *abstract(inputs))
            ops, made = inlined(program, inputs)
            self.consts |= program.consts
        else:
            made = [Value(v.aval) for v in op.outputs]
            ops = [op.renamed(inputs, made)]
        self.ops += ops
        self._names.update(zip(op.outputs, made, strict=True))
        return ops

    def tap(self, tap: Tap) -> Tap:
        """The tap in all iterations."""
        op = tap.op
        inputs = [self.atom(a) for a in op.inputs]
        stacked = tuple(map(self._varies, op.inputs))
        shared = {j: inputs[j] for j in tap.operands}
        probes = {j: self._same[op.outputs[j]] for j in tap.results}
        if not any(stacked) and not any(map(self._varies, probes.values())):
            outputs = [Value(v.aval) for v in op.outputs]
            self.probes.update((op.outputs[j], outputs[j]) for j in tap.results)
            moved = op.renamed(inputs, outputs)
            return dataclasses.replace(tap, op=moved, operands=shared)
        outputs = [self._stacked(v) for v in op.outputs]
        for j, probe in probes.items():
            outputs[j] = self.probes.setdefault(probe, outputs[j])
        axes = [
            axis + 1 if s and isinstance(axis, int) else axis
            for axis, s in zip(tap.axes, stacked, strict=True)
        ]
        results = {j: axis + 1 for j, axis in tap.results.items()}
        unrolled = Unrolled(op, inputs, outputs, stacked)
        return LoopTap(unrolled, shared, tuple(axes), results, tap.parts, step=tap)

    def _varies(self, atom: Any) -> bool:
        return isinstance(atom, Value) and atom not in self._constant

    def _stacked(self, value: Value) -> Value:
        return Value(stacked_aval(value.aval, self._length))


def _constant(part: Part, consts: int) -> frozenset[Value]:
    """Values of a body that are the same in every iteration."""
    program = part.program
    found = {*program.inputs[:consts], *program.consts}
    for op in part.ops:
        if op not in part.loops and all(v in found for v in op.values):
            found.update(op.outputs)
    return frozenset(found)
