"""Array operations for random programs: each adds a line or two to a `Scope`."""

import functools
import itertools
import string
from collections.abc import Callable

import numpy as np

from tests.jacobian.programs import rules
from tests.jacobian.programs.source import Reject, Scope, Var, namespace

OPERATIONS: dict[str, tuple[float, Callable[[Scope], object]]] = {}


def operation(weight: float = 1.0):
    def register(fun):
        OPERATIONS[fun.__name__] = (weight, fun)
        return fun

    return register


def draw(s: Scope) -> None:
    """Adds one operation, whichever can be added."""
    names = list(OPERATIONS)
    weights = [OPERATIONS[n][0] for n in names]
    for name in s.rng.choices(names, weights, k=50):
        try:
            with s.attempt():
                OPERATIONS[name][1](s)
        except Reject:
            continue
        return
    raise Reject


UNARY = (
    *("jnp.sin({})", "jnp.tanh({})", "jnp.square({})", "jnp.exp(jnp.tanh({}))"),
    *("jax.nn.relu({})", "jax.nn.softplus({})", "jax.nn.gelu({})", "jax.nn.silu({})"),
    *("jnp.abs({})", "jax.nn.sigmoid({})", "lax.rsqrt(1 + {0} * {0})", "{} ** 3"),
    *("jnp.log1p(jnp.abs({}))", "lax.erf({})", "jnp.sinc({})", "-{}", "2.0 * {}"),
    *("jnp.floor({0}) + {0}", "jnp.clip({}, -0.5, 0.7)", "lax.stop_gradient({})"),
    *("jnp.where({0} > 0, {0}, 0.1 * {0})", "{0} - lax.stop_gradient({0})"),
    *(
        "{0}.astype(jnp.complex128).real * {0}",
        "jnp.nan_to_num({})",
        "jnp.sign({0}) * {0}",
    ),
    *(
        "jnp.exp(1j * {}).imag",
        "jax.nn.leaky_relu({})",
        "jnp.arctan({})",
        "jax.nn.elu({})",
    ),
    *(
        "lax.optimization_barrier({})",
        "jax.lax.reduce_precision({}, 11, 52)",
        "jnp.cbrt(2 + jnp.tanh({}))",
    ),
)
BINARY = (
    *("{} + {}", "{} * {}", "{} - {}", "{0} / (1 + {1} * {1})", "jnp.maximum({}, {})"),
    *("jnp.minimum({}, {})", "jnp.where({0} > {1}, {0}, 2 * {1})", "{} * jnp.tanh({})"),
    *("jnp.arctan2({}, 2 + jnp.tanh({}))", "jnp.clip({0}, {1} - 1, {1} + 1)"),
    *("jnp.logaddexp({}, {})", "jnp.hypot({}, 1 + jnp.abs({}))", "lax.complex({}, {})"),
    *(
        "jnp.where({1} > 0, {0}, lax.stop_gradient({1}))",
        "lax.clamp({1} - 1, {0}, {1} + 1)",
    ),
)


@operation(3)
def unary(s):
    s.emit(s.any(*UNARY).format(s.real()))


@operation(4)
def binary(s):
    a = s.real()
    b = s.real(lambda v: v is not a and _fits(a.shape, v.shape))
    s.emit(s.any(*BINARY).format(*s.rng.sample([a, b], 2)))


@operation(1)
def self_binary(s):
    a = s.real()
    s.emit(
        s.any(
            "{0} * {0}", "{0} + {0}[::-1]", "{0} * {0}.mean()", "jnp.outer({0}, {0})"
        ).format(a)
    )


@operation(2)
def affine(s):
    """A parameter broadcast against a value."""
    a = s.real()
    shape = tuple(
        1 if s.chance(0.3) else d for d in a.shape[s.rng.randrange(a.ndim + 1) :]
    )
    s.emit(s.any("{} + {}", "{} * {}", "{} * (1 + {})").format(a, s.parameter(*shape)))


@operation(1.5)
def reduce(s):
    a = s.real()
    axis = s.axis(a)
    name = s.any(
        *(
            "sum",
            "mean",
            "max",
            "min",
            "prod",
            "var",
            "std",
            "ptp",
            "median",
            "linalg.norm",
        ),
        *("cumsum", "cumprod", "diff", "nanmean", "average"),
    )
    if name not in ("cumsum", "cumprod", "diff") and s.chance(0.4):
        s.emit(f"jnp.{name}({a}, axis={axis}, keepdims=True)")
    else:
        s.emit(f"jnp.{name}({a}, axis={axis})")


@operation(1)
def normalise(s):
    a = s.real(lambda v: v.ndim > 0)
    k = s.any(s.axis(a), tuple(sorted(s.order(a.ndim)[: s.any(1, 2)])))
    code = s.any(
        "jax.nn.softmax({a}, {k})",
        "jax.nn.log_softmax({a}, {k})",
        "jax.nn.standardize({a}, {k}, epsilon=0.1)",
        "{a} - {a}.mean({k}, keepdims=True)",
        "{a} / (1 + jnp.square({a}).sum({k}, keepdims=True))",
        "{a} - lax.stop_gradient({a}.mean({k}, keepdims=True))",
        "{a} - jax.nn.logsumexp({a}, {k}, keepdims=True)",
        "({a} - {a}.mean({k}, keepdims=True)) * lax.rsqrt({a}.var({k}, keepdims=True) + 0.1)",
    )
    s.emit(code.format(a=a, k=k))


@operation(1)
def cumulative(s):
    a = s.real()
    name = s.any("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
    s.emit(f"lax.{name}({a}, axis={s.axis(a)}, reverse={s.chance(0.4)})")


@operation(0.3)
def associative(s):
    a = s.real()
    s.emit(
        f"lax.associative_scan(jnp.{s.any('add', 'multiply')}, {a}, axis={s.axis(a)})"
    )


@operation(1)
def sort(s):
    a = s.real(lambda v: v.ndim > 0)
    k = s.axis(a)
    code = s.any(
        *("jnp.sort({a}, axis={k})", "-jnp.sort(-{a}, axis={k})"),
        "jnp.take_along_axis({a}, jnp.argsort({a}, axis={k}), axis={k})",
        "lax.top_k({a}, {n})[0]",
        "lax.sort(({a}, jnp.sin({a})), dimension={k}, num_keys=1)[1]",
        "{a}[jnp.argsort({a}.reshape({a}.shape[0], -1)[:, 0])]",
        "jnp.take_along_axis({a}, jnp.argmax({a}, axis={k}, keepdims=True), axis={k})",
        "jnp.percentile({a}, 30.0, axis={k})",
        "jnp.take_along_axis({a}, lax.top_k({a}, {n})[1], axis=-1)",
    )
    s.emit(code.format(a=a, k=k, n=s.rng.randint(1, max(1, a.shape[-1]))))


@operation(2.5)
def reshape(s):
    a = s.pick()
    s.emit(f"jnp.reshape({a}, {factors(s, a.size)})")


@operation(2.5)
def transpose(s):
    a = s.pick(lambda v: v.ndim > 1)
    s.emit(
        s.any(
            f"jnp.transpose({a}, {s.order(a.ndim)})",
            f"{a}.T",
            f"jnp.swapaxes({a}, {s.axis(a)}, {s.axis(a)})",
        )
    )


@operation(1)
def merge(s):
    """Merges two neighbouring axes, perhaps after exchanging them, or splits one."""
    a = s.pick(lambda v: v.ndim > 1)
    k = s.rng.randrange(a.ndim - 1)
    order = list(range(a.ndim))
    if s.chance(0.5):
        order[k], order[k + 1] = order[k + 1], order[k]
    shape = (*a.shape[:k], a.shape[k] * a.shape[k + 1], *a.shape[k + 2 :])
    merged = s.emit(f"jnp.transpose({a}, {tuple(order)}).reshape({shape})")
    if s.chance(0.6) and merged.shape[-1] > 0:
        w = s.parameter(merged.shape[-1], s.dim())
        out = s.emit(f"{merged} @ {w}") if not a.complex else merged
        new = [a.shape[j] for j in order]
        new[-1] = out.shape[-1] if k < a.ndim - 2 else -1
        if k < a.ndim - 2:
            s.emit(f"{out}.reshape({tuple(new)}).transpose({tuple(order)})")


@operation(1)
def rank(s):
    a = s.pick()
    k = s.rng.randrange(a.ndim + 1)
    n = s.dim()
    code = s.any(
        *(
            "jnp.expand_dims({a}, {k})",
            "jnp.squeeze({a})",
            "jnp.broadcast_to({a}, ({n}, *{a}.shape))",
        ),
        *(
            "jnp.repeat({a}, 2, axis={k})",
            "jnp.tile({a}, (2,) + (1,) * ({a}.ndim - 1))",
            "jnp.ravel({a})",
        ),
        *(
            "lax.broadcast_in_dim({a}, (*{a}.shape, {n}), tuple(range({a}.ndim)))",
            "jnp.tile({a}, 2)",
        ),
        *(
            "jnp.moveaxis({a}, 0, -1)",
            "jnp.atleast_2d({a})",
            "jnp.diagonal({a})",
            "jnp.trace({a})",
            "jnp.tril({a})",
        ),
    )
    s.emit(code.format(a=a, k=k, n=n))


@operation(2)
def join(s):
    a = s.real(lambda v: v.ndim > 0)
    k = s.axis(a)
    same = [a, *(v for v in s.visible() if v.ndim == a.ndim and not v.complex)]
    parts = [str(a), *(str(s.rng.choice(same)) for _ in range(s.any(1, 1, 2)))]
    s.rng.shuffle(parts)
    code = s.any(
        "jnp.concatenate([{}], {})",
        "jnp.stack([{}], {})",
        "jnp.concatenate([{}, 0 * {}], {})",
    )
    inside = ", ".join(parts)
    if code.count("{}") == 3:
        s.emit(code.format(inside, a, k))
    else:
        s.emit(code.format(inside, k))


@operation(1.5)
def part(s):
    a = s.pick(lambda v: v.ndim > 0 and v.size > 0)
    k = s.axis(a)
    n = a.shape[k]
    i, step = s.rng.randrange(n), s.any(1, 1, 2, -1)
    before = ":, " * k
    code = s.any(
        *(
            f"{a}[{before}{i}]",
            f"{a}[{before}{i}:]",
            f"{a}[{before}:{i}:{step}]",
            f"{a}[{before}::{step}]",
        ),
        *(
            f"jnp.split({a}, {s.any(2, n)}, axis={k})[-1]",
            f"jnp.unstack({a}, axis={k})[{i}]",
        ),
        *(
            f"lax.dynamic_index_in_dim({a}, {i}, {k}, keepdims={s.chance(0.5)})",
            f"lax.slice_in_dim({a}, {i}, {n}, axis={k})",
        ),
        f"lax.dynamic_slice_in_dim({a}, {i}, {n - i}, axis={k})",
        f"lax.dynamic_slice_in_dim({a}, jnp.argmax(jnp.abs({a}.ravel())) % {n}, {max(1, n - 1)}, axis={k})",
        f"lax.dynamic_slice_in_dim({a}, 0, {n}, axis={k})",
    )
    s.emit(code)


@operation(1)
def parts(s):
    """All parts of a value, used again."""
    a = s.pick(lambda v: v.ndim > 0 and v.size > 1)
    k = s.axis(a)
    if not 2 <= a.shape[k] <= 4:
        raise Reject
    how = s.any(
        f"jnp.split({a}, {a.shape[k]}, axis={k})", f"jnp.unstack({a}, axis={k})"
    )
    out = s.emit_all(f"tuple({how})")
    s.emit(" + ".join(f"{i + 1} * {v}" for i, v in enumerate(out)))


@operation(1)
def move(s):
    a = s.real(lambda v: v.ndim > 0)
    k = s.axis(a)
    widths = tuple((s.any(0, 0, 1), s.any(0, 0, 1)) for _ in a.shape)
    lax_widths = tuple(
        (s.any(0, 0, 0, 1, -1), s.any(0, 0, 0, 1, -1), s.any(0, 0, 0, 1))
        for _ in a.shape
    )
    mode = s.any("constant", "constant", "wrap", "edge", "reflect")
    s.emit(
        s.any(
            f"jnp.roll({a}, {s.any(0, 1, 1, -1, 2)}, {k})",
            f"jnp.flip({a}, {k})",
            f"jnp.pad({a}, {widths}, mode={mode!r})",
            f"lax.pad({a}, {a}.dtype.type({s.any(0, 1)}), {lax_widths})",
            f"jnp.rot90({a})",
        )
    )


@operation(0.7)
def update(s):
    a = s.real(lambda v: v.ndim > 0 and v.size > 0)
    b = s.real(lambda v: v.ndim in (a.ndim, a.ndim - 1))
    k, i = s.axis(a), s.rng.randrange(3)
    s.emit(
        s.any(
            f"lax.dynamic_update_slice_in_dim({a}, {b}, {i}, {k})",
            f"lax.dynamic_update_index_in_dim({a}, {b}, {i}, {k})",
            f"{a}.at[{i}].set({b})",
            f"{a}.at[:, {i}].add({b})",
            f"{a}.at[{i}:].multiply(2.0)",
            f"{a}.at[..., {i}].set({b})",
        )
    )


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


@operation(2)
def einsum(s):
    a = s.pick()
    b = s.pick(lambda v: v.complex == a.complex)
    operands = [a, b] if s.chance(0.85) else [a]
    letters = _letters(s, operands)
    used = sorted({c for word in letters for c in word})
    kept = [c for c in used if s.chance(0.55)]
    s.rng.shuffle(kept)
    names = ", ".join(map(str, operands))
    s.emit(f"jnp.einsum('{','.join(letters)}->{''.join(kept)}', {names})")


@operation(3)
def dense(s):
    """A matrix product with a parameter on any axis, or between values."""
    a = s.real(lambda v: v.ndim > 0)
    k = s.axis(a)
    w = (
        s.parameter(a.shape[k], s.dim())
        if s.chance(0.7)
        else s.parameter(s.dim(), a.shape[k])
    )
    j = w.shape.index(a.shape[k])
    s.emit(
        s.any(
            f"jnp.tensordot({a}, {w}, ({k}, {j}))",
            f"jnp.tensordot({w}, {a}, ({j}, {k}))",
            f"jnp.moveaxis({a}, {k}, -1) @ {w if j == 0 else f'{w}.T'}",
            f"jnp.dot({a}, {w})",
            f"{w} @ {a}",
        )
    )


@operation(1.5)
def dot_general(s):
    a, b = s.real(), s.real()
    pairs = [
        (i, j) for i in range(a.ndim) for j in range(b.ndim) if a.shape[i] == b.shape[j]
    ]
    s.rng.shuffle(pairs)
    contract, batch = [], []
    for i, j in pairs[:4]:
        taken = contract + batch
        if all(i != x and j != y for x, y in taken):
            s.any(contract, batch).append((i, j))
    sides = [
        tuple(tuple(p[side] for p in group) for side in (0, 1))
        for group in (contract, batch)
    ]
    s.emit(f"lax.dot_general({a}, {b}, ({sides[0]}, {sides[1]}))")


@operation(2)
def convolution(s):
    a = s.real(lambda v: v.ndim in (3, 4) and v.size > 0)
    spatial = a.ndim - 2
    lhs, rhs, out = (
        "".join(s.rng.sample(w + "HW"[:spatial], a.ndim)) for w in ("NC", "OI", "NC")
    )
    channels = a.shape[lhs.index("C")]
    groups = s.any(1, 1, channels, *(g for g in (2, 3) if channels % g == 0))
    sizes = {
        "O": groups * s.any(1, 2),
        "I": channels // groups,
        "H": s.any(1, 2, 3),
        "W": s.any(1, 2),
    }
    extra = ""
    if groups == 1 and s.chance(0.15):
        extra += ", batch_group_count=" + str(a.shape[lhs.index("N")])
        sizes["O"] = a.shape[lhs.index("N")]
    if s.chance(0.25):
        extra += f", rhs_dilation={(2,) * spatial}"
    if s.chance(0.2):
        extra += f", lhs_dilation={(2,) * spatial}"
    shape = tuple(sizes[c] for c in rhs)
    kernels = [v for v in s.visible() if v.shape == shape and not v.complex]
    w = s.rng.choice(kernels) if kernels and s.chance(0.3) else s.parameter(*shape)
    padding = s.any("'SAME'", "'VALID'", str([(1, 1), (0, 1)][:spatial]))
    s.emit(
        f"lax.conv_general_dilated({a}, {w}, {(s.any(1, 1, 2),) * spatial}, {padding}, "
        f"dimension_numbers={(lhs, rhs, out)}, feature_group_count={groups}{extra})"
    )


@operation(0.8)
def own_kernels(s):
    """A convolution of every example with a kernel of its own."""
    a = s.real(lambda v: v.ndim == 3 and v.size > 0)
    n, _, c = a.shape
    shape = (2, c, s.any(1, 2))
    if s.chance(0.5):
        k, axes = s.parameter(n, *shape), (0, 0)
    else:
        m = s.constant(n, 2, c, 1)
        k, axes = s.emit(f"{m} * {s.parameter(*shape)}"), (0, 0)
    numbers = ("NWC", "WIO", "NWC")
    s.emit(
        f"jax.vmap(lambda i, k: lax.conv_general_dilated(i[None], k, (1,), 'SAME', "
        f"dimension_numbers={numbers})[0], {axes})({a}, {k})"
    )


@operation(0.7)
def convolve(s):
    a = s.real(lambda v: v.ndim in (1, 2) and v.size > 0)
    k = s.parameter(s.any(1, 2, 3))
    mode = s.any("same", "full", "valid")
    if a.ndim == 1:
        s.emit(f"jnp.convolve({a}, {k}, mode='{mode}')")
    else:
        s.emit(
            f"jax.vmap(lambda r: jnp.convolve(r, {k}, mode='{mode}'), {s.any(0, 1)})({a})"
        )


@operation(0.8)
def window(s):
    a = s.real(lambda v: v.ndim > 0 and v.size > 0)
    shape = tuple(s.any(1, 1, 2) for _ in a.shape)
    strides = tuple(s.any(1, 1, 2) for _ in a.shape)
    start, how = s.any(("0.0", "add"), ("-np.inf", "max"), ("np.inf", "min"))
    extra = (
        f", window_dilation={tuple(s.any(1, 2) for _ in a.shape)}"
        if s.chance(0.2)
        else ""
    )
    s.emit(
        f"lax.reduce_window({a}, {a}.dtype.type({start}), lax.{how}, {shape}, {strides}, '{s.any('SAME', 'VALID')}'{extra})"
    )


@operation(1)
def fourier(s):
    a = s.pick(lambda v: v.ndim > 0 and v.size > 0)
    k = s.axis(a)
    s.emit(
        s.any(
            f"jnp.fft.fft({a}, axis={k})",
            f"jnp.fft.ifft({a}, axis={k})",
            f"jnp.fft.rfft({a}, axis={k})",
            f"jnp.fft.irfft({a}, axis={k}, n={s.any(3, 4, 5)})",
            f"jnp.fft.fft2({a})",
            f"jnp.fft.fftshift({a})",
        )
    )


@operation(0.8)
def filter(s):
    a = s.real(lambda v: v.ndim > 0 and v.shape[-1] > 1)
    n = a.shape[-1]
    if s.chance(0.5):
        k = f"jnp.fft.rfft({s.parameter(n)})"
    else:
        k = str(s.parameter(n // 2 + 1))
    s.emit(f"jnp.fft.irfft(jnp.fft.rfft({a}) * {k}, n={n})")


@operation(1.2)
def to_complex(s):
    a = s.real()
    s.emit(
        s.any(
            f"lax.complex({a}, {s.parameter(*a.shape)})",
            f"{a} + 1j * {a}[::-1]" if a.ndim else f"1j * {a}",
            f"jnp.exp(1j * {a})",
            f"{a}.astype(complex)",
            f"lax.complex({a}, jnp.sin({a}))",
            f"{a} * (1 + 2j)",
        )
    )


@operation(1.5)
def of_complex(s):
    c = s.pick(lambda v: v.complex)
    b = s.pick(lambda v: _fits(v.shape, c.shape))
    s.emit(
        s.any(
            *(
                f"jnp.abs({c}) ** 2",
                f"jnp.real({c})",
                f"jnp.imag({c})",
                f"jnp.angle(3 + 0.1 * {c})",
            ),
            *(
                f"{c} * {b}",
                f"{c} + {b}",
                f"{c} * jnp.conj({c})",
                f"jnp.tanh(0.1 * {c})",
            ),
            *(
                f"{c} * {c}",
                f"jnp.sum({c}, 0)",
                f"({c} * jnp.conj({b})).real",
                f"{c} @ {b}",
            ),
            f"jnp.concatenate([{c}.real, {c}.imag], -1)",
            f"jnp.real({c} * {s.parameter(*c.shape[-1:])})",
        )
    )


@operation(1)
def slices(s):
    """Slices of one parameter, layer by layer."""
    a = s.real(lambda v: 0 < v.ndim <= 3)
    n, d = s.any(2, 3), a.shape[-1]
    w = s.parameter(n, d, d)
    read = s.any(
        "{w}[{i}]",
        "jnp.unstack({w})[{i}]",
        "jnp.split({w}, {n})[{i}][0]",
        "lax.dynamic_index_in_dim({w}, {i}, keepdims=False)",
    )
    for i in range(n):
        a = s.emit(f"jnp.tanh({a} @ {read.format(w=w, i=i, n=n)})")


@operation(0.6)
def heads(s):
    """Queries, keys and values out of one weight; attention over some axis."""
    a = s.real(lambda v: v.ndim in (2, 3))
    d = a.shape[-1]
    w = s.parameter(d, 3 * 2)
    q, k, v = s.emit_all(f"tuple(jnp.split({a} @ {w}, 3, axis=-1))")
    scores = s.emit(f"jax.nn.softmax(jnp.einsum('...qd,...kd->...qk', {q}, {k}), -1)")
    s.emit(f"{scores} @ {v}")


@operation(0.5)
def linear_algebra(s):
    a = s.real(lambda v: v.ndim >= 2 and v.shape[-1] == v.shape[-2] <= 4 and v.size > 0)
    n = a.shape[-1]
    b = s.real(lambda v: v.ndim >= 2 and v.shape[-2] == n)
    m = f"(3 * jnp.eye({n}) + jnp.tanh({a}))"
    s.emit(
        s.any(
            *(
                f"jnp.linalg.inv({m})",
                f"jnp.linalg.solve({m}, {b})",
                f"jnp.linalg.slogdet({m})[1]",
            ),
            f"jax.scipy.linalg.solve_triangular({m}, {b}, lower=True)",
            f"jnp.linalg.cholesky({m} @ jnp.swapaxes({m}, -1, -2))",
            f"jnp.linalg.det({m})",
        )
    )


@operation(0.8)
def dropout(s):
    a = s.real()
    key = f"jax.random.key({s.seed()})"
    s.emit(
        s.any(
            f"jax.random.bernoulli({key}, 0.7, {a.shape}) * {a}",
            f"{a} + 0.1 * jax.random.normal({key}, {a.shape}, {a}.dtype)",
            f"jax.vmap(lambda k, r: jax.random.bernoulli(k, 0.7, r.shape) * r)(jax.random.split({key}, {a.shape[0] if a.ndim else 1}), {a})",
        )
    )


@operation(0.5)
def empty(s):
    """Arrays of size zero."""
    a = s.real(lambda v: v.ndim > 0)
    w = s.parameter(0, s.dim()) if s.chance(0.6) else s.parameter(s.dim(), 0)
    s.emit(
        s.any(
            f"{a}[..., :0] @ {w} + {s.parameter(w.shape[1])}",
            f"jnp.concatenate([{a}, {a}[..., :0]], -1)",
            f"{a}[:0].sum(0) + {a}",
            f"{a} + {w}.sum()",
            f"jnp.einsum('...,ij->...j', {a}, {w})",
        )
    )


@operation(2)
def rule_of_one(s):
    a = s.real(lambda v: v.ndim > 0)
    s.emit(f"rules.{s.any(*rules.ONE)}({a})")


@operation(2)
def rule_of_two(s):
    a = s.real(lambda v: v.ndim > 0)
    b = s.pick(lambda v: v.shape == a.shape and v.dtype == a.dtype)
    s.emit(f"rules.{s.any(*rules.TWO)}({a}, {b})")


@operation(0.7)
def rule_of_unused(s):
    s.emit(f"rules.{s.any(*rules.UNUSED)}({s.real()}, {s.real()})")


def factors(s: Scope, size: int) -> tuple[int, ...]:
    """A shape of ``size`` entries."""
    shape = []
    while size > 1 and len(shape) < 4:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        if size % s.batch == 0 and s.batch > 1:
            divisors += [s.batch] * 3
        shape.append(s.rng.choice(divisors))
        size //= shape[-1]
    return (*shape, size) if size != 1 or s.chance(0.1) else tuple(shape)


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether shapes broadcast."""
    pairs = itertools.zip_longest(a[::-1], b[::-1], fillvalue=1)
    return all(x == y or 1 in (x, y) for x, y in pairs)


def _letters(s: Scope, operands: list[Var]) -> list[str]:
    """Subscripts: axes of one size share a letter, or not."""
    free = iter(string.ascii_lowercase)
    known: dict[int, list[str]] = {}
    words = []
    for v in operands:
        word = ""
        for d in v.shape:
            old = [c for c in known.get(d, []) if c not in word or s.chance(0.1)]
            letter = s.rng.choice(old) if old and s.chance(0.7) else next(free)
            known.setdefault(d, []).append(letter)
            word += letter
        words.append(word)
    return words
