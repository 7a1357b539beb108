"""Functions inside random programs: control flow, transformations, nesting."""

from tests.jacobian.programs import rules
from tests.jacobian.programs.registry import draw, operation
from tests.jacobian.programs.source import Reject, Scope, Var

MAX_DEPTH = 3


def body(
    s: Scope, *arguments: Var, like: Var | None = None
) -> tuple[str, tuple[int, ...]]:
    """A function of ``arguments``; its result is like ``like`` if that is given."""
    if s.depth >= MAX_DEPTH:
        raise Reject
    inner = s.function(*arguments)
    for _ in range(s.any(1, 2, 3)):
        draw(inner)
    own = [v for v in inner.vars if v not in inner.arguments]
    if not own:
        raise Reject
    result = own[-1]
    if like is not None:
        found = [v for v in own if (v.shape, v.dtype) == (like.shape, like.dtype)]
        result = found[-1] if found else _fitted(inner, result, like)
    return s.define(inner, str(result)), result


def _fitted(inner: Scope, v: Var, like: Var) -> Var:
    code = f"{v}.real" if v.complex else str(v)
    if v.size == like.size:
        return inner.emit(
            f"jnp.tanh(jnp.reshape({code}, {like.shape})).astype('{like.dtype}')"
        )
    state = inner.arguments[0]
    if state.shape != like.shape:
        state = inner.emit(
            f"jnp.sin({inner.pick(lambda u: u.shape == like.shape and u.dtype == like.dtype)})"
        )
    return inner.emit(f"({state} * jnp.tanh({code}.sum())).astype('{like.dtype}')")


def _state(s: Scope) -> Var:
    return s.real(lambda v: v.ndim > 0 and v.size > 0)


def _row(s: Scope, v: Var, axis: int = 0) -> Var:
    """One entry along an axis, as a function mapped over it sees it."""
    if v.ndim <= axis:
        raise Reject
    return v._replace(shape=v.shape[:axis] + v.shape[axis + 1 :])


@operation(1.5)
def checkpoint(s):
    a, b = _state(s), s.real()
    f, _ = body(s, a, b)
    policy = s.any(
        "", "", ", policy=jax.checkpoint_policies.dots_saveable", ", prevent_cse=False"
    )
    s.emit(f"jax.checkpoint({f}{policy})({a}, {b})")


@operation(0.7)
def jitted(s):
    a, b = _state(s), s.real()
    f, _ = body(s, a, b)
    s.emit(f"jax.jit({f})({a}, {b})")


@operation(1.5)
def mapped(s):
    a, b = _state(s), _state(s)
    i = s.any(0, 0, 1)
    j = s.any(None, 0, 1) if s.chance(0.7) else None
    f, _ = body(s, _row(s, a, i), b if j is None else _row(s, b, j))
    inner = s.any(f, f, f"jax.checkpoint({f})", f"jax.jit({f})")
    s.emit(f"jax.vmap({inner}, ({i}, {j}), out_axes={s.any(0, 0, 1)})({a}, {b})")


@operation(0.8)
def on_devices(s):
    """A function on each of two devices."""
    a, b = _state(s), s.real()
    cuts = s.axis(a), s.axis(b) if b.ndim and s.chance(0.7) else None
    f, out = body(s, *(_half(v, k) for v, k in zip((a, b), cuts, strict=True)))
    code = f"{f}, {cuts}, {s.axis(out)}, {a}, {b}, check_vma={s.chance(0.5)}"
    s.emit(f"spread({code})")


def _half(v: Var, axis: int | None) -> Var:
    if axis is None:
        return v
    if v.shape[axis] % 2:
        raise Reject
    shape = (*v.shape[:axis], v.shape[axis] // 2, *v.shape[axis + 1 :])
    return v._replace(shape=shape)


@operation(0.8)
def lax_map(s):
    a = _state(s)
    f, _ = body(s, _row(s, a))
    s.emit(f"lax.map({f}, {a}{s.any('', '', ', batch_size=2')})")


@operation(1.2)
def scan_layers(s):
    """A scan whose inputs are parameters: one layer at every step."""
    a = _state(s)
    n = s.any(2, s.batch)
    w = s.parameter(n, *s.any((a.shape[-1], a.shape[-1]), (a.shape[-1],), a.shape))
    f, _ = body(s, a, _row(s, w), like=a)
    c = f"jax.checkpoint({f})" if s.chance(0.3) else f
    s.emit(
        f"lax.scan(lambda c, u: ({c}(c, u), None), {a}, {w}, reverse={s.chance(0.2)})[0]"
    )


@operation(2)
def scan_products(s):
    """Layers of products: parameters stacked and shared, checkpointed, nested."""
    h = s.real(lambda v: v.ndim > 1 and v.size > 0)
    d, n = h.shape[-1], s.any(2, 3, s.batch)
    own, same = s.parameter(n, d, d), s.parameter(d, d)
    layer = s.any(
        "jnp.tanh(c @ u)",
        f"jnp.tanh(c @ u + c @ {same})",
        f"c @ (u / (1 + jnp.abs(u).sum())) + {same}[0]",
        f"jnp.sin(c @ {same}.T) * jnp.exp(u[0])",
        f"jnp.tanh(c @ {same})",
        f"lax.cond(u.sum() > 0, lambda r: r @ u, lambda r: jnp.sin(r) @ {same}, c)",
        f"lax.scan(lambda r, _: (jnp.tanh(r @ u + r @ {same}), None), c, None, 2)[0]",
        f"lax.scan(lambda r, w: (jnp.tanh(r @ w), None), c, {own})[0] + c @ u",
        f"lax.map(lambda r: r @ u, c) @ {same}",
        "jax.checkpoint(lambda r: jnp.tanh(r @ u) @ u)(c)",
    )
    layer = f"jax.checkpoint(lambda c, u: {layer})(c, u)" if s.chance(0.4) else layer
    kept, used = s.any(("None", 0), ("None", 0), ("jnp.sin(c) @ u", 1))
    loop = f"lambda c, u: ({layer}, {kept})"
    s.emit(f"lax.scan({loop}, {h}, {own}, reverse={s.chance(0.2)})[{used}]")


@operation(1.2)
def scan_time(s):
    """A scan over some leading axis."""
    a, c = _state(s), _state(s)
    f, _ = body(s, c, _row(s, a), like=c)
    unroll = s.any(1, 1, 2)
    s.emit(
        f"lax.scan(lambda c, u: ({f}(c, u), {s.any('c', 'jnp.sin(c)', 'c.sum()')}), {c}, {a}, unroll={unroll})[{s.any(0, 1, 1)}]"
    )


@operation(0.8)
def fori(s):
    a = _state(s)
    f, _ = body(s, a, like=a)
    n = s.any(1, 2, 3)
    term = s.any("", "", f" + {a}[i % {a.shape[0]}]", " * (1 + i)")
    s.emit(f"lax.fori_loop(0, {n}, lambda i, c: {f}(c){term}, {a})")


@operation(0.4)
def while_loop(s):
    a = s.real(lambda v: v.size > 0)
    s.emit(
        s.any(
            f"{a} * lax.while_loop(lambda c: jnp.abs(c).sum() > 1, lambda c: 0.5 * c, lax.stop_gradient({a}))",
            f"{a} / lax.while_loop(lambda c: c < 3, lambda c: 2 * c, 1.0 + 0 * lax.stop_gradient({a}).sum())",
        )
    )


@operation(1)
def cond(s):
    a, b = _state(s), s.real()
    f, out = body(s, a, b)
    g, _ = body(s, a, b, like=out)
    test = s.any("True", "False", f"{b}.sum() > 0", f"{a}.ravel()[0] > 0")
    s.emit(f"lax.cond({test}, {f}, {g}, {a}, {b})")


@operation(0.6)
def switch(s):
    a = _state(s)
    f, out = body(s, a)
    g, _ = body(s, a, like=out)
    index = s.any("1", f"jnp.argmax(jnp.abs({a}).ravel()) % 2")
    if s.chance(0.5) and a.shape[0] == s.batch and out.shape == a.shape:
        f, out = body(s, _row(s, a))
        g, _ = body(s, _row(s, a), like=out)
        s.emit(
            f"jax.vmap(lambda i, r: lax.switch(i, [{f}, {g}], r))(jnp.arange({s.batch}) % 2, {a})"
        )
    else:
        s.emit(f"lax.switch({index}, [{f}, {g}], {a})")


@operation(0.5)
def inner_gradient(s):
    a = _state(s)
    f, out = body(s, a)
    if out.complex:
        raise Reject
    s.emit(f"jax.grad(lambda z: jnp.sum({f}(z)))({a})")


@operation(0.5)
def custom_function(s):
    """A function of the program under a rule that says what JAX would, or half of it."""
    a, b = _state(s), _state(s)
    f, out = body(s, a, b)
    if out.complex:
        raise Reject
    s.emit(
        f"rules.{s.any('wrapped_vjp', 'wrapped_jvp', 'wrapped_half')}({f}, {a}, {b})"
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
