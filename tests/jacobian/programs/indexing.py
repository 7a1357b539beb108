"""Gathers and scatters by counts, and by what looks like counts."""

import functools

import numpy as np

from tests.jacobian.programs.registry import operation
from tests.jacobian.programs.source import Reject, Scope, namespace


def count(s: Scope, n: int, size: int) -> str:
    """Code of ``n`` integers within an axis of ``size``.

    Derivatives of JAX's own gathers contradict each other outside.
    """
    code = _count(s, n)
    low, high = _bounds(code)
    return code if -size <= low and high < size else f"({code}) % {size}"


@functools.cache
def _bounds(code: str) -> tuple[int, int]:
    try:
        values = np.asarray(eval(code, namespace(False)))
    except (TypeError, ValueError) as error:
        raise Reject from error
    return int(values.min()), int(values.max())


def _count(s: Scope, n: int) -> str:
    """Code of ``n`` integers: counts, and what looks like them."""
    half = n // 2
    m = s.any(n, n, n - 1, 1, 2)
    return s.any(
        *[f"jnp.arange({n})"] * 4,
        f"lax.iota(jnp.int32, {n})",
        f"jnp.arange({n})[::-1]",
        f"np.random.default_rng({s.seed()}).permutation({n})",
        f"jnp.concatenate([jnp.arange({half}), jnp.arange({n - half})])",
        f"jnp.concatenate([jnp.arange({half}), jnp.arange({half}, {n})])",
        f"jnp.arange({n}).astype(bool).astype(int)",
        f"jnp.arange({n}).astype(jnp.uint8).astype(jnp.int32)",
        f"(jnp.arange({n}) * 100).astype(jnp.int8).astype(int) // 100",
        f"jnp.arange({n}).astype(jnp.float16).astype(int)",
        f"jnp.arange({n}) % {max(m, 1)}",
        f"jnp.arange({n}) // 2",
        f"jnp.arange({n}) + {s.any(0, 1)}",
        f"{n - 1} - jnp.arange({n})",
        f"-1 - jnp.arange({n})",
        f"jnp.minimum(jnp.arange({n}), {max(n - 2, 0)})",
        f"jnp.roll(jnp.arange({n}), {s.any(0, 1)})",
        f"jnp.repeat(jnp.arange({max(half, 1)}), 2)",
        f"jnp.tile(jnp.arange({max(half, 1)}), 2)",
        f"jnp.where(jnp.arange({n}) < 2, jnp.arange({n}), 0)",
        f"jnp.where(jnp.arange({n}) < 0, 0, jnp.arange({n}))",
        f"jnp.arange({n}).reshape({n}, 1)[:, 0]",
        f"jnp.arange({n}).reshape(2, -1).T.ravel()",
        f"jnp.arange({2 * n})[::2]",
        f"jnp.arange({2 * n})[:{n}]",
        f"jnp.arange(1, {n} + 1)",
        f"jnp.sort(jnp.arange({n}))",
        f"jnp.cumsum(jnp.ones({n}, int)) - 1",
        f"jnp.argsort(data({s.seed()}, {n}))",
        f"lax.optimization_barrier(jnp.arange({n}))",
        f"jnp.arange({n}) * jnp.arange({n})",
        f"lax.rev(jnp.arange({n}), (0,))",
        f"jnp.pad(jnp.arange({max(n - 1, 1)}), (0, 1))",
        f"jnp.zeros({n}, int)",
        f"jnp.array({[s.rng.randrange(n) for _ in range(n)]})",
    )


@operation(3)
def gather(s):
    a = s.pick(lambda v: v.ndim > 0 and v.size > 0)
    n = s.any(a.shape[0], a.shape[0], s.batch)
    width = a.shape[1] if a.ndim > 1 else 1
    i, j, free = count(s, n, a.shape[0]), count(s, n, width), _count(s, n)
    k, m = s.axis(a), s.dim()
    mode = s.any("clip", "wrap", "fill")
    s.emit(
        s.any(
            *[f"{a}[{i}]"] * 3,
            f"{a}[:, {j}]",
            f"{a}[{i}, {j}]",
            f"{a}[{i}, :, ({j}) % {a}.shape[2]]",
            f"{a}[({i})[:, None], ({count(s, m, width)})[None]]",
            f"{a}[{i}, {j}, ..., None]",
            f"{a}[({i})[:, None], {s.rng.randrange(2)}:]",
            f"jnp.take({a}, {i}, axis=0)",
            f"jnp.take({a}, {free}, axis={k}, mode='{mode}')",
            f"{a}.at[{free}].get(mode='{mode}')",
            f"{a}.at[{i}, {j}].get(mode='fill', fill_value=0.0)",
            f"jnp.take_along_axis({a}, ({i}).reshape(-1, *[1] * ({a}.ndim - 1)), axis=0)",
            f"jnp.take_along_axis({a}, ({i})[:, None] % {a}.shape[1], axis=1)",
            f"jax.vmap(lambda r, i: r[i])({a}, ({i}) % {a}.shape[-1])",
            f"jax.vmap(lambda r, i: lax.dynamic_index_in_dim(r, i, keepdims=False))({a}, ({i}) % {a}.shape[1])",
            f"jax.vmap(lambda r, i: lax.dynamic_slice_in_dim(r, i, 1))({a}, {i})",
            f"jax.vmap(lambda i: {a}[i])({i})",
            f"jax.vmap(lambda i: lax.dynamic_slice_in_dim({a}, i, 2))({i})",
            f"jax.vmap(lambda i: {a}[:, i], out_axes=-1)({j})",
            f"{a}[jnp.stack([{i}, {i}], 1)]",
            f"{a}[tuple(jnp.meshgrid({i}, {count(s, m, width)}, indexing='ij'))]",
            f"jax.nn.one_hot({i}, {a}.shape[0], dtype={a}.dtype) @ {a}",
        )
    )


@operation(1.2)
def scatter(s):
    a = s.real(lambda v: v.ndim > 0 and v.size > 0)
    b = s.real(lambda v: v.ndim > 0)
    n = s.any(a.shape[0], a.shape[0], s.batch)
    i, j = _count(s, n), _count(s, n)
    how = s.any("add", "set", "add", "max", "multiply")
    s.emit(
        s.any(
            f"{b}.at[{i}].{how}({a})",
            f"jnp.zeros({(s.dim(), *a.shape[1:])}).at[{i}].{how}({a})",
            f"jnp.zeros_like({a}).at[{i}].add({a})",
            f"{b}.at[{i}, {j}].{how}({a})",
            f"{b}.at[:, {i}].add({a})",
            f"{b}.at[{i}].add({a}, mode='{s.any('drop', 'clip')}', unique_indices=False)",
            f"jax.ops.segment_sum({a}, {i}, num_segments={s.batch})",
            f"jax.vmap(lambda r, i, u: r.at[i].add(u))({b}, {i}, {a})",
            f"jnp.zeros({(s.batch, *a.shape)}).at[{_count(s, s.batch)}].set({a})",
        )
    )
