"""A split program evaluated so that cotangents can be taken at its taps."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import lax

from ltjax.jacobian._jaxpr import Op, Value, as_array, read, run, scan_sizes
from ltjax.jacobian._parts import Loop, Part

Probes = Mapping[Value, jax.Array]


def evaluate(part: Part, env: dict[Value, Any], probes: Probes) -> None:
    """Evaluates a program into ``env``, which holds its inputs.

    Args:
      part: the program.
      env: values by name; those that taps outside of loops need are added too.
      probes: zeros whose cotangents are those of the results that they belong to.
    """
    env.update(part.program.consts)
    for op in part.program.ops:
        if op in part.loops:
            results = _loop(part.loops[op], op, env, probes)
        else:
            results = list(op.bind(*(read(env, a) for a in op.inputs)))
        for v, x in zip(op.outputs, results, strict=True):
            x = lax.stop_gradient(x) if op in part.frozen else x
            env[v] = _probe(x, probes[v]) if v in probes else x
        if op in part.loops:
            run(part.loops[op].ops, env)


def _loop(loop: Loop, op: Op, env: dict[Value, Any], probes: Probes) -> list[Any]:
    """Results of a scan; what its taps need in every iteration goes to ``env``."""
    operands = [as_array(read(env, a), a) for a in op.inputs]
    body, params = loop.part.program, op.params
    consts, carried = scan_sizes(op)  # type: ignore[misc]
    first, last = consts, consts + carried
    given = {v: probes[outer] for v, outer in loop.probes.items()}
    each = [v for v, outer in loop.probes.items() if outer.shape != v.shape]

    def step(carry, scanned):
        xs, some = scanned
        inside = dict(zip(body.inputs, [*operands[:first], *carry, *xs], strict=True))
        evaluate(loop.part, inside, given | dict(zip(each, some, strict=True)))
        outputs = [as_array(read(inside, a), a) for a in body.outputs]
        return outputs[:carried], (outputs[carried:], [inside[v] for v in loop.kept])

    carry, (ys, kept) = lax.scan(
        step,
        operands[first:last],
        (operands[last:], [given[v] for v in each]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params.get("unroll", 1),
    )
    env.update(zip(loop.kept.values(), kept, strict=True))
    env.update(loop.consts)
    return [*carry, *ys]


@jax.custom_jvp
def _probe(y: jax.Array, t: jax.Array) -> jax.Array:
    """``y``, with the derivatives of ``y + t``."""
    del t
    return y


@_probe.defjvp
def _probe_jvp(primals, tangents):
    return primals[0], tangents[0] + tangents[1]
