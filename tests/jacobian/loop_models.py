"""Losses of models with loops, checkpoints and branches, and their parameters."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.jacobian.reference import array

B, T, D, LAYERS = 4, 3, 5, 3


def loss(h):
    return jnp.square(h).reshape(B, -1).sum(1)


def dense_layer(h, p):
    return jnp.tanh(h @ p["w"] + jnp.broadcast_to(p["b"], h.shape))


def layers_of(dtype=None):
    return {
        "w": array(1, LAYERS, D, D, dtype=dtype),
        "b": array(2, LAYERS, D, dtype=dtype),
    }


def stacked():
    """Layers with parameters of their own, whose input has a parameter too."""
    x, params = array(0, B, T, D), {"e": array(4, D, D), "layers": layers_of()}

    def losses_fn(p):
        step = lambda h, q: (dense_layer(h, q), None)  # noqa: E731
        return loss(lax.scan(step, x @ p["e"], p["layers"])[0])

    return losses_fn, params


def stacked_backwards():
    """Every layer's output is used, and the order is reversed."""
    x, params = array(0, B, D), layers_of()

    def losses_fn(p):
        step = lambda h, q: (dense_layer(h, q), jnp.sin(h) @ q["w"])  # noqa: E731
        h, ys = lax.scan(step, x, p, reverse=True)
        return loss(h) + jnp.square(ys).sum((0, 2))

    return losses_fn, params


def recurrence():
    """Every step has the same parameters: a row is a sum over time."""
    x = array(0, T, B, D)
    params = {"u": array(1, D, D), "w": array(2, D, D), "b": array(3, D)}

    def losses_fn(p):
        def step(h, u):
            h = jnp.tanh(h @ p["w"] + u @ p["u"] + jnp.broadcast_to(p["b"], h.shape))
            return h, h

        h, hs = lax.scan(step, jnp.zeros((B, D)), x)
        return loss(h) + jnp.square(hs).sum((0, 2))

    return losses_fn, params


def gated_recurrence():
    """Gates out of one product; the first state is a parameter; positions in time."""
    x = array(0, B, T, 2, D)
    params = {"w": array(2, 2 * D, 2 * D), "h": array(3, 1, 1, D)}

    def losses_fn(p):
        def step(h, u):
            gate, new = jnp.split(jnp.concatenate([h, u], -1) @ p["w"], 2, -1)
            return h + jax.nn.sigmoid(gate) * jnp.tanh(new), None

        start = jnp.broadcast_to(p["h"], (B, 2, D))
        return loss(lax.scan(step, start, jnp.moveaxis(x, 1, 0))[0])

    return losses_fn, params


def shared_values():
    """Weights are normalised within the loop; a temperature is the same in all."""
    x, params = array(0, B, T, D), {**layers_of(), "t": array(3), "s": array(4, D)}

    def losses_fn(p):
        def step(h, q):
            w = q["w"].T / jnp.linalg.norm(q["w"])
            scale = jnp.broadcast_to(jnp.exp(p["s"]), h.shape)
            return jnp.tanh(h @ w * scale) * p["t"], None

        return loss(lax.scan(step, x, {"w": p["w"], "b": p["b"]})[0])

    return losses_fn, params


def counted():
    """Layers by their number, and what no iteration changes."""
    x, params = array(0, B, D), {**layers_of(), "e": array(3, D, D)}

    def losses_fn(p):
        def body(i, h):
            return jnp.tanh(h @ p["w"][i] + jnp.sin(x @ p["e"]) @ p["w"][0]) * (1 + i)

        return loss(lax.fori_loop(0, LAYERS, body, x))

    return losses_fn, params


def nested():
    """A scan over layers of a recurrence over time, and a parameter in both."""
    x = array(0, T, B, D)
    params = {"w": array(1, LAYERS, D, D), "u": array(2, D, D), "e": array(3, D, D)}

    def losses_fn(p):
        def layer(hs, w):
            def step(h, u):
                h = jnp.tanh(h @ w + u @ p["u"])
                return h, h @ p["e"]

            return lax.scan(step, jnp.zeros((B, D)), hs)[1], None

        return loss(jnp.swapaxes(lax.scan(layer, x, p["w"])[0], 0, 1))

    return losses_fn, params


def stacked_in_time():
    """A recurrence over time through a scan over layers."""
    x, params = array(0, T, B, D), layers_of()

    def losses_fn(p):
        def step(h, u):
            inner = lambda h, q: (dense_layer(h, q), None)  # noqa: E731
            return lax.scan(inner, h + u, p)[0], None

        return loss(lax.scan(step, jnp.zeros((B, D)), x)[0])

    return losses_fn, params


def convolutions():
    """Kernels per layer, and one kernel that all layers share."""
    x = array(0, B, 4, 4, 2)
    params = {"k": array(1, LAYERS, 3, 3, 2, 2), "s": array(2, 2, 2, 2, 2)}
    numbers = ("NHWC", "HWIO", "NHWC")

    def losses_fn(p):
        def conv(h, k):
            return lax.conv_general_dilated(
                h, k, (1, 1), "SAME", dimension_numbers=numbers
            )

        step = lambda h, k: (jnp.tanh(conv(jnp.tanh(conv(h, k)), p["s"])), None)  # noqa: E731
        return loss(lax.scan(step, x, p["k"])[0])

    return losses_fn, params


def look_ups():
    """Tables of tokens: one per layer, and one that all share."""
    tokens = jnp.asarray([[0, 0, 1], [3, 1, 3], [2, 2, 2], [0, 1, 2]])
    params = {"t": array(1, LAYERS, 5, D), "s": array(2, 5, D)}

    def losses_fn(p):
        def step(h, table):
            return jnp.tanh(h + table[tokens] * p["s"][(tokens + 1) % 4]), None

        return loss(lax.scan(step, jnp.ones((B, 3, D)), p["t"])[0])

    return losses_fn, params


def mapped():
    """All of it within `jax.vmap`, with jitted functions inside."""
    losses_fn, params = array(0, B, T, D), layers_of()

    def loss(p, x):
        layer = jax.jit(lambda h, q: jnp.tanh(h @ q["w"] + q["b"][None]))
        h = lax.scan(lambda h, q: (layer(h, q), None), x, p)[0]
        return jnp.square(h).sum()

    return lambda p: jax.vmap(loss, (None, 0))(p, losses_fn), params


def one_by_one():
    """`jax.lax.map` over examples, in a loop over layers and after it."""
    x, params = array(0, B, T, D), {"layers": layers_of(), "out": array(7, D, 2)}

    def losses_fn(p):
        layer = lambda q: lambda h: jnp.tanh(h @ q["w"] + q["b"][None])  # noqa: E731
        h = lax.scan(lambda h, q: (lax.map(layer(q), h), None), x, p["layers"])[0]
        return lax.map(lambda h: jnp.square(h @ p["out"]).sum(), h)

    return losses_fn, params


def one_by_one_in_every_iteration():
    """The same layer in all iterations, so that their terms meet."""
    x, params = array(0, B, T, D), {"w": array(1, D, D), "out": array(7, D, 2)}

    def losses_fn(p):
        layer = lambda h: jnp.tanh(h @ p["w"])  # noqa: E731
        h = lax.fori_loop(0, 3, lambda _, h: lax.map(layer, h), x)
        return jnp.square(h @ p["out"]).sum((1, 2))

    return losses_fn, params


def block(h, p):
    """Attention within an example, and what follows it."""
    n = h / jnp.sqrt(1 + jnp.square(h).mean(-1, keepdims=True))
    q, k, v = jnp.split(n @ p["qkv"], 3, -1)
    h = h + jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v @ p["out"]
    return (
        h
        + jnp.tanh(h @ p["up"] + jnp.broadcast_to(p["b"], (*h.shape[:2], 7)))
        @ p["down"]
    )


def blocks(*lead):
    shapes = {
        "qkv": (D, 3 * D),
        "out": (D, D),
        "up": (D, 7),
        "b": (7,),
        "down": (7, D),
    }
    return {k: array(i, *lead, *s) / 2 for i, (k, s) in enumerate(shapes.items())}


def checkpointed():
    """Two blocks, one within the other's checkpoint."""
    x, params = array(9, B, T, D), [blocks(), blocks(), array(7, D, D)]

    def losses_fn(p):
        inner = jax.checkpoint(block)
        both = jax.checkpoint(lambda h, p, q: inner(block(h, p), q))
        return loss(both(x @ p[2], p[0], p[1]))

    return losses_fn, params


def scanned_checkpoints():
    """What real transformers are."""
    x, params = array(9, B, T, D), {"blocks": blocks(LAYERS), "e": array(7, D, D)}

    def losses_fn(p):
        kept = jax.checkpoint(block, prevent_cse=False)
        step = lambda h, q: (kept(h, q), None)  # noqa: E731
        return loss(lax.scan(step, x @ p["e"], p["blocks"])[0])

    return losses_fn, params


def checkpointed_scan():
    """A recurrence in chunks that are computed again."""
    x = array(0, 2, T, B, D)
    params = {"w": array(1, 2, D, D), "u": array(2, D, D)}

    def losses_fn(p):
        @jax.checkpoint
        def chunk(h, w, xs):
            step = lambda h, u: (jnp.tanh(h @ w + u), None)  # noqa: E731
            return lax.scan(step, h, xs)[0]

        h = jnp.zeros((B, D))
        for i in range(2):
            h = chunk(h, p["w"][i], x[i]) @ p["u"]
        return loss(h)

    return losses_fn, params


def shared_checkpoints():
    """One checkpointed block in all iterations: rows cross them."""
    x, params = array(9, B, T, D), blocks()

    def losses_fn(p):
        kept = jax.checkpoint(block)
        step = lambda h, _: (kept(h, p), None)  # noqa: E731
        return loss(lax.scan(step, x, None, length=2)[0])

    return losses_fn, params


def branches():
    """One of two layers, by a number that is known late."""
    x, params = array(0, B, T, D), {**layers_of(), "v": array(5, D, D)}

    def losses_fn(p):
        def layer(h, q):
            deep = lambda h, w: jnp.tanh(h @ w)  # noqa: E731
            wide = lambda h, w: h * 2.0 + h @ w.T  # noqa: E731
            return lax.cond(q["b"].sum() > 0, deep, wide, h, q["w"]), None

        h = lax.scan(layer, x, {k: p[k] for k in ("w", "b")})[0]
        return loss(lax.switch(1, [jnp.sin, lambda h: jnp.tanh(h @ p["v"])], h))

    return losses_fn, params
