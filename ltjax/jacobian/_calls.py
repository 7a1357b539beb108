"""Rules for operations that hold programs: control flow, custom derivatives.

The derivative of a function with a backward rule of its own is that rule, whatever the
function computes. Which operands it reaches, and whether it keeps examples apart, are
read off the traced rule. It must be linear in its cotangents, as a derivative is: of a
rule that clips them, say, a weighted sum of rows is not what the rule gives for the
weighted cotangents, and there is no Jacobian.

Of rules with ``symbolic_zeros`` it is not known whether they keep examples apart: they
see which operands are perturbed, and may do something else for others.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ltjax.jacobian._assertion import asserted_axes
from ltjax.jacobian._jaxpr import (
    Op,
    Program,
    abstract,
    closed,
    is_inexact,
    nested,
    scan_sizes,
    trace,
)
from ltjax.jacobian._linearity import LINEAR, ZERO, linearity
from ltjax.jacobian._placement import mesh_axes
from ltjax.jacobian._rules import BOTH, SHARED, Axis, Interleaved, Question, join, rule


@rule("checkpoint", "remat", "remat2", mixed=True)
def _checkpoint(q: Question) -> list[Axis]:
    return q.inner(closed(q.params["jaxpr"]), q.axes, q.values)


@rule("cond", mixed=True)
def _cond(q: Question) -> list[Axis]:
    branches = [
        q.inner(closed(body), q.axes, q.values) for body in q.params["branches"]
    ]
    return [SHARED, *(join(*found) for found in zip(*branches, strict=True))]


@rule("scan", mixed=True)
def _scan(q: Question) -> list[Axis]:
    """Examples on an axis of the carry, or (`jax.lax.map`) on the axis scanned."""
    params, sizes = q.params, scan_sizes(q.op)
    if sizes is None:
        return q.all(SHARED)
    consts, carried = sizes
    body = closed(params["jaxpr"])
    carry, stacked = list(q.axes[:carried]), list(q.axes[carried:])
    if Interleaved(0) in stacked:
        return q.all(SHARED)
    if 0 in stacked:  # one example after the other
        alone = carried == 0 and params["length"] == q.size and {*stacked} <= {0, None}
        shared = q.all(SHARED)
        return [*shared[:consts], *[0] * len(shared[consts:])] if alone else shared
    slices = [axis - 1 if isinstance(axis, int) else axis for axis in stacked]
    while True:
        found = q.inner(body, [*carry, *slices], q.values)
        joined = [
            join(a, b)
            for a, b in zip(carry, found[consts : consts + carried], strict=True)
        ]
        if joined == carry:
            break
        carry = joined
    xs = [
        axis + 1 if isinstance(axis, int) else axis
        for axis in found[consts + carried :]
    ]
    return [*found[:consts], *carry, *xs]


@rule("shard_map", mixed=True)
def _shard_map(q: Question) -> list[Axis] | None:
    """Examples are apart if they are on every device, and lie there in equal blocks."""
    block = shard_block(q.op, q.axes, q.size)
    if block is None:
        return None
    names, size = block
    alike = q.alike | q.params["newly_manual_axes"].difference(names)
    program = closed(q.params["jaxpr"])
    found = q.inner(program, q.axes, q.values, size=size, alike=alike)
    return [
        axis if axis in (None, BOTH) or mesh_axes(spec, axis) == names else SHARED
        for axis, spec in zip(found, q.params["in_specs"], strict=True)
    ]


def shard_block(
    op: Op, axes: Sequence[Axis], size: int
) -> tuple[tuple[str, ...], int] | None:
    """How a `jax.shard_map` cuts the examples of its results.

    Returns:
      The mesh axes along which they are cut, and how many each device has; None if
      that is not the same for all results.
    """
    if any(isinstance(axis, Interleaved) for axis in axes):
        return None
    pairs = zip(axes, op.params["out_specs"], strict=True)
    cuts = {mesh_axes(spec, axis) for axis, spec in pairs if isinstance(axis, int)}
    names = cuts.pop()
    if names is None or cuts:
        return None
    devices = math.prod(op.params["mesh"].shape[name] for name in names)
    return None if size % devices else (names, size // devices)


@rule("custom_linear_solve", mixed=True)
def _linear_solve(q: Question) -> list[Axis] | None:
    """Examples are apart on the axes of the solution if all functions keep them so.

    The derivative takes that of ``matvec`` and solves again. Right-hand sides are like
    solutions; the other operands are constants of one function after the other. Not
    known for matrices that examples share: JAX 0.10 cannot differentiate such equations
    with respect to the matrix alone.
    """
    consts: list[Axis] = []
    for count, jaxpr in zip(q.params["const_lengths"], q.params["jaxprs"], strict=True):
        if jaxpr is None:
            continue
        found = q.inner(closed(jaxpr), q.axes, q.values)
        pairs = zip(found[count:], q.axes, strict=True)
        if any(axis not in (None, own) for axis, own in pairs):
            return None
        consts += found[:count]
    together = not {SHARED, BOTH}.isdisjoint(consts)
    return None if together else [*consts, *q.axes]


@rule("custom_jvp_call", mixed=True)
def _custom_jvp(q: Question) -> list[Axis] | None:
    """The rule must keep examples apart as the function does."""
    if q.values:
        return q.inner(closed(q.params["call_jaxpr"]), q.axes, True)
    program = None if q.params["symbolic_zeros"] else _tangents(q.op)
    if program is None:
        return None
    found = q.inner(program, [*q.axes, *q.axes], True)
    count = len(q.op.inputs)
    operands, moved = found[:count], iter(found[count:])
    return [
        join(axis, next(moved)) if is_inexact(a) else axis
        for axis, a in zip(operands, q.op.inputs, strict=True)
    ]


def _tangents(op: Op) -> Program | None:
    """The rule of a custom_jvp: operands and tangents of those that are no integers, to
    results and their tangents. None where it is not known."""
    inexact = [is_inexact(a) for a in op.inputs]

    def tangents(operands, directions):
        def fun(*some):
            some_left = iter(some)
            full = [
                next(some_left) if d else x
                for x, d in zip(operands, inexact, strict=True)
            ]
            return op.bind(*full)

        at = [x for x, d in zip(operands, inexact, strict=True) if d]
        outputs, moved = jax.jvp(fun, at, directions)
        return outputs, [
            t if jnp.issubdtype(x.dtype, jnp.inexact) else x
            for x, t in zip(outputs, moved, strict=True)
        ]

    shapes = abstract(op.inputs)
    directions = [s for s, d in zip(shapes, inexact, strict=True) if d]
    return _trace_rule(tangents, shapes, directions)


def has_no_tangents(op: Op) -> bool:
    """Whether an operation has a derivative in reverse mode alone: a custom_vjp, or a
    custom_jvp whose rule differentiates one."""
    if op.name != "custom_jvp_call":
        return op.name == "custom_vjp_call"
    program = _tangents(op)
    ops = program.ops if program else []
    return any(i.name == "custom_lin" for o in ops for i in nested(o))


@rule("custom_vjp_call", mixed=True)
def _custom_vjp(q: Question) -> list[Axis] | None:
    """What the backward rule says, which alone is the derivative."""
    asserted = asserted_axes(q.op, q.axes)
    if asserted is not None:
        return asserted
    if q.values:
        return q.inner(closed(q.params["call_jaxpr"]), q.axes, True)
    pullback = None if q.params["symbolic_zeros"] else backward(q.op)
    if pullback is None:
        return None
    kinds = linearity(pullback, len(q.op.inputs))
    if not all(kind in (LINEAR, ZERO) for kind in kinds):
        return None
    axes = q.all(SHARED)
    for k, (shape, kind) in enumerate(zip(q.shapes, kinds, strict=True)):
        axes[k] = None if kind == ZERO else _operand_axis(q, pullback, k, shape)
    return axes


def backward(op: Op, perturbed: Sequence[bool] | None = None) -> Program | None:
    """The backward rule of a function: operands and cotangents of the results to a
    cotangent for every operand, 0 where it is of integers, closed over, or not
    ``perturbed`` (by default all are). None where it is not known."""
    if not all(map(is_inexact, op.outputs)):
        return None
    moving = [
        j
        for j in range(op.params["num_consts"], len(op.inputs))
        if is_inexact(op.inputs[j]) and (perturbed is None or perturbed[j])
    ]

    def cotangents(operands, outer):
        def fun(*some):
            full = list(operands)
            for j, x in zip(moving, some, strict=True):
                full[j] = x
            return op.bind(*full)

        _, pullback = jax.vjp(fun, *(operands[j] for j in moving))
        told = dict(zip(moving, pullback(outer), strict=True))
        return [told.get(j, jnp.zeros((), jnp.float32)) for j in range(len(operands))]

    return _trace_rule(cotangents, abstract(op.inputs), tuple(abstract(op.outputs)))


def _trace_rule(fun: Callable[..., Any], *args: Any) -> Program | None:
    """A program with a rule of the user, which may raise where `jax.grad` skips it."""
    try:
        return trace(fun, *args)[0]
    except Exception:
        return None


def _operand_axis(q: Question, pullback: Program, k: int, shape: tuple[int, ...]):
    """An axis of the operand whose cotangents come from the same example's."""
    for axis in range(len(shape)):
        if shape[axis] % q.size:
            continue
        wanted: list[Axis] = [None] * len(q.shapes)
        wanted[k] = axis
        found = q.inner(pullback, wanted, True)[len(q.shapes) :]
        if all(map(_apart, found, q.axes)):
            return axis
    return SHARED


def _apart(needed: Axis, given: Axis) -> bool:
    """Whether cotangents that are needed on an axis come from the same example."""
    return given is None or needed is None or (needed == given and given != SHARED)
