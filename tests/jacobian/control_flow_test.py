"""Products through loops, checkpoints and branches, against dense rows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

import ltjax
from tests.jacobian.programs.evaluate import evaluate
from tests.jacobian.reference import array, assert_products, dense, flat, random_like

B, T, D, LAYERS = 4, 3, 5, 3


def _loss(h):
    return jnp.square(h).reshape(B, -1).sum(1)


def _dense_layer(h, p):
    return jnp.tanh(h @ p["w"] + jnp.broadcast_to(p["b"], h.shape))


def _layers(dtype=None):
    return {
        "w": array(1, LAYERS, D, D, dtype=dtype),
        "b": array(2, LAYERS, D, dtype=dtype),
    }


def stacked():
    """Layers with parameters of their own, whose input has a parameter too."""
    x, params = array(0, B, T, D), {"e": array(4, D, D), "layers": _layers()}

    def losses_fn(p):
        step = lambda h, q: (_dense_layer(h, q), None)  # noqa: E731
        return _loss(lax.scan(step, x @ p["e"], p["layers"])[0])

    return losses_fn, params


def stacked_backwards():
    """Every layer's output is used, and the order is reversed."""
    x, params = array(0, B, D), _layers()

    def losses_fn(p):
        step = lambda h, q: (_dense_layer(h, q), jnp.sin(h) @ q["w"])  # noqa: E731
        h, ys = lax.scan(step, x, p, reverse=True)
        return _loss(h) + jnp.square(ys).sum((0, 2))

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
        return _loss(h) + jnp.square(hs).sum((0, 2))

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
        return _loss(lax.scan(step, start, jnp.moveaxis(x, 1, 0))[0])

    return losses_fn, params


def shared_values():
    """Weights are normalised within the loop; a temperature is the same in all."""
    x, params = array(0, B, T, D), {**_layers(), "t": array(3), "s": array(4, D)}

    def losses_fn(p):
        def step(h, q):
            w = q["w"].T / jnp.linalg.norm(q["w"])
            scale = jnp.broadcast_to(jnp.exp(p["s"]), h.shape)
            return jnp.tanh(h @ w * scale) * p["t"], None

        return _loss(lax.scan(step, x, {"w": p["w"], "b": p["b"]})[0])

    return losses_fn, params


def counted():
    """Layers by their number, and what no iteration changes."""
    x, params = array(0, B, D), {**_layers(), "e": array(3, D, D)}

    def losses_fn(p):
        def body(i, h):
            return jnp.tanh(h @ p["w"][i] + jnp.sin(x @ p["e"]) @ p["w"][0]) * (1 + i)

        return _loss(lax.fori_loop(0, LAYERS, body, x))

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

        return _loss(jnp.swapaxes(lax.scan(layer, x, p["w"])[0], 0, 1))

    return losses_fn, params


def stacked_in_time():
    """A recurrence over time through a scan over layers."""
    x, params = array(0, T, B, D), _layers()

    def losses_fn(p):
        def step(h, u):
            inner = lambda h, q: (_dense_layer(h, q), None)  # noqa: E731
            return lax.scan(inner, h + u, p)[0], None

        return _loss(lax.scan(step, jnp.zeros((B, D)), x)[0])

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
        return _loss(lax.scan(step, x, p["k"])[0])

    return losses_fn, params


def look_ups():
    """Tables of tokens: one per layer, and one that all share."""
    tokens = jnp.asarray([[0, 0, 1], [3, 1, 3], [2, 2, 2], [0, 1, 2]])
    params = {"t": array(1, LAYERS, 5, D), "s": array(2, 5, D)}

    def losses_fn(p):
        def step(h, table):
            return jnp.tanh(h + table[tokens] * p["s"][(tokens + 1) % 4]), None

        return _loss(lax.scan(step, jnp.ones((B, 3, D)), p["t"])[0])

    return losses_fn, params


def mapped():
    """All of it within `jax.vmap`, with jitted functions inside."""
    losses_fn, params = array(0, B, T, D), _layers()

    def loss(p, x):
        layer = jax.jit(lambda h, q: jnp.tanh(h @ q["w"] + q["b"][None]))
        h = lax.scan(lambda h, q: (layer(h, q), None), x, p)[0]
        return jnp.square(h).sum()

    return lambda p: jax.vmap(loss, (None, 0))(p, losses_fn), params


def _block(h, p):
    """Attention within an example, and what follows it."""
    n = h / jnp.sqrt(1 + jnp.square(h).mean(-1, keepdims=True))
    q, k, v = jnp.split(n @ p["qkv"], 3, -1)
    h = h + jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v @ p["out"]
    return (
        h
        + jnp.tanh(h @ p["up"] + jnp.broadcast_to(p["b"], (*h.shape[:2], 7)))
        @ p["down"]
    )


def _blocks(*lead):
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
    x, params = array(9, B, T, D), [_blocks(), _blocks(), array(7, D, D)]

    def losses_fn(p):
        inner = jax.checkpoint(_block)
        both = jax.checkpoint(lambda h, p, q: inner(_block(h, p), q))
        return _loss(both(x @ p[2], p[0], p[1]))

    return losses_fn, params


def scanned_checkpoints():
    """What real transformers are."""
    x, params = array(9, B, T, D), {"blocks": _blocks(LAYERS), "e": array(7, D, D)}

    def losses_fn(p):
        block = jax.checkpoint(_block, prevent_cse=False)
        step = lambda h, q: (block(h, q), None)  # noqa: E731
        return _loss(lax.scan(step, x @ p["e"], p["blocks"])[0])

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
        return _loss(h)

    return losses_fn, params


def shared_checkpoints():
    """One checkpointed block in all iterations: rows cross them."""
    x, params = array(9, B, T, D), _blocks()

    def losses_fn(p):
        block = jax.checkpoint(_block)
        step = lambda h, _: (block(h, p), None)  # noqa: E731
        return _loss(lax.scan(step, x, None, length=2)[0])

    return losses_fn, params


def branches():
    """One of two layers, by a number that is known late."""
    x, params = array(0, B, T, D), {**_layers(), "v": array(5, D, D)}

    def losses_fn(p):
        def layer(h, q):
            deep = lambda h, w: jnp.tanh(h @ w)  # noqa: E731
            wide = lambda h, w: h * 2.0 + h @ w.T  # noqa: E731
            return lax.cond(q["b"].sum() > 0, deep, wide, h, q["w"]), None

        h = lax.scan(layer, x, {k: p[k] for k in ("w", "b")})[0]
        return _loss(lax.switch(1, [jnp.sin, lambda h: jnp.tanh(h @ p["v"])], h))

    return losses_fn, params


SEEN = [
    stacked,
    stacked_backwards,
    recurrence,
    gated_recurrence,
    shared_values,
    counted,
    nested,
    stacked_in_time,
    convolutions,
    look_ups,
    mapped,
]
EVALUATED_AGAIN = [
    checkpointed,
    scanned_checkpoints,
    checkpointed_scan,
    shared_checkpoints,
    branches,
]


def _products(losses_fn, params, method="auto"):
    """All products and their errors: evaluated by NumPy, which compiles nothing."""
    direction, weights = random_like(params), jnp.linspace(-1, 1, B)
    told = []

    def both(params):
        losses, pullback = jax.vjp(losses_fn, params)
        rows = jax.vmap(pullback)(jnp.eye(B, dtype=losses.dtype))[0]
        _, jac = ltjax.linearize(losses_fn, params, method=method)
        told.append(jac)
        before = jac.vjp(weights)
        dots = jac.jvp(direction)
        got = before, dots, jac.norms(definition="row"), jac.vjp(weights), jac.dense()
        return got, rows

    got, rows = evaluate(both, params)
    rows = _by_row(rows)
    weighted = np.asarray(weights) @ rows
    norms = np.linalg.norm(rows, axis=1)
    want = weighted, rows @ flat(direction), norms, weighted, rows
    found = flat(got[0]), got[1], got[2], flat(got[3]), _by_row(got[4])
    names = "vjp before", "jvp", "norms", "vjp", "dense"
    return told[0], dict(zip(names, zip(found, want, strict=True), strict=True))


def _by_row(rows):
    return np.concatenate([np.reshape(x, (B, -1)) for x in jax.tree.leaves(rows)], 1)


def _assert_exact(products):
    for name, (got, want) in products.items():
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", SEEN, ids=lambda m: m.__name__)
def test_taps_in_loops_are_seen(model):
    jac, products = _products(*model())
    assert jac.method == "intercept"
    assert "independent; 100%" in jac.reason
    _assert_exact(products)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["auto", "intercept"])
@pytest.mark.parametrize("model", EVALUATED_AGAIN, ids=lambda m: m.__name__)
def test_what_is_evaluated_again_is_exact(model, method):
    jac, products = _products(*model(), method=method)
    assert jac.method == ("linearize" if method == "auto" else method)
    _assert_exact(products)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [nested, scanned_checkpoints])
def test_compiled_products_are_exact(model):
    assert_products(*model(), tolerance=1e-10)


def _first_layer_coupled(h, w):
    return jnp.tanh((h - h.mean(0, keepdims=True)) @ w)


def _carried(p):
    """A parameter that the loop changes."""
    step = lambda c, _: ((jnp.tanh(c[0] @ c[1]), jnp.sin(c[1])), None)  # noqa: E731
    return lax.scan(step, (array(0, B, D), p["w"][0]), None, length=2)[0][0]


def _one_by_one(p):
    """Examples on the axis that is scanned."""
    step = lambda c, x: (c, jnp.tanh(x @ p["w"][0]))  # noqa: E731
    return lax.scan(step, 0, array(0, B, D))[1]


def _passed_on(p):
    """The state of the loop is given from one example to the next."""
    step = lambda h, x: ((h := jnp.tanh(h @ p["w"][0] + x)), h)  # noqa: E731
    return lax.scan(step, jnp.zeros(D), array(0, B, D))[1]


def _transposed(p):
    """One value on two axes, of the same length: of examples and not."""
    step = lambda h, w: (jnp.tanh(h @ w), h.T)  # noqa: E731
    h, ys = lax.scan(step, array(0, B, B), p["w"][:, :B, :B])
    return h + ys.sum(0)


def _coupled(p):
    step = lambda h, w: (_first_layer_coupled(h, w), None)  # noqa: E731
    return lax.scan(step, array(0, B, D), p["w"])[0]


def _coupled_checkpoint(p):
    return jax.checkpoint(_first_layer_coupled)(array(0, B, D) @ p["w"][0], p["w"][1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("forward", "apart"),
    [
        (_carried, True),
        (_one_by_one, True),
        (_passed_on, False),
        (_transposed, False),
        (_coupled, False),
        (_coupled_checkpoint, False),
    ],
)
def test_what_is_not_proved_takes_the_slower_form(forward, apart):
    losses_fn, params = lambda p: _loss(forward(p)), {"w": array(1, 2, D, D)}
    jac, products = _products(losses_fn, params)
    assert jac.method == "linearize"
    assert ("examples are independent" in jac.reason) == apart
    _assert_exact(products)


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("bfloat16", 0.06)])
@pytest.mark.parametrize("model", ["layers", "recurrence", "checkpoint"])
def test_narrow_dtypes(model, dtype, close):
    x, params = array(0, B, T, D, dtype=dtype), _layers(dtype)
    layer = jax.checkpoint(_dense_layer) if model == "checkpoint" else _dense_layer
    first = jax.tree.map(lambda p: p[0], params)

    def losses_fn(p):
        if model == "recurrence":
            step = lambda h, _: (layer(h, jax.tree.map(lambda q: q[0], p)), None)  # noqa: E731
            h = lax.scan(step, x, None, length=LAYERS)[0]
        else:
            h = lax.scan(lambda h, q: (layer(h, q), None), x, p)[0]
        return _loss(h.astype(jnp.float32))

    assert first["w"].dtype == dtype
    _, jac = ltjax.linearize(losses_fn, params)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    x = x.astype(jnp.float32)
    rows = dense(losses_fn, wide)
    norms = np.linalg.norm(rows, axis=1)
    assert jac.norms().dtype == jnp.float32
    np.testing.assert_allclose(jac.norms(), norms, rtol=close)
    direction = random_like(params)
    scale = norms.max() * np.linalg.norm(flat(direction).astype(np.float32))
    expected = rows @ flat(jax.tree.map(lambda v: v.astype(jnp.float32), direction))
    np.testing.assert_allclose(jac.jvp(direction), expected, atol=close * scale)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_eight_devices_equal_one(checkpoint, eight_devices):
    x = jax.random.normal(jax.random.key(0), (16, 3, D))
    params = {"w": jnp.stack([jnp.eye(D), 0.5 * jnp.ones((D, D))]), "u": jnp.eye(D)}
    layer = lambda h, w: jnp.tanh(h @ w)  # noqa: E731
    layer = jax.checkpoint(layer) if checkpoint else layer

    def products(params, x):
        def losses_fn(p):
            step = lambda h, w: (layer(h, w) @ p["u"], None)  # noqa: E731
            return jnp.square(lax.scan(step, x, p["w"])[0]).sum((1, 2))

        _, jac = ltjax.linearize(losses_fn, params, method="intercept")
        return jac.jvp(params), jac.norms(), jac.vjp(jnp.linspace(0, 1, 16))

    one = jax.jit(products)(params, x)
    placed = jax.device_put(x, NamedSharding(eight_devices, PartitionSpec("data")))
    whole = jax.device_put(params, NamedSharding(eight_devices, PartitionSpec()))
    eight = jax.jit(products)(whole, placed)
    chex.assert_trees_all_close(eight, one, rtol=1e-5, atol=1e-5)


def _flops(fun, *args):
    """Bodies of loops count once: they have the same number of iterations here."""
    return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("checkpoint", "dots", "norms"), [(False, 1.45, 1.5), (True, 1.76, 2.4)]
)
def test_price_of_products_in_loops(checkpoint, dots, norms):
    x, params = jnp.ones((32, 64)), jnp.ones((4, 64, 64))
    layer = lambda h, w: jnp.tanh(h @ w)  # noqa: E731
    layer = jax.checkpoint(layer) if checkpoint else layer

    def losses_fn(p):
        return lax.scan(lambda h, w: (layer(h, w), None), x, p)[0].sum(1)

    def sgd(p, v):
        return jax.grad(lambda p: losses_fn(p).mean())(p)

    def weighted(p, v):
        losses, jac = ltjax.linearize(losses_fn, p)
        return jac.vjp(jax.nn.softmax(losses))

    def along(p, v):
        _, jac = ltjax.linearize(losses_fn, p)
        return jac.vjp(jac.jvp(v))

    def scaled(p, v):
        _, jac = ltjax.linearize(losses_fn, p)
        return jac.vjp(1 / jac.norms())

    step = _flops(sgd, params, params)
    assert _flops(weighted, params, params) <= 1.03 * step
    assert _flops(along, params, params) <= dots * step
    assert _flops(scaled, params, params) <= norms * step
