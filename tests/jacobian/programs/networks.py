"""Random networks whose batch statistics are known: all three definitions have answers.

Values have a leading batch axis, and programs are written in `words`. The same source
read with other meanings of the words gives the references:

- ``"frozen"``: the rows with ``stat = stop_gradient``;
- ``"attribution"``: the gradient of the summed losses with respect to a copy of the
  parameters for every example, in whose layers it alone is used.
"""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.jacobian.programs.arithmetic import UNARY
from tests.jacobian.programs.source import Program, Reject, Scope, Var
from tests.jacobian.programs.words import WRAPPERS, each_with_copies, unwrapped


def frozen(program: Program) -> Callable[[Any], jax.Array]:
    return program.function(stat=lax.stop_gradient)


def attribution(program: Program, params: Any) -> Any:
    """Rows ``[B, ...]`` by copies of the parameters."""
    copied = program.function(each=each_with_copies, wrap=unwrapped)
    copies = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (program.batch, *x.shape)), params
    )
    return jax.grad(lambda p: jnp.sum(copied(p)))(copies)


def network(rng: random.Random, batch: int | None = None) -> Program:
    """A program of this kind."""
    while True:
        size = batch or rng.choice([2, 3, 4, 4, 4, 6])
        s = Scope(rng, size, rng.random() < 0.1)
        s.names["p"] = {}
        try:
            h = s.constant(s.batch, *[s.dim() for _ in range(s.any(1, 1, 2))])
            h = _layers(s, _dense(s, h), s.any(2, 3, 5), coupled=s.chance(0.7))
        except Reject:
            continue
        losses = f"jnp.square({h}).reshape({s.batch}, -1).sum(1)"
        body = ["def losses(p):", *(f"    {line}" for line in s.lines)]
        lines = (*body, f"    return {losses}")
        return Program(s.batch, s.params, lines, s.single, network=True)


def _layers(s: Scope, h: Var, number: int, coupled: bool) -> Var:
    for _ in range(number):
        options = [_dense, _elementwise, _layout, _residual, _affine, _inner, _loop]
        if coupled:
            options += [_statistic] * 4
        if s.depth < 2:
            options += [_block(coupled)] * 3
        for _ in range(20):
            try:
                with s.attempt():
                    h = s.any(*options)(s, h)
                break
            except Reject:
                continue
    return h


def _parameter(s: Scope, *shape: int) -> str:
    same = [name for name, size in s.root.params.items() if size == shape]
    if same and s.chance(0.2):
        return f"p['{s.rng.choice(same)}']"
    name = f"p{len(s.root.params)}"
    s.root.params[name] = shape
    s.root.names["p"][name] = jnp.zeros(shape, jnp.float32 if s.single else jnp.float64)
    return f"p['{name}']"


def _each(s: Scope, code: str, *values: Var, shared: str = "") -> Var:
    """``code`` over ``h`` (and ``g``, ``m``) as a layer."""
    arguments = ["h", "g"][: len(values)] + ["m"] * bool(shared)
    held = f"({', '.join(map(str, values))},)"
    tail = f", ({shared},)" if shared else ""
    return s.emit(f"each(lambda p, {', '.join(arguments)}: {code}, p, {held}{tail})")


def _dense(s, h):
    return _each(s, f"h @ {_parameter(s, h.shape[-1], s.dim())}", h)


def _elementwise(s, h):
    return _each(s, s.any(*UNARY).format("h"), h)


def _affine(s, h):
    scale, shift = _parameter(s, h.shape[-1]), _parameter(s, *h.shape[1:])
    return _each(s, f"h * {scale} + {shift}", h)


def _layout(s, h):
    """A product with a weight in some layout of the examples."""
    if h.ndim != 3:
        w = _parameter(s, h.shape[-1], s.dim())
        return _each(
            s,
            s.any(
                f"({w}.T @ h.T).T",
                f"jax.vmap(lambda r: r @ {w})(h)",
                f"jax.vmap(lambda r: r @ {w}, 0, 1)(h).T",
                f"jnp.einsum('bd,de->be', h, {w})",
                f"h[jnp.arange(h.shape[0])] @ {w}",
                f"lax.map(lambda r: r @ {w}, h)",
            ),
            h,
        )
    _, t, d = h.shape
    w, e = _parameter(s, d, d), d
    numbers = ("NWC", "WIO", "NWC")
    return _each(
        s,
        s.any(
            f"(h.swapaxes(0, 1).reshape(-1, {d}) @ {w}).reshape({t}, -1, {e}).swapaxes(0, 1)",
            f"(h.reshape(-1, {d}) @ {w}).reshape(-1, {t}, {e})",
            f"jnp.einsum('btd,de->bet', h, {w})",
            f"jax.vmap(lambda r: r @ {w}, 1, 1)(h)",
            f"jax.vmap(lambda r: jnp.cumsum(r @ {w}, 0))(h)",
            f"lax.conv_general_dilated(h, {w}[None], (1,), 'SAME', dimension_numbers={numbers})",
            f"lax.scan(lambda c, u: (jnp.tanh(c @ {w} + u), None), h[:, 0], h.swapaxes(0, 1))[0]",
            f"lax.scan(lambda c, u: (c, u @ {w}), 0, h.swapaxes(0, 1))[1].swapaxes(0, 1)",
            f"jax.nn.softmax(h @ {w} @ h.swapaxes(1, 2), -1) @ h",
            f"(h @ {w}).sum(1)",
            f"h.reshape(h.shape[0], -1)[:, : {d}] @ {w}",
        ),
        h,
    )


def _inner(s, h):
    """Something within examples."""
    return _each(
        s,
        s.any(
            "jax.nn.standardize(h, -1, epsilon=0.1)",
            "jax.nn.softmax(h, -1)",
            "jnp.sort(h, -1)",
            "jnp.flip(h, -1)",
            "jnp.cumsum(h, -1)",
            "jnp.concatenate([h, jnp.sin(h)], -1)",
            "h.reshape(h.shape[0], -1)",
            "jnp.swapaxes(h, 1, -1)",
            f"h + {_parameter(s, 7, h.shape[-1])}[jnp.abs(9 * h).astype(int)[..., 0] % 7]",
            "rules.by_value(h)",
            "rules.jvp_scaled(h)",
            "rules.straight_both(jnp.sin(h), h)",
            "rules.straight_through(h, jnp.round(h))",
        ),
        h,
    )


def _loop(s, h):
    """Layers in loops: parameters of their own, the same ones, or both."""
    d, n = h.shape[-1], s.any(1, 2, 3, s.batch)
    own, same = _parameter(s, n, d, d), _parameter(s, d, d)
    step = s.any(
        "jnp.tanh(c @ u)",
        f"jnp.tanh(c @ {same})",
        f"jnp.sin(c @ u) + c @ {same}.T",
        f"c @ (u / (1 + jnp.abs(u).sum())) * {same}[0]",
        f"c + jnp.tanh(c @ {same} + u[0])",
        f"lax.cond(u.sum() > 0, lambda c: c @ u, lambda c: jnp.sin(c) @ {same}, c)",
        f"lax.switch(1, [jnp.sin, lambda c: c @ {same} * u[0]], c)",
        f"lax.scan(lambda r, w: (jnp.tanh(r @ w + r @ u), None), c, {own})[0]",
        f"lax.fori_loop(0, 2, lambda i, r: jnp.tanh(r @ {own}[i % {n}] + c @ u), c)",
        f"lax.scan(lambda r, _: (r @ {same}, jnp.sin(r) @ u), c, None, 2)[1].sum(0)",
    )
    if s.chance(0.4):
        policy = s.any("", ", policy=jax.checkpoint_policies.dots_saveable")
        step = f"jax.checkpoint(lambda c, u: {step}{policy})(c, u)"
    if s.chance(0.2):
        step = f"jax.jit(lambda c, u: {step})(c, u)"
    kept = s.any("None", "None", "c @ u", "c.T")
    result = {"None": "[0]", "c @ u": "[1].sum(0)", "c.T": "[1].sum(0).T"}[kept]
    unroll = s.any("", "", ", unroll=2")
    options = f"reverse={s.chance(0.3)}{unroll}"
    loop = f"lax.scan(lambda c, u: ({step}, {kept}), h, {own}, {options}){result}"
    return _each(s, loop, h)


def _residual(s, h):
    g = s.pick(lambda v: v.shape == h.shape)
    return _each(s, s.any("h + g", "h * jnp.tanh(g)", "jnp.maximum(h, g)"), h, g)


def _statistic(s, h):
    """Where examples meet, and what it does to them."""
    own = h
    if s.chance(0.3):  # a value of its own
        own = _dense(s, h) if s.chance(0.5) else _each(s, "jnp.sin(h)", h)
        if own.shape != h.shape:
            raise Reject
    m, v = s.any(("mean", "var"), ("mean", "std"), ("max", "var"), ("sum", "mean"))
    if s.batch % 2 == 0 and s.chance(0.15) and s.batch > 2:  # of several examples
        half = s.batch // 2
        parts = f"{own}.reshape(2, {half}, *{own.shape[1:]}).mean(1)"
        r = s.emit(f"jnp.repeat(stat({parts}), {half}, axis=0)")
        return _each(s, s.any("h - g", "h * jnp.tanh(g)"), h, r)
    if s.chance(0.15):
        r = s.emit(f"stat({own}[::-1])")
        return _each(s, s.any("h - g", "h * jnp.tanh(g)"), h, r)
    if s.chance(0.15):
        k = s.emit(f"stat(jnp.einsum('b...d,b...e->de', {own}, {own}))")
        return _each(s, "h @ jnp.tanh(m)", h, shared=str(k))
    axes = s.any("0", "0", "0, keepdims=True", "(0, 1)" if h.ndim == 3 else "0", "None")
    mean = s.emit(f"stat({own}.{m}({axes}))".replace("axis=None", ""))
    if s.chance(0.2):
        return _each(
            s,
            f"h + m @ {_parameter(s, *h.shape[-1:] * 2)}" if mean.ndim else "h * m",
            h,
            shared=str(mean),
        )
    centred = _each(s, s.any("h - m", "h - m", "h + jnp.tanh(m)"), h, shared=str(mean))
    if s.chance(0.3):
        return centred
    source = s.any(centred, own)
    var = s.emit(f"stat({source}.{v}({axes}))")
    return _each(
        s,
        s.any("h * lax.rsqrt(0.1 + m * m)", "h / (1 + jnp.abs(m))"),
        centred,
        shared=str(var),
    )


def _block(coupled: bool):
    def block(s, h):
        on_devices = s.batch % 2 == 0 and s.batch < 8  # data may be on eight already
        names = [n for n in WRAPPERS if on_devices or not n.startswith("devices")]
        name = s.any(*names)
        inner = s.function(h)
        (a,) = inner.arguments
        inner.vars[:] = [a]
        out = _layers(inner, a, s.any(2, 3), coupled)
        if out.shape != h.shape or out is a:
            raise Reject
        f = s.define(inner, str(out), first="p, ")
        return s.emit(f"wrap('{name}', {f}, p, {h})")

    return block
