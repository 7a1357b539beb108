"""How products with the Jacobian of a whole program are made, and for which rows.

The program is split into what is shared and what belongs to single examples; here it
is decided what that says about the losses, and what the batch statistics are.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltjax.jacobian._assertion import asserted_axes, assertion_of
from ltjax.jacobian._calls import backward, has_no_tangents
from ltjax.jacobian._constants import Constants
from ltjax.jacobian._flow import Flow, active_values, is_active
from ltjax.jacobian._independence import operand_axes
from ltjax.jacobian._jaxpr import (
    Op,
    Program,
    Value,
    bodies,
    is_inexact,
    nested,
    shape_of,
)
from ltjax.jacobian._linearity import UNKNOWN, linearity
from ltjax.jacobian._parts import Part
from ltjax.jacobian._placement import mixes_meshes
from ltjax.jacobian._rules import SHARED, Axis
from ltjax.jacobian._split import split

PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])
_REDUCTIONS = frozenset(["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])


class NoDefinition(Exception):
    """Batch statistics cannot be told from the rest of a program; the text says why."""


@dataclasses.dataclass(frozen=True)
class Plan(Part):
    """A program whose inputs are the parameters and whose first output the losses.

    Attributes:
      data_ops: operations in which data enters that could be a whole batch.
      obstacle: why rows cannot be read off the taps, or an empty string.
      exchanges: see `exchanges`.
      without_tangents: operations with parameters that have no forward mode.
      intercepted: share of the multiply-adds whose input tangents the taps save.
    """

    data_ops: tuple[Op, ...]
    obstacle: str
    exchanges: tuple[Op, ...]
    without_tangents: tuple[Op, ...]
    intercepted: float

    @property
    def independent(self) -> bool:
        """Whether no example is known to influence the loss of another."""
        return not (
            self.flow.couplings or self.flow.unknown or self.obstacle or self.exchanges
        )

    @property
    def can_be_intercepted(self) -> bool:
        """Whether all products can be read off the taps."""
        return self.independent and self.on_one_mesh and not self.without_tangents

    @property
    def on_one_mesh(self) -> bool:
        """Whether values of all operations can meet each other."""
        ops = (inner for op in self.program.ops for inner in nested(op))
        return not mixes_meshes(v.aval for op in ops for v in op.outputs)

    @property
    def reason(self) -> str:
        """What couples the examples, or what interception would save, in words."""
        if self.obstacle:
            return self.obstacle
        if self.exchanges:
            return f"devices exchange values in {_list(self.exchanges)}"
        if self.flow.unknown:
            return f"examples are not known to stay apart in {_list(self.flow.unknown)}"
        if self.flow.couplings:
            ops = _list(op for op, _ in self.flow.couplings)
            return f"examples influence each other through {ops}"
        if self.without_tangents:
            ops = _list(self.without_tangents)
            return f"a custom_vjp of parameters has no tangents: {ops}"
        if not self.on_one_mesh:
            return "axes of the mesh are explicit for some values, automatic for others"
        share = f"{self.intercepted:.0%} of the products are intercepted"
        names = ", ".join(_asserted(self.flow))
        asserted = f", as asserted of {names}" if names else ""
        if self.data_ops:
            ops = _list(self.data_ops)
            return f"examples meet in shared values only ({ops}){asserted}; {share}"
        return f"examples are independent{asserted}; {share}"


def make_plan(program: Program, frozen: frozenset[Op] = frozenset()) -> Plan:
    """Splits a program whose first output are losses ``[B]``."""
    size = shape_of(program.outputs[0])[0]
    trained = active_values(program, program.inputs)
    active = active_values(program, program.inputs, frozen)
    results = [0, *[None] * (len(program.outputs) - 1)]
    part = split(program, size, active, range(len(program.inputs)), results, frozen)
    saved, total = _intercepted(part)
    return Plan(
        **vars(part),
        data_ops=_data_ops(program, size, part.flow, trained),
        obstacle=_obstacle(part),
        exchanges=exchanges(program),
        without_tangents=_without_tangents(part),
        intercepted=saved / total if total else 1.0,
    )


def freeze(plan: Plan) -> Plan:
    """The plan of the same program with constant batch statistics.

    Raises:
      NoDefinition: if it cannot be told what they are.
    """
    if plan.independent and not plan.data_ops:
        return plan
    frozen = make_plan(plan.program, _statistics(plan))
    _require_no_data(frozen)
    if not frozen.independent or frozen.without_tangents:
        raise NoDefinition(frozen.reason)
    return frozen


def attribute(plan: Plan) -> Plan:
    """The same plan, if its taps are what hooks in a model would see.

    Raises:
      NoDefinition: if examples meet in anything but statistics of their activations.
    """
    for op in _statistics(plan):
        if any(plan.made_of.get(v) for v in op.outputs):
            raise NoDefinition(f"parameters enter the statistic {op.where} directly")
    _require_no_data(plan)
    if plan.obstacle or plan.without_tangents:
        raise NoDefinition(plan.reason)
    return plan


def backward_rules(program: Program) -> dict[Op, frozenset[str]]:
    """Active functions without tangents, and how what their backward rules return
    depends on the cotangents."""
    found = {}
    for op, active in _differentiated(program, program.inputs, program.outputs[:1]):
        if not has_no_tangents(op):
            continue
        reached = [is_active(a, active) for a in op.inputs]
        pullback = backward(op, reached)
        if pullback is None:
            found[op] = frozenset([UNKNOWN])
            continue
        kinds = linearity(pullback, len(op.inputs))
        found[op] = frozenset(k for k, r in zip(kinds, reached, strict=True) if r)
    return found


def exchanges(program: Program) -> tuple[Op, ...]:
    """Operations in which devices exchange what has a derivative.

    Not those in a `jax.shard_map` that is part of the program: there all devices are
    seen. Inside one, the derivative of an example's loss is spread over devices that
    are at other examples, so it has no row.
    """
    ops = [inner for op in program.ops for inner in nested(op)]
    seen = [op.params["newly_manual_axes"] for op in ops if op.name == "shard_map"]
    known = frozenset[str]().union(*seen)
    if all(op.exchanges_along <= known for op in ops):
        return ()
    found = []
    for op, active in _differentiated(program, program.inputs, program.outputs[:1]):
        opaque = op.name in ("custom_vjp_call", "custom_jvp_call")
        along = [inner.exchanges_along for inner in (nested(op) if opaque else [op])]
        if any(is_active(a, active) for a in op.inputs) and any(
            a - known for a in along
        ):
            found.append(op)
    return tuple(found)


def _differentiated(
    program: Program, inputs: Iterable[Value], outputs: Iterable[Any]
) -> Iterator[tuple[Op, frozenset[Value]]]:
    """Operations that JAX differentiates, at any depth, and active values there.

    What a function with a derivative of its own holds is not among them.
    """
    active = active_values(program, inputs, empty=True)
    needed = {v for v in outputs if isinstance(v, Value) and v in active}
    for op in reversed(program.ops):
        if not any(v in needed for v in op.outputs):
            continue
        needed |= active.intersection(op.values)
        yield op, active
        if op.name in ("custom_vjp_call", "custom_jvp_call"):
            continue
        for body in bodies(op):
            given = body.inputs
            if op.name in ("checkpoint", "remat", "remat2"):
                pairs = zip(given, op.inputs, strict=True)
                given = [v for v, a in pairs if is_active(a, active)]
            yield from _differentiated(body, given, body.outputs)


def multiply_adds(op: Op) -> int:
    """Multiplications of an operation's matrix products and convolutions."""
    if op.name == "dot_general":
        (contract, _), _ = op.params["dimension_numbers"]
        shape = shape_of(op.inputs[0])
        return op.outputs[0].size * math.prod(shape[k] for k in contract)
    if op.name == "conv_general_dilated":
        numbers = op.params["dimension_numbers"]
        kernel = shape_of(op.inputs[1])
        per_output = math.prod(kernel) // max(kernel[numbers.rhs_spec[0]], 1)
        return op.outputs[0].size * per_output
    times = 1
    if op.name == "scan":
        times = op.params["length"]
    elif op.name == "shard_map":
        times = op.params["mesh"].size
    inside = (inner for body in bodies(op) for inner in body.ops)
    return times * sum(map(multiply_adds, inside))


def _obstacle(part: Part) -> str:
    program, both = part.program, part.flow.both
    if program.outputs[0] in program.inputs:
        return "the losses are a parameter themselves"
    if both:
        return f"{_list(both)} returns shared values and examples"
    return ""


def _without_tangents(part: Part) -> tuple[Op, ...]:
    ops = (*part.taps, *part.shared_ops)
    return tuple(op for op in ops if any(map(has_no_tangents, nested(op))))


def _asserted(flow: Flow) -> list[str]:
    """Names of functions that are followed as asserted, or may be within operations."""
    found = [op for op in flow.edges if _is_asserted(op, flow)]
    held = (inner for op in flow.edges for body in bodies(op) for inner in body.ops)
    found += [inner for op in held for inner in nested(op)]
    return sorted({a.name for a in map(assertion_of, found) if a})


def _is_asserted(op: Op, flow: Flow) -> bool:
    return asserted_axes(op, [flow.axes.get(v) for v in op.outputs]) is not None


def _data_ops(
    program: Program, size: int, flow: Flow, trained: frozenset[Value]
) -> tuple[Op, ...]:
    """Operations where parameters meet data of all examples: maybe a batch statistic.

    An operation on shared values, or one that holds programs, in which such values may
    be made and used up. Data are constants that could be a whole batch.
    """
    constants = Constants(program)

    def is_data(atom):
        return (
            isinstance(atom, Value)
            and atom not in trained
            and atom.size >= size
            and (
                not constants.is_made_of_literals(atom)
                or (_could_be_examples(atom, size) and not constants.is_uniform(atom))
            )
        )

    def meet(op, edges):
        inside = [body for inner in nested(op) for body in bodies(inner)]
        if any(flow.axes.get(v) is SHARED for v in op.outputs):
            edges = [SHARED] * len(edges)
        elif not inside:
            return False
        captured = any(
            np.size(c) >= size for body in inside for c in body.consts.values()
        ) or any(_multiplies_made_data(body, size) for body in inside)
        shared = (a for a, axis in zip(op.inputs, edges, strict=True) if axis is SHARED)
        return captured or any(map(is_data, shared))

    return tuple(
        op
        for op, edges in flow.edges.items()
        if any(v in trained for v in op.values)
        and not _is_asserted(op, flow)
        and meet(op, edges)
    )


def _could_be_examples(value: Value, size: int) -> bool:
    """Whether an array has an axis for ``size`` examples."""
    return any(n % size == 0 for n in value.shape)


def _multiplies_made_data(body: Program, size: int) -> bool:
    """Whether arrays for all examples are made of literals and keys, for a product."""
    constants = Constants(body)
    made = {v for v in (*body.inputs, *body.consts) if _is_seed(v, size)}
    for op in body.ops:
        if all(v in made for v in op.values):
            made.update(op.outputs)
        elif op.name in PRODUCTS and any(
            a in made and _could_be_examples(a, size) and not constants.is_uniform(a)
            for a in op.values
        ):
            return True
    return False


def _is_seed(value: Value, size: int) -> bool:
    """Whether a value is a key of random numbers, or a few integers like one."""
    key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return key or (value.size < size and not is_inexact(value))


def _intercepted(part: Part) -> tuple[int, int]:
    """Multiply-adds whose input tangents the taps save, and all."""
    saved = total = 0
    for op in part.flow.edges:
        if op in part.loops:
            inside = _intercepted(part.loops[op].part)
            saved += op.params["length"] * inside[0]
            total += op.params["length"] * inside[1]
            continue
        cost = multiply_adds(op) if any(v in part.active for v in op.values) else 0
        shared = all(part.flow.axes.get(v, SHARED) is SHARED for v in op.outputs)
        opaque = op in part.taps and op.name not in PRODUCTS
        total += cost
        saved += 0 if shared or opaque else cost
    return saved, total


def _statistics(plan: Plan) -> frozenset[Op]:
    """Reductions over the batch through which alone examples are coupled."""
    if plan.flow.unknown or plan.flow.both or plan.exchanges or not plan.on_one_mesh:
        raise NoDefinition(plan.reason)
    constants = Constants(plan.program)
    uses: dict[Value, list[tuple[Op, int]]] = {}
    for op in plan.flow.edges:
        for position, atom in enumerate(op.inputs):
            if isinstance(atom, Value):
                uses.setdefault(atom, []).append((op, position))
    found = set()
    pending = [
        (op, position, plan.flow.axes[op.inputs[position]])  # type: ignore[index]
        for op, position in plan.flow.couplings
    ]
    while pending:
        op, position, axis = pending.pop()
        if any(isinstance(plan.flow.axes.get(v), int) for v in op.outputs):
            raise NoDefinition(f"examples meet in {op.where}, no batch statistic")
        if _reduces(op, position, axis):
            found.add(op)
            continue
        result = _result_axis(op, position, axis, plan.size, constants)
        if result is None:
            raise NoDefinition(f"examples meet in {op.where}, no batch statistic")
        pending.extend((*use, result) for use in uses.get(op.outputs[0], ()))
    return frozenset(found)


def _reduces(op: Op, position: int, axis: Axis) -> bool:
    """Whether an operation reduces an axis of one of its operands."""
    if op.name == "dot_general":
        contract, _ = op.params["dimension_numbers"]
        return axis in contract[position]
    return op.name in _REDUCTIONS and axis in op.params["axes"]


def _result_axis(
    op: Op, position: int, axis: Axis, size: int, constants: Constants
) -> int | None:
    """Axis of the result that holds the examples of an operand's axis."""
    if len(op.outputs) != 1:
        return None
    for result, length in enumerate(op.outputs[0].shape):
        if length % size:
            continue
        operands = operand_axes(op, [result], size, constants)
        if operands is not None and operands[position] == axis:
            return result
    return None


def _require_no_data(plan: Plan) -> None:
    if plan.data_ops:
        raise NoDefinition(
            f"data and parameters meet in {_list(plan.data_ops)} for all examples at "
            "once, which may be a batch statistic or not"
        )


def _list(ops: Iterable[Op]) -> str:
    found = sorted({op.where for op in ops})
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more
