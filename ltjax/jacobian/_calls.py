"""Rules for operations that hold programs: control flow, custom derivatives.

The derivative of a function with a backward rule of its own is that rule, whatever the
function computes. Which operands it reaches, and whether it keeps examples apart, are
read off the traced rule. It must be linear in its cotangents, as a derivative is: of a
rule that clips them, say, a weighted sum of rows is not what the rule gives for the
weighted cotangents, and there is no Jacobian.
"""

from functools import partial

import jax
import jax.numpy as jnp

from ltjax.jacobian._jaxpr import (
    Op,
    Program,
    abstract,
    closed,
    is_inexact,
    scan_sizes,
    trace,
)
from ltjax.jacobian._linearity import LINEAR, ZERO, linearity
from ltjax.jacobian._rules import SHARED, Axis, Question, join, rule


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


@rule("custom_jvp_call", mixed=True)
def _custom_jvp(q: Question) -> list[Axis]:
    """The rule must keep examples apart as the function does."""
    op = q.op
    if q.values:
        return q.inner(closed(q.params["call_jaxpr"]), q.axes, True)
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
    program, _ = trace(tangents, shapes, directions)
    found = q.inner(program, [*q.axes, *q.axes], True)
    operands, moved = found[: len(shapes)], iter(found[len(shapes) :])
    return [
        join(axis, next(moved)) if d else axis
        for axis, d in zip(operands, inexact, strict=True)
    ]


@rule("custom_vjp_call", mixed=True)
def _custom_vjp(q: Question) -> list[Axis] | None:
    """What the backward rule says, which alone is the derivative."""
    if q.values:
        return q.inner(closed(q.params["call_jaxpr"]), q.axes, True)
    pullback = backward(q.op)
    if pullback is None:
        return None
    kinds = linearity(pullback, len(q.op.inputs))
    if not all(kind in (LINEAR, ZERO) for kind in kinds):
        return None
    axes = q.all(SHARED)
    for k, (shape, kind) in enumerate(zip(q.shapes, kinds, strict=True)):
        axes[k] = None if kind == ZERO else _operand_axis(q, pullback, k, shape)
    return axes


def backward(op: Op) -> Program | None:
    """The backward rule of a custom_vjp: operands and cotangents of the results to a
    cotangent for every operand, 0 where it is of integers or closed over."""
    if not all(map(is_inexact, op.outputs)):
        return None
    closed_over = op.params["num_consts"]

    def cotangents(operands, outer):
        fun = partial(op.bind, *operands[:closed_over])
        _, pullback = jax.vjp(fun, *operands[closed_over:])
        told = [None] * closed_over + list(pullback(outer))
        return [
            x if x is not None and is_inexact(a) else jnp.zeros((), jnp.float32)
            for x, a in zip(told, op.inputs, strict=True)
        ]

    program, _ = trace(cotangents, abstract(op.inputs), tuple(abstract(op.outputs)))
    return program


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
