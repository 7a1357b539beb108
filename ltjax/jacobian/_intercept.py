r"""Rows of a Jacobian from the backward pass of the sum, by interception.

Where row ``i`` of an operation ``y = op(a, s)`` depends on example ``i`` alone and on
something shared, ``s`` (a parameter, or what was made of parameters), the cotangents
``d`` of ``y`` in one backward pass of the sum of the losses hold all that is needed:

.. math:: \langle g_i, v \rangle = \sum_{op} \langle d_i, \partial_s op(a_i, s)\, \dot s
          \rangle, \qquad
          \sum_i w_i g_i = \sum_{op} \partial_s op(a, s)^\top (w_i d_i)_i

Such an operation is a *tap* here. It may be any primitive: its own derivative with
respect to ``s`` is all that is used. Parameters that are used twice have two taps.

Taps in loops are found outside of them, in all iterations at once. What a checkpoint
drops stays dropped: the function is one tap, and norms are those of the taps in it when
it is evaluated again. The branches of a `cond` are treated in the same way.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from ltjax._numerics import at_least_float32, squared_norm, widest
from ltjax.jacobian import _ghost_norms
from ltjax.jacobian._chunks import ChunkSize, map_chunks
from ltjax.jacobian._evaluate import evaluate
from ltjax.jacobian._jaxpr import Op, Value, as_array, read
from ltjax.jacobian._parts import LoopTap, Part, Tap
from ltjax.jacobian._placement import on_each_device, positions, zeros
from ltjax.jacobian._products import along, dots, each_step, gradients, pull, push
from ltjax.jacobian._views import overlapping, views


class Intercepted:
    """Outputs of a program, and products with the Jacobian of one of them.

    Args:
      part: the program, split.
      inputs: its inputs; those at the top are the parameters.
      cotangents: of its outputs, by position, whose products with the Jacobian are the
        rows; by default 1 for the first, which are the losses then.
      numbers: the examples, counted from 0; by default counted along the losses.
    """

    def __init__(
        self,
        part: Part,
        inputs: Sequence[jax.Array],
        cotangents: Mapping[int, jax.Array] | None = None,
        numbers: jax.Array | None = None,
    ):
        self._part = part
        self._inputs = list(inputs)
        self._taps = list(part.taps.values())
        program = part.program
        wanted = [0] if cotangents is None else list(cotangents)
        # What must outlive the evaluation: outputs, and operands that derivatives need.
        kept = {a for a in program.outputs if isinstance(a, Value)}
        for op in (*part.taps, *part.shared_ops):
            kept.update(op.values)

        def run(probes, inputs):
            env = dict(zip(program.inputs, inputs, strict=True))
            evaluate(part, env, probes)
            outputs = [read(env, program.outputs[j]) for j in wanted]
            return outputs, {v: env[v] for v in kept}

        probes = {v: zeros(v.aval) for v in part.probes.values()}
        # The gradient alone is that of JAX where taps would keep more than it needs.
        self._plain = cotangents is None and bool(part.loops)
        outputs, self._pullback, self._env = _vjp(run, probes, inputs, self._plain)
        self.outputs = [read(self._env, a) for a in program.outputs]
        if cotangents is None:
            cotangents = {0: jnp.ones_like(outputs[0])}
        self._cotangents = list(cotangents.values())
        self._numbers = positions(outputs[0]) if numbers is None else numbers
        self._dtype = widest(*(x.dtype for x in outputs))
        self._unit: list[list[jax.Array]] | None = None
        self._kept: dict[tuple[Op, int], jax.Array] = {}
        self._trace = core.get_opaque_trace_state()

    def dots(self, direction: Sequence[jax.Array | None]) -> jax.Array:
        """``<row, direction>``; parameters whose direction is None are left out."""
        tangents = {
            v: t
            for v, t in zip(self._part.program.inputs, direction, strict=True)
            if t is not None
        }
        for op in self._part.shared_ops:
            moved = push(op, self._operands(op), self._moving(op, tangents))
            tangents.update(
                (v, t) for v, t in zip(op.outputs, moved, strict=True) if t is not None
            )
        total = self._zeros()
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
            moving = {j: tangents[v] for j, v in left.items() if v in tangents}
            if moving:
                operands = self._operands(tap.op)
                total += dots(
                    tap, operands, moving, cotangents, self._part.size, total.dtype
                )
        # The barrier keeps the compiler from repeating the sum wherever it is read.
        return lax.optimization_barrier(total.astype(self.outputs[0].dtype))

    def gradient(self, weights: jax.Array) -> list[jax.Array]:
        """``sum_i weights[i] * row[i]``."""
        if self._unit is None and self._plain:
            return self._pullback([weights])[1]
        found: dict[Value, jax.Array] = {}
        known = self._unit is not None
        ready = self._unit_cotangents() if known else self._backward([weights])
        for tap, cotangents in zip(self._taps, ready, strict=True):
            made, left = self._kept_rows(tap)
            for value, rows in made:
                w = along(weights.astype(rows.dtype), rows.shape, 0)
                _accumulate(found, value, jnp.sum(w * rows, 0))
            if left:
                inner = gradients(
                    tap,
                    self._operands(tap.op),
                    list(left),
                    cotangents,
                    weights if known else None,
                )
                for j, x in inner.items():
                    _accumulate(found, left[j], x)
        return self._to_inputs(found)

    def squares(self, keep: Sequence[bool], chunk_size: ChunkSize) -> jax.Array:
        """Squared norm of every row, over the inputs to ``keep``."""
        wanted = {i for i, k in enumerate(keep) if k}
        direct, rest = self._separate(wanted)
        total = self._zeros()
        for tap, places in direct:
            total += self._squares(tap, places, chunk_size).astype(total.dtype)
        if rest:
            left = wanted & _union(self._part.made_of[v] for *_, v in rest)

            def squares(row):
                return sum(squared_norm(row[i]) for i in left)

            parts = [(v, self._rows(tap, j)) for tap, j, v in rest]
            total += self._map_rows(squares, parts, left, chunk_size).astype(
                total.dtype
            )
        return lax.optimization_barrier(total)

    def cheap(self, keep: Sequence[bool]) -> bool:
        """Whether `squares` runs no program of all examples for each row."""
        direct, rest = self._separate({i for i, k in enumerate(keep) if k})
        opaque = [(t, j) for t, places in direct if not t.parts for j in places]
        opaque += [(t, j) for t, j, _ in rest]
        return all(_ghost_norms.apart(tap, j) for tap, j in opaque)

    def rows(self, chunk_size: ChunkSize, fun: Callable = list) -> Any:
        """``fun(row)`` of every row, by default one array for each input."""
        everything = set(range(len(self._inputs)))
        rest = [(v, self._rows(tap, j)) for tap, j, v in self._slots(everything)]
        return self._map_rows(fun, rest, everything, chunk_size)

    def _map_rows(self, fun, parts, wanted: set[int], chunk_size: ChunkSize):
        """``fun(row)`` of every example; only the ``wanted`` leaves are right."""

        def one(examples):
            found: dict[Value, jax.Array] = {}
            for (value, rows), example in zip(parts, examples, strict=True):
                _accumulate(found, value, rows.one(example))
            return fun(self._to_inputs(found))

        size = sum(self._inputs[i].nbytes for i in wanted)
        size += sum(rows.nbytes for _, rows in parts)
        # An index keeps the mapping alive for parameters that no tap depends on.
        xs = ([rows.examples for _, rows in parts], self._numbers)
        return map_chunks(lambda x: one(x[0]), xs, chunk_size(size))

    def _squares(self, tap: Tap, places: Sequence[int], chunk_size: ChunkSize):
        """Sum over some operands; rows that are small are kept for other products."""
        if tap.parts:
            operands = self._operands(tap.op)
            cotangents = self._cotangents_of(tap)
            return self._inner_squares(tap, places, operands, cotangents, chunk_size)
        total = self._zeros()
        for j in places:
            rows = self._rows(tap, j)
            if not rows.small:
                total += rows.squares(chunk_size).astype(total.dtype)
                continue
            made = jax.vmap(rows.one)(rows.examples)
            if core.get_opaque_trace_state() == self._trace:
                self._kept[tap.op, j] = made
            axes = tuple(range(1, made.ndim))
            squares = jnp.sum(jnp.square(at_least_float32(made)), axes)
            total += squares.astype(total.dtype)
        return total

    def _inner_squares(self, tap, places, operands, cotangents, chunk_size):
        """Those of the taps in an operation, which is evaluated again."""
        if isinstance(tap, LoopTap):

            def step(xs):
                return self._inner_squares(tap.step, places, xs[0], xs[1], chunk_size)

            return jnp.sum(each_step(step, tap, operands, list(cotangents)), 0)
        first = len(operands) - len(tap.parts[0].program.inputs)

        def branch(part):
            def run(operands, cotangents, numbers=self._numbers):
                given = dict(zip(tap.results, cotangents, strict=True))
                inner = Intercepted(part, operands, given, numbers)
                keep = [first + i in places for i in range(len(operands))]
                return inner.squares(keep, chunk_size).astype(self._dtype)

            return run

        # The barrier keeps what is evaluated again apart from the first evaluation.
        own = list(map(as_array, operands[first:], tap.op.inputs[first:]))
        own, ds = lax.optimization_barrier((own, list(cotangents)))
        branches = list(map(branch, tap.parts))
        if tap.op.name == "shard_map":
            numbers = jnp.arange(tap.parts[0].size, dtype=jnp.int32)
            local = functools.partial(branches[0], numbers=numbers)
            return on_each_device(local, tap.op, tap.results)(own, ds)
        if len(branches) == 1:
            return branches[0](own, ds)
        return lax.switch(operands[0], branches, own, ds)

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
        cotangents = self._cotangents_of(tap)
        operands = self._operands(tap.op)
        return _ghost_norms.rows_of(tap, position, operands, cotangents, self._numbers)

    def _slots(self, wanted: set[int]) -> list[tuple[Tap, int, Value]]:
        """Where the wanted inputs enter: taps, positions, shared values."""
        return [
            (tap, j, value)
            for tap in self._taps
            for j, value in tap.operands.items()
            if self._part.made_of[value] & wanted
        ]

    def _separate(self, wanted: set[int]):
        """Operands whose rows' norms add up to that of the whole row, and the others.

        A part of a parameter that enters at one place only, as it is, contributes the
        norm of the row there. What enters in several places has to be added first.
        """
        found = views(self._part.program, self._part.shared_ops)
        slots = self._slots(wanted)
        mixed = _union(self._part.made_of[v] for *_, v in slots if v not in found)
        alone: dict[Value, bool] = {}
        for i in wanted - mixed:
            own = [v for *_, v in slots if i in self._part.made_of[v]]
            shared = overlapping([found[v] for v in own])
            alone.update((v, not s) for v, s in zip(own, shared, strict=True))
        direct: dict[Op, tuple[Tap, list[int]]] = {}
        rest = []
        for tap, j, v in slots:
            if alone.get(v) and (_once(tap, j) or not tap.parts):
                direct.setdefault(tap.op, (tap, []))[1].append(j)
            else:
                rest.append((tap, j, v))
        return list(direct.values()), rest

    def _to_inputs(self, found: dict[Value, jax.Array]) -> list[jax.Array]:
        """Cotangents of shared values, carried back to the inputs."""
        for op in reversed(self._part.shared_ops):
            outer = {j: found[v] for j, v in enumerate(op.outputs) if v in found}
            if outer:
                shared = self._part.shared_operands(op)
                inner = pull(op, self._operands(op), outer, shared)
                for j, x in inner.items():
                    _accumulate(found, shared[j], x)
        return [
            found.get(v, jnp.zeros_like(p))
            for v, p in zip(self._part.program.inputs, self._inputs, strict=True)
        ]

    def _moving(self, op: Op, tangents: Mapping[Value, Any]) -> dict[int, Any]:
        shared = self._part.shared_operands(op)
        return {j: tangents[v] for j, v in shared.items() if v in tangents}

    def _operands(self, op: Op) -> list[Any]:
        return [read(self._env, a) for a in op.inputs]

    def _zeros(self) -> jax.Array:
        return jnp.zeros_like(self._numbers, self._dtype)

    def _cotangents_of(self, tap: Tap) -> list[jax.Array]:
        named = dict(zip(self._part.taps, self._unit_cotangents(), strict=True))
        return named[tap.op]

    def _unit_cotangents(self) -> list[list[jax.Array]]:
        """Cotangents of all taps in the backward pass of the sum of the losses."""
        if self._unit is not None:
            return self._unit
        unit = self._backward(self._cotangents)
        if core.get_opaque_trace_state() == self._trace:
            self._unit = unit
        return unit

    def _backward(self, cotangents: list[jax.Array]) -> list[list[jax.Array]]:
        found, _ = self._pullback(cotangents)
        probes = self._part.probes
        return [
            [found[probes[tap.op.outputs[j]]] for j in tap.results]
            for tap in self._taps
        ]


def _vjp(run, probes, inputs, with_inputs):
    """`jax.vjp` with values to keep, for dictionaries whose keys have no order.

    Derivatives with respect to the inputs are there only ``with_inputs``.
    """
    names = list(probes)
    kept: list[Value] = []

    def listed(given, inputs):
        outputs, values = run(dict(zip(names, given, strict=True)), inputs)
        kept.extend(values)
        return outputs, list(values.values())

    at = list(probes.values())
    if with_inputs:
        outputs, pullback, values = jax.vjp(listed, at, list(inputs), has_aux=True)
    else:
        outputs, pullback, values = jax.vjp(
            lambda given: listed(given, inputs), at, has_aux=True
        )

    def back(cotangents):
        found, *rest = pullback(cotangents)
        return dict(zip(names, found, strict=True)), *(rest or [None])

    return outputs, back, dict(zip(kept, values, strict=True))


def _once(tap: Tap, position: int) -> bool:
    """Whether an operand is another one in every iteration of the loops around."""
    while isinstance(tap, LoopTap):
        if not tap.op.stacked[position]:
            return False
        tap = tap.step
    return True


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset[int]().union(*sets)


def _accumulate(found: dict[Value, jax.Array], value: Value, x: jax.Array) -> None:
    found[value] = found[value] + x if value in found else x
