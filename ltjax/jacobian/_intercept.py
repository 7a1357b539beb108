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
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from ltjax._numerics import at_least_float32, widest
from ltjax.jacobian import _ghost_norms
from ltjax.jacobian._chunks import map_chunks
from ltjax.jacobian._independence import SHARED, Axis, operand_axes
from ltjax.jacobian._jaxpr import Op, Program, Value, read, run, shape_of


class Tap(NamedTuple):
    """Where shared values meet examples."""

    op: Op
    operands: dict[int, Value]  # shared values that are made of parameters
    axes: tuple[Axis, ...]  # batch axes of the operands
    results: dict[int, Any]  # batch axes of the results that are used


class Plan:
    """A program split into what is shared and what belongs to single examples.

    Attributes:
      program: the program; its inputs are the parameters, its first output the losses.
      size: number of examples.
      taps: where the two parts meet.
      depends: for each shared value, the parameters it is made of.
      couplings: operands ``(op, position)`` that let examples meet.
      obstacle: why rows cannot be read off the taps, or an empty string.
    """

    def __init__(self, program: Program):
        self.program = program
        self.size = shape_of(program.outputs[0])[0]
        self.taps: dict[Op, Tap] = {}
        self.depends: dict[Value, frozenset[int]] = {
            v: frozenset([i]) for i, v in enumerate(program.inputs)
        }
        self.couplings: set[tuple[Op, int]] = set()
        self.mixers: list[str] = []
        self._suspects: list[str] = []
        self.obstacle = ""
        self.shared_ops: list[Op] = []
        self._active = self._find_active()
        self._axes = self._find_axes()
        self._find_taps()
        self._measure()
        # Products of data and parameters that go to all examples: with nothing else
        # in the way they could be other examples.
        if not (self.couplings or self.mixers):
            self.mixers = self._suspects
        if program.outputs[0] in program.inputs:
            self.obstacle = "the losses are a parameter themselves"

    @property
    def independent(self) -> bool:
        """Whether no example is known to influence the loss of another."""
        return not (self.couplings or self.mixers or self.obstacle)

    @property
    def share(self) -> float:
        """Share of the multiply-adds whose input tangents interception saves."""
        return self.saved / self.total if self.total else 1.0

    @property
    def reason(self) -> str:
        """What couples the examples, or what interception would save, in words."""
        if self.obstacle:
            return self.obstacle
        if self.couplings:
            names = sorted({op.name for op, _ in self.couplings})
            return f"examples influence each other through {', '.join(names)}"
        if self.mixers:
            names = sorted(set(self.mixers))
            return f"examples are not known to stay apart in {', '.join(names)}"
        return f"examples are independent; {self.share:.0%} of the products are tapped"

    def shared_operands(self, op: Op) -> dict[int, Value]:
        """Operands made of parameters and of no example, by position."""
        return {
            j: a
            for j, a in enumerate(op.inputs)
            if isinstance(a, Value) and self.depends.get(a)
        }

    def holds(self, name: str) -> bool:
        """Whether a primitive occurs anywhere."""
        return any(_holds(op, name) for op in self.program.ops)

    def _find_active(self) -> set[Value]:
        """Values with a derivative with respect to the parameters."""
        active = set(self.program.inputs)
        for op in self.program.ops:
            if op.name != "stop_gradient" and any(a in active for a in _values(op)):
                active |= {v for v in op.outputs if _inexact(v)}
        return active

    def _find_axes(self) -> dict[Value, Axis]:
        """Batch axis of every active value that the losses depend on."""
        producers = {v: op for op in self.program.ops for v in op.outputs}
        inputs = set(self.program.inputs)
        uses: dict[Value, list[tuple[Op | None, int, Axis]]] = {}
        axes: dict[Value, Axis] = dict.fromkeys(inputs, SHARED)

        def settle(value):
            """A value is that of examples if any use says so; other uses couple."""
            if value in inputs or value not in uses:
                return
            found = [axis for _, _, axis in uses[value]]
            axes[value] = next((a for a in found if a is not SHARED), SHARED)
            for op, position, axis in uses[value]:
                if axis != axes[value] and op is not None:
                    self.couplings.add((op, position))

        losses = self.program.outputs[0]
        if losses in self._active:
            uses[losses] = [(None, 0, 0)]
        self._edges: dict[Op, list[Axis]] = {}
        for op in reversed(self.program.ops):
            for value in op.outputs:
                if value in self._active:
                    settle(value)
            results = [axes.get(v) for v in op.outputs]
            if all(axis is None for axis in results):
                continue
            rows = any(isinstance(axis, int) for axis in results)
            operands = None
            if rows:
                operands = operand_axes(op, results, self.size, producers)
                if operands is None:
                    self.mixers.append(op.name)
                if SHARED in results:
                    self.obstacle = f"{op.name} returns shared values and examples"
            operands = operands or [SHARED] * len(op.inputs)
            self._edges[op] = operands
            for position, (atom, axis) in enumerate(
                zip(op.inputs, operands, strict=True)
            ):
                if (
                    isinstance(atom, Value)
                    and atom in self._active
                    and axis is not None
                ):
                    uses.setdefault(atom, []).append((op, position, axis))
        return axes

    def _find_taps(self) -> None:
        for op in self.program.ops:
            if op not in self._edges:
                continue
            results = {
                j: self._axes[v]
                for j, v in enumerate(op.outputs)
                if v in self._active and self._axes.get(v) is not None
            }
            shared = self.shared_operands(op)
            if SHARED in results.values():
                made_of = frozenset[int]().union(
                    *(self.depends[v] for v in shared.values())
                )
                self.depends |= {op.outputs[j]: made_of for j in results}
                if made_of:
                    self.shared_ops.append(op)
            elif results and shared:
                self.taps[op] = Tap(op, shared, tuple(self._edges[op]), results)
        for op in (*self.taps, *self.shared_ops):
            if _holds(op, "custom_vjp_call"):
                self.obstacle = "a custom_vjp of parameters has no tangents"

    def _measure(self) -> None:
        """Multiply-adds whose tangents interception saves, and all of them."""
        self.saved = self.total = 0
        for op in self.program.ops:
            if op not in self._edges:
                continue
            active = any(a in self._active for a in _values(op))
            cost = multiply_adds(op) if active else 0
            shared = all(self._axes.get(v, SHARED) is SHARED for v in op.outputs)
            opaque = op in self.taps and op.name not in _ghost_norms.PRODUCTS
            self.total += cost
            self.saved += 0 if shared or opaque else cost
            data = any(
                isinstance(a, Value) and a not in self._active for a in op.inputs
            )
            if shared and cost and data:
                self._suspects.append(op.name)


class Intercepted:
    """Losses, and products with their Jacobian, from a plan.

    Args:
      plan: the plan.
      leaves: the parameters.
      freeze: whether examples influence each other through constants only.
    """

    def __init__(
        self, plan: Plan, leaves: Sequence[jax.Array], *, freeze: bool = False
    ):
        self._plan = plan
        self._leaves = list(leaves)
        self._taps = list(plan.taps.values())
        program = plan.program
        # What must outlive the evaluation: outputs, and operands that derivatives need.
        kept = {a for a in program.outputs if isinstance(a, Value)}
        for op in (*plan.taps, *plan.shared_ops):
            kept.update(_values(op))

        def evaluate(probes):
            env = dict(program.consts)
            env.update(zip(program.inputs, leaves, strict=True))
            run(program.ops, env, functools.partial(self._visit, freeze, probes))
            values = {v: env[v] for v in kept}
            return read(env, program.outputs[0]), values

        probes = {
            op: [jnp.zeros(v.shape, v.dtype) for v in _tapped(tap)]
            for op, tap in plan.taps.items()
        }
        losses, self._pullback, self._env = _vjp(evaluate, probes)
        self.outputs = [read(self._env, a) for a in program.outputs]
        self._losses = losses
        self._unit: list[list[jax.Array]] | None = None
        self._kept: dict[tuple[Op, int], jax.Array] = {}
        self._trace = core.get_opaque_trace_state()

    def _visit(self, freeze, probes, op, operands):
        if freeze:
            operands = [
                jax.lax.stop_gradient(x) if (op, j) in self._plan.couplings else x
                for j, x in enumerate(operands)
            ]
        results = list(op.bind(*operands))
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
        total = jnp.zeros(self._losses.shape, widest(self._losses.dtype))
        for tap, cotangents in zip(self._taps, self._unit_cotangents(), strict=True):
            made, left = self._kept_rows(tap)
            for value, rows in made:
                if value in tangents:
                    t = tangents[value]
                    total += jnp.tensordot(
                        rows, t, t.ndim, preferred_element_type=total.dtype
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
                w = weights.astype(rows.dtype)
                _accumulate(found, value, jnp.tensordot(w, rows, 1))
            if left:
                full = dict(zip(tap.results, cotangents, strict=True))
                self._pull(tap.op, full, left, found)
        return self._to_parameters(found)

    def squares(self, keep: Sequence[bool], chunk_size: Callable[[int], int]):
        """Squared norm of every row, over the parameters to ``keep``."""
        wanted = {i for i, k in enumerate(keep) if k}
        slots = self._slots(wanted)
        cotangents = dict(zip(self._plan.taps, self._unit_cotangents(), strict=True))
        total = jnp.zeros(self._losses.shape, widest(self._losses.dtype))
        direct = set()
        for i in wanted:
            if len(slots[i]) == 1 and slots[i][0][2]:
                tap, position, _ = slots[i][0]
                rows = self._rows(tap, position, cotangents[tap.op])
                total += self._squares(rows, chunk_size).astype(total.dtype)
                direct.add(i)
        rest = wanted - direct
        if rest:

            def squares(row):
                return sum(jnp.sum(jnp.square(at_least_float32(row[i]))) for i in rest)

            total += self._map_rows(squares, rest, chunk_size).astype(total.dtype)
        return total

    def rows(self, chunk_size: Callable[[int], int]) -> list[jax.Array]:
        """All rows, one array for each parameter."""
        everything = set(range(len(self._leaves)))
        return self._map_rows(lambda row: list(row), everything, chunk_size)

    def _map_rows(self, fun, wanted: set[int], chunk_size: Callable[[int], int]):
        """``fun(row)`` of every example; only the ``wanted`` leaves are right."""
        cotangents = dict(zip(self._plan.taps, self._unit_cotangents(), strict=True))
        parts = [
            (value, self._rows(tap, j, cotangents[tap.op]))
            for tap in self._taps
            for j, value in tap.operands.items()
            if self._plan.depends[value] & wanted
        ]

        def one(examples):
            found: dict[Value, jax.Array] = {}
            for (value, rows), example in zip(parts, examples, strict=True):
                _accumulate(found, value, rows.one(example))
            return fun(self._to_parameters(found))

        size = sum(
            self._leaves[i].size * self._leaves[i].dtype.itemsize for i in wanted
        )
        # An index keeps the mapping alive for parameters that no tap depends on.
        xs = ([rows.examples for _, rows in parts], jnp.arange(self._plan.size))
        return map_chunks(lambda x: one(x[0]), xs, chunk_size(size))

    def _squares(self, rows: _ghost_norms.Rows, chunk_size: Callable[[int], int]):
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

    def _rows(self, tap: Tap, position: int, cotangents: Sequence[jax.Array]):
        operands = [read(self._env, a) for a in tap.op.inputs]
        return _ghost_norms.rows_of(
            tap, position, operands, cotangents, self._plan.size
        )

    def _slots(self, wanted: set[int]):
        """For each parameter: the tap operands made of it, and if norms are kept."""
        program = self._plan.program
        pure: dict[Value, bool] = dict.fromkeys(program.inputs, True)
        for op in self._plan.shared_ops:
            same = op.name in _ghost_norms.ISOMETRIES and (
                math.prod(shape_of(op.inputs[0])) == math.prod(op.outputs[0].shape)
            )
            made_of = self._plan.shared_operands(op).values()
            for v in op.outputs:
                pure[v] = same and all(pure[u] for u in made_of)
        return {
            i: [
                (tap, j, pure.get(value, False))
                for tap in self._taps
                for j, value in tap.operands.items()
                if i in self._plan.depends[value]
            ]
            for i in wanted
        }

    def _push(
        self, op: Op, tangents: dict[Value, Any], operands: dict[int, Value]
    ) -> list[Any]:
        """Tangents of the results of ``op``; None where there is none."""
        moving = {j: tangents[v] for j, v in operands.items() if v in tangents}
        if not moving:
            return [None] * len(op.outputs)
        fun, at = self._partial(op, moving)
        _, moved = jax.jvp(fun, at, list(moving.values()))
        return [
            t if _inexact(v) else None for v, t in zip(op.outputs, moved, strict=True)
        ]

    def _pull(
        self,
        op: Op,
        cotangents: dict[int, Any],
        operands: dict[int, Value],
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


def multiply_adds(op: Op) -> int:
    """Multiplications of an operation's matrix products and convolutions."""
    if op.name == "dot_general":
        (contract, _), _ = op.params["dimension_numbers"]
        shape = shape_of(op.inputs[0])
        return math.prod(op.outputs[0].shape) * math.prod(shape[k] for k in contract)
    if op.name == "conv_general_dilated":
        kernel = shape_of(op.inputs[1])
        features = kernel[op.params["dimension_numbers"].rhs_spec[0]]
        return math.prod(op.outputs[0].shape) * math.prod(kernel) // features
    times = op.params.get("length", 1) if op.name == "scan" else 1
    bodies = (Program(body) for body in _bodies(op))
    return times * sum(multiply_adds(inner) for body in bodies for inner in body.ops)


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
    """Sum of ``d * t`` over all entries that belong to one example."""
    axes = tuple(k for k in range(d.ndim) if k != axis)
    rows = jnp.sum(d.astype(dtype) * t.astype(dtype), axes)
    return jnp.sum(rows.reshape(size, -1), 1)


def _along(weights: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    """Weights of examples, to be multiplied with an array of that batch axis."""
    rows = jnp.repeat(weights, shape[axis] // weights.size)
    return rows.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def _accumulate(found: dict[Value, jax.Array], value: Value, x: jax.Array) -> None:
    found[value] = found[value] + x if value in found else x


def _tapped(tap: Tap) -> list[Value]:
    return [tap.op.outputs[j] for j in tap.results]


def _values(op: Op) -> list[Value]:
    return [a for a in op.inputs if isinstance(a, Value)]


def _inexact(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _bodies(op: Op) -> list[core.ClosedJaxpr]:
    """Functions inside an operation: loop bodies, branches."""
    found = []
    for param in jax.tree.leaves(
        list(op.params.values()),
        is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr)),
    ):
        if isinstance(param, core.ClosedJaxpr):
            found.append(param)
        elif isinstance(param, core.Jaxpr):
            found.append(core.ClosedJaxpr(param, ()))
    return found


def _holds(op: Op, name: str) -> bool:
    return op.name == name or any(
        _holds(inner, name) for body in _bodies(op) for inner in Program(body).ops
    )
