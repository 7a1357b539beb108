"""Products of single operations with directions, and with weights of examples."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ltjax.jacobian._jaxpr import Op, is_inexact
from ltjax.jacobian._parts import LoopTap, Tap
from ltjax.jacobian._rules import Interleaved


def push(
    op: Op, operands: Sequence[Any], tangents: Mapping[int, jax.Array]
) -> list[jax.Array | None]:
    """Tangents of the results of ``op``; None where there is none."""
    if not tangents:
        return [None] * len(op.outputs)
    fun, at = _partial(op, operands, tangents)
    _, moved = jax.jvp(fun, at, list(tangents.values()))
    return [
        t if is_inexact(v) else None for v, t in zip(op.outputs, moved, strict=True)
    ]


def pull(
    op: Op,
    operands: Sequence[Any],
    cotangents: Mapping[int, jax.Array],
    positions: Iterable[int],
) -> dict[int, jax.Array]:
    """Cotangents of some operands of ``op``, from those of some results."""
    positions = list(positions)
    fun, at = _partial(op, operands, positions)

    def some(*xs):
        full = fun(*xs)
        return [full[j] for j in cotangents]

    _, pullback = jax.vjp(some, *at)
    return dict(zip(positions, pullback(list(cotangents.values())), strict=True))


def dots(
    tap: Tap,
    operands: Sequence[Any],
    tangents: Mapping[int, jax.Array],
    cotangents: Sequence[jax.Array],
    size: int,
    dtype: Any,
) -> jax.Array:
    """``<row, direction>`` of every example, ``[B]``, for some shared operands.

    Args:
      tap: the operation.
      operands: values of all operands.
      tangents: directions of shared operands, of one at least.
      cotangents: of the results that are used.
      size: number of examples.
      dtype: of the sums.
    """
    if isinstance(tap, LoopTap) and tap.layered:
        step = tap.step

        def one(xs):
            inner, moving, ds = xs
            return dots(step, inner, moving, ds, size, dtype)

        return jnp.sum(each_step(one, tap, operands, tangents, list(cotangents)), 0)
    moved = push(tap.op, operands, tangents)
    parts = [
        _row_sums(d, moved[j], axis, size, dtype)
        for (j, axis), d in zip(tap.results.items(), cotangents, strict=True)
    ]
    return functools.reduce(operator.add, parts)


def gradients(
    tap: Tap,
    operands: Sequence[Any],
    positions: Sequence[int],
    cotangents: Sequence[jax.Array],
    weights: jax.Array | None,
) -> dict[int, jax.Array]:
    """``sum_i weights[i] * row[i]`` for some shared operands, by position.

    Args:
      tap: the operation.
      operands: values of all operands.
      positions: which of them.
      cotangents: of the results that are used.
      weights: of the examples, ``[B]``, if the cotangents do not hold them already.
    """
    if isinstance(tap, LoopTap) and tap.layered:
        step = tap.step

        def one(xs):
            inner, ds = xs
            return gradients(step, inner, positions, ds, weights)

        return each_step(one, tap, operands, list(cotangents))
    weighted = {
        j: d if weights is None else d * along(weights.astype(d.dtype), d.shape, axis)
        for (j, axis), d in zip(tap.results.items(), cotangents, strict=True)
    }
    return pull(tap.op, operands, weighted, positions)


def each_step(
    fun: Callable[[Any], Any], tap: LoopTap, operands: Sequence[Any], *rest: Any
) -> Any:
    """``fun((operands, *rest))`` in every iteration of the loop around a tap."""

    def one(xs):
        some, *rest = xs
        return fun((tap.op.filled(operands, some), *rest))

    return lax.map(one, (tap.op.slices(operands), *rest))


def along(weights: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    """Weights of examples, to be multiplied with an array of that batch axis."""
    own = shape[axis] // weights.size
    spread = jnp.tile if isinstance(axis, Interleaved) else jnp.repeat
    rows = weights if own == 1 else spread(weights, own)
    return rows.reshape([-1 if k == int(axis) else 1 for k in range(len(shape))])


def _partial(op: Op, operands: Sequence[Any], positions: Iterable[int]):
    """``op`` as a function of some operands, and where it was evaluated."""

    def fun(*some):
        full = list(operands)
        for j, x in zip(positions, some, strict=True):
            full[j] = x
        return list(op.bind(*full))

    return fun, [operands[j] for j in positions]


def _row_sums(d, t, axis, size, dtype):
    """Sum of ``d * t`` over all entries that belong to one example.

    For complex values this is the pairing of JAX: real, and without a conjugate.
    """
    if jnp.iscomplexobj(d):
        product = (d * t).real.astype(dtype)
    else:
        product = d.astype(dtype) * t.astype(dtype)
    rows = jnp.sum(product, tuple(k for k in range(d.ndim) if k != int(axis)))
    if rows.size == size:
        return rows
    if isinstance(axis, Interleaved):
        return jnp.sum(rows.reshape(-1, size), 0)
    return jnp.sum(rows.reshape(size, -1), 1)
