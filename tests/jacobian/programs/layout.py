"""Operations that move values: shapes, axes, parts, order."""

from tests.jacobian.programs.registry import operation
from tests.jacobian.programs.source import Reject, Scope


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
def turns(s):
    """Batches one after the other on an axis, taken apart again or made an axis."""
    a = s.real(lambda v: s.batch in v.shape)
    k = s.any(*(i for i, n in enumerate(a.shape) if n == s.batch))
    same = [a, *(v for v in s.visible() if v.shape == a.shape and not v.complex)]
    others = [
        s.any("{}", "jnp.sin({})").format(s.any(*same)) for _ in range(s.any(1, 2))
    ]
    whole = s.emit(f"jnp.concatenate([{', '.join([str(a), *others])}], {k})")
    if s.chance(0.7) and k < a.ndim - 1:
        w = s.parameter(a.shape[-1], a.shape[-1])
        whole = s.emit(f"jnp.tanh({whole} @ {w})")
    before, n = ":, " * k, s.batch
    shape = (*a.shape[:k], len(others) + 1, *a.shape[k:])
    s.emit(
        s.any(
            f"{whole}[{before}:{n}] * {whole}[{before}{n}:{2 * n}]",
            f"{whole}[{before}{n}:]",
            f"jnp.split({whole}, {len(others) + 1}, {k})[1]",
            f"jnp.split({whole}, [{n}], {k})[1]",
            f"{whole}.reshape({shape})",
            f"jnp.sin({whole})",
            f"{whole}[{before}1:{n + 1}]",
        )
    )


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
