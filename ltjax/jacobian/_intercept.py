r"""Rows of a Jacobian from the backward pass of the sum, by interception.

Where row ``i`` of an operation ``y = op(a, s)`` depends on example ``i`` alone and on
something shared, ``s`` (a parameter, or what was made of parameters), the cotangents
``d`` of ``y`` in one backward pass of the sum of the losses hold all that is needed:

.. math:: \langle g_i, v \rangle = \sum_{op} \langle d_i, \partial_s op(a_i, s)\, \dot s
          \rangle, \qquad
          \sum_i w_i g_i = \sum_{op} \partial_s op(a, s)^\top (w_i d_i)_i

Such an operation is a *tap* here. It may be any primitive: its own derivative with
respect to ``s`` is all that is used. Parameters that are used twice have two taps.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from ltjax._numerics import at_least_float32, widest
from ltjax.jacobian import _ghost_norms
from ltjax.jacobian._chunks import map_chunks
from ltjax.jacobian._jaxpr import Op, Value, is_inexact, read, run
from ltjax.jacobian._placement import positions, zeros
from ltjax.jacobian._plan import Plan, Tap
from ltjax.jacobian._views import overlapping, views


class Intercepted:
    """Losses, and products with their Jacobian, from a plan.

    Args:
      plan: the plan.
      leaves: the parameters.
    """

    def __init__(self, plan: Plan, leaves: Sequence[jax.Array]):
        self._plan = plan
        self._leaves = list(leaves)
        self._taps = list(plan.taps.values())
        program = plan.program
        # What must outlive the evaluation: outputs, and operands that derivatives need.
        kept = {a for a in program.outputs if isinstance(a, Value)}
        for op in (*plan.taps, *plan.shared_ops):
            kept.update(op.values)

        def evaluate(probes):
            env = dict(program.consts)
            env.update(zip(program.inputs, leaves, strict=True))
            run(program.ops, env, functools.partial(self._visit, probes))
            values = {v: env[v] for v in kept}
            return read(env, program.outputs[0]), values

        probes = {
            tap.op: [zeros(tap.op.outputs[j].aval) for j in tap.results]
            for tap in self._taps
        }
        losses, self._pullback, self._env = _vjp(evaluate, probes)
        self.outputs = [read(self._env, a) for a in program.outputs]
        self._losses = losses
        self._unit: list[list[jax.Array]] | None = None
        self._kept: dict[tuple[Op, int], jax.Array] = {}
        self._trace = core.get_opaque_trace_state()

    def _visit(self, probes, op, operands):
        results = list(op.bind(*operands))
        if op in self._plan.frozen:
            results = [jax.lax.stop_gradient(x) for x in results]
        tap = self._plan.taps.get(op)
        if tap:
            for j, probe in zip(tap.results, probes[op], strict=True):
                results[j] = _probe(results[j], probe)
        return tuple(results)

    def dots(self, direction: Sequence[jax.Array | None]) -> jax.Array:
        """``<row, direction>``; parameters whose direction is None are left out."""
        tangents = {
            v: t
            for v, t in zip(self._plan.program.inputs, direction, strict=True)
            if t is not None
        }
        for op in self._plan.shared_ops:
            moved = self._push(op, tangents, self._plan.shared_operands(op))
            tangents.update(
                (v, t) for v, t in zip(op.outputs, moved, strict=True) if t is not None
            )
        total = jnp.zeros_like(self._losses, widest(self._losses.dtype))
        for tap, cotangents in zip(self._taps, self._unit_cotangents(), strict=True):
            made, left = self._kept_rows(tap)
            for value, rows in made:
                if value in tangents:
                    t = tangents[value]
                    total += jnp.tensordot(
                        rows,
                        t,
                        t.ndim,
                        precision="highest",
                        preferred_element_type=total.dtype,
                    )
            moved = self._push(tap.op, tangents, left)
            for (j, axis), d in zip(tap.results.items(), cotangents, strict=True):
                if moved[j] is not None:
                    total += _row_sums(d, moved[j], axis, self._plan.size, total.dtype)
        return total.astype(self._losses.dtype)

    def gradient(self, weights: jax.Array) -> list[jax.Array]:
        """``sum_i weights[i] * row[i]``."""
        found: dict[Value, jax.Array] = {}
        for tap, cotangents in zip(self._taps, self._weighted(weights), strict=True):
            made, left = self._kept_rows(tap)
            for value, rows in made:
                w = _along(weights.astype(rows.dtype), rows.shape, 0)
                _accumulate(found, value, jnp.sum(w * rows, 0))
            if left:
                full = dict(zip(tap.results, cotangents, strict=True))
                self._pull(tap.op, full, left, found)
        return self._to_parameters(found)

    def squares(self, keep: Sequence[bool], chunk_size: Callable[[int], int]):
        """Squared norm of every row, over the parameters to ``keep``."""
        wanted = {i for i, k in enumerate(keep) if k}
        direct, rest = self._separate(wanted)
        total = jnp.zeros_like(self._losses, widest(self._losses.dtype))
        for rows in direct:
            total += self._squares(rows, chunk_size).astype(total.dtype)
        if rest:
            left = wanted & _union(self._plan.made_of[v] for v, _ in rest)

            def squares(row):
                return sum(_ghost_norms.square(row[i]) for i in left)

            total += self._map_rows(squares, rest, left, chunk_size).astype(total.dtype)
        return total

    def rows(self, chunk_size: Callable[[int], int], fun: Callable = list) -> Any:
        """``fun(row)`` of every row, by default one array for each parameter."""
        everything = set(range(len(self._leaves)))
        rest = [(v, self._rows(tap, j)) for tap, j, v in self._slots(everything)]
        return self._map_rows(fun, rest, everything, chunk_size)

    def _map_rows(self, fun, parts, wanted: set[int], chunk_size: Callable[[int], int]):
        """``fun(row)`` of every example; only the ``wanted`` leaves are right."""

        def one(examples):
            found: dict[Value, jax.Array] = {}
            for (value, rows), example in zip(parts, examples, strict=True):
                _accumulate(found, value, rows.one(example))
            return fun(self._to_parameters(found))

        size = sum(self._leaves[i].nbytes for i in wanted)
        size += sum(rows.nbytes for _, rows in parts)
        # An index keeps the mapping alive for parameters that no tap depends on.
        xs = ([rows.examples for _, rows in parts], positions(self._losses))
        return map_chunks(lambda x: one(x[0]), xs, chunk_size(size))

    def _squares(self, rows: _ghost_norms.TapRows, chunk_size: Callable[[int], int]):
        """Squared norms; rows that are small are kept, for other products with them."""
        if not rows.small:
            return rows.squares(chunk_size)
        made = jax.vmap(rows.one)(rows.examples)
        if core.get_opaque_trace_state() == self._trace:
            self._kept[rows.tap.op, rows.position] = made
        return jnp.sum(jnp.square(at_least_float32(made)), tuple(range(1, made.ndim)))

    def _kept_rows(self, tap: Tap):
        """Operands of a tap whose rows are there, with them, and the others."""
        made = [
            (value, self._kept[tap.op, j])
            for j, value in tap.operands.items()
            if (tap.op, j) in self._kept
        ]
        left = {j: v for j, v in tap.operands.items() if (tap.op, j) not in self._kept}
        return made, left

    def _rows(self, tap: Tap, position: int) -> _ghost_norms.TapRows:
        operands = [read(self._env, a) for a in tap.op.inputs]
        cotangents = dict(zip(self._plan.taps, self._unit_cotangents(), strict=True))
        return _ghost_norms.rows_of(
            tap, position, operands, cotangents[tap.op], positions(self._losses)
        )

    def _slots(self, wanted: set[int]) -> list[tuple[Tap, int, Value]]:
        """Where the wanted parameters enter: taps, positions, shared values."""
        return [
            (tap, j, value)
            for tap in self._taps
            for j, value in tap.operands.items()
            if self._plan.made_of[value] & wanted
        ]

    def _separate(self, wanted: set[int]):
        """Rows whose norms add up to that of the whole row, and what is left.

        A part of a parameter that enters at one place only, as it is, contributes the
        norm of the row there. What enters in several places has to be added first.
        """
        found = views(self._plan.program, self._plan.shared_ops)
        slots = self._slots(wanted)
        mixed = _union(self._plan.made_of[v] for *_, v in slots if v not in found)
        alone: dict[Value, bool] = {}
        for i in wanted - mixed:
            own = [v for *_, v in slots if i in self._plan.made_of[v]]
            shared = overlapping([found[v] for v in own])
            alone.update((v, not s) for v, s in zip(own, shared, strict=True))
        direct = [self._rows(tap, j) for tap, j, v in slots if alone.get(v)]
        rest = [(v, self._rows(tap, j)) for tap, j, v in slots if not alone.get(v)]
        return direct, rest

    def _push(
        self, op: Op, tangents: dict[Value, Any], operands: Mapping[int, Value]
    ) -> list[Any]:
        """Tangents of the results of ``op``; None where there is none."""
        moving = {j: tangents[v] for j, v in operands.items() if v in tangents}
        if not moving:
            return [None] * len(op.outputs)
        fun, at = self._partial(op, moving)
        _, moved = jax.jvp(fun, at, list(moving.values()))
        return [
            t if is_inexact(v) else None for v, t in zip(op.outputs, moved, strict=True)
        ]

    def _pull(
        self,
        op: Op,
        cotangents: dict[int, Any],
        operands: Mapping[int, Value],
        found: dict[Value, jax.Array],
    ) -> None:
        """Adds the cotangents of the operands of ``op`` to ``found``."""
        fun, at = self._partial(op, operands)

        def some(*xs):
            full = fun(*xs)
            return [full[j] for j in cotangents]

        _, pullback = jax.vjp(some, *at)
        inner = pullback(list(cotangents.values()))
        for value, x in zip(operands.values(), inner, strict=True):
            _accumulate(found, value, x)

    def _to_parameters(self, found: dict[Value, jax.Array]) -> list[jax.Array]:
        """Cotangents of shared values, carried back to the parameters."""
        for op in reversed(self._plan.shared_ops):
            outer = {j: found[v] for j, v in enumerate(op.outputs) if v in found}
            if outer:
                self._pull(op, outer, self._plan.shared_operands(op), found)
        return [
            found.get(v, jnp.zeros_like(p))
            for v, p in zip(self._plan.program.inputs, self._leaves, strict=True)
        ]

    def _partial(self, op: Op, positions: Iterable[int]):
        """``op`` as a function of some operands, and where it was evaluated."""
        operands = [read(self._env, a) for a in op.inputs]

        def fun(*some):
            full = list(operands)
            for j, x in zip(positions, some, strict=True):
                full[j] = x
            return list(op.bind(*full))

        return fun, [operands[j] for j in positions]

    def _unit_cotangents(self) -> list[list[jax.Array]]:
        """Cotangents of all taps in the backward pass of the sum of the losses."""
        if self._unit is not None:
            return self._unit
        unit = self._backward(jnp.ones_like(self._losses))
        if core.get_opaque_trace_state() == self._trace:
            self._unit = unit
        return unit

    def _weighted(self, weights: jax.Array) -> list[list[jax.Array]]:
        """Cotangents of all taps in the backward pass of the weighted sum."""
        if self._unit is None:
            return self._backward(weights)
        return [
            [
                d * _along(weights.astype(d.dtype), d.shape, axis)
                for axis, d in zip(tap.results.values(), cotangents, strict=True)
            ]
            for tap, cotangents in zip(self._taps, self._unit, strict=True)
        ]

    def _backward(self, weights: jax.Array) -> list[list[jax.Array]]:
        (cotangents,) = self._pullback(weights)
        return list(cotangents.values())


@jax.custom_jvp
def _probe(y: jax.Array, t: jax.Array) -> jax.Array:
    """``y``, with the derivatives of ``y + t``."""
    del t
    return y


@_probe.defjvp
def _probe_jvp(primals, tangents):
    return primals[0], tangents[0] + tangents[1]


def _vjp(evaluate, probes):
    """`jax.vjp` with values to keep, for dictionaries whose keys have no order."""
    names = list(probes)
    kept: list[Value] = []

    def listed(*flat):
        losses, values = evaluate(dict(zip(names, flat, strict=True)))
        kept.extend(values)
        return losses, list(values.values())

    losses, pullback, values = jax.vjp(
        listed, *(probes[name] for name in names), has_aux=True
    )

    def back(weights):
        return (dict(zip(names, pullback(weights), strict=True)),)

    return losses, back, dict(zip(kept, values, strict=True))


def _row_sums(d, t, axis, size, dtype):
    """Sum of ``d * t`` over all entries that belong to one example.

    For complex values this is the pairing of JAX: real, and without a conjugate.
    """
    if jnp.iscomplexobj(d):
        product = (d * t).real.astype(dtype)
    else:
        product = d.astype(dtype) * t.astype(dtype)
    rows = jnp.sum(product, tuple(k for k in range(d.ndim) if k != axis))
    return rows if rows.size == size else jnp.sum(rows.reshape(size, -1), 1)


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset[int]().union(*sets)


def _along(weights: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    """Weights of examples, to be multiplied with an array of that batch axis."""
    own = shape[axis] // weights.size
    rows = weights if own == 1 else jnp.repeat(weights, own)
    return rows.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def _accumulate(found: dict[Value, jax.Array], value: Value, x: jax.Array) -> None:
    found[value] = found[value] + x if value in found else x
