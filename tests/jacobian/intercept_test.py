"""Interception against dense rows, on models of every kind, in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

import ltjax
from tests.jacobian.reference import jacobian

B, CLASSES = 4, 3


def _array(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / 2)


def _labels():
    return jnp.arange(B) % CLASSES


def _cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, _labels())


def _conv(x, kernel, stride=1, padding="SAME", groups=1, dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _normalise(x, axes):
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x - mean).mean(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5)


def _group_norm(x):
    grouped = x.reshape(*x.shape[:-1], 2, -1)
    return _normalise(grouped, (1, 2, 4)).reshape(x.shape)


def _batch_norm(x):
    return _normalise(x, (0, 1, 2))


def mlp():
    x = _array(1, B, 5)
    params = {"w": _array(2, 5, 6), "b": _array(3, 6), "v": _array(4, 6, CLASSES)}

    def losses_fn(p):
        return _cross_entropy(jax.nn.relu(x @ p["w"] + p["b"][None]) @ p["v"])

    return losses_fn, params


def _convolutional(norm):
    x = _array(1, B, 6, 6, 2)
    params = {
        "stem": _array(2, 3, 3, 2, 4),
        "block": _array(3, 3, 3, 4, 4),
        "down": _array(4, 3, 3, 4, 6),
        "short": _array(5, 1, 1, 4, 6),
        "depthwise": _array(6, 2, 2, 1, 6),
        "scale": _array(7, 1, 1, 1, 4),
        "bias": _array(8, 1, 1, 1, 4),
        "head": _array(9, 6, CLASSES),
        "temperature": jnp.asarray(1.5),
    }

    def losses_fn(p):
        h = jax.nn.relu(norm(_conv(x, p["stem"])) * p["scale"] + p["bias"])
        h += jax.nn.relu(norm(_conv(h, p["block"], dilation=2)) * p["scale"])
        h = jax.nn.relu(norm(_conv(h, p["down"], 2))) + _conv(h, p["short"], 2)
        h = _conv(h, p["depthwise"], padding="VALID", groups=6)
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")
        return _cross_entropy(h.mean((1, 2)) @ p["head"] * p["temperature"])

    return losses_fn, params


def group_norm():
    return _convolutional(_group_norm)


def batch_norm():
    return _convolutional(_batch_norm)


def vision_transformer():
    x, width, heads = _array(1, B, 4, 4, 2), 4, 2
    params = {
        "patches": _array(2, 2, 2, 2, width),
        "token": _array(3, 1, 1, width),
        "positions": _array(4, 1, 5, width),
        "qkv": _array(5, width, 3, heads, width // heads),
        "out": _array(6, heads, width // heads, width),
        "scale": _array(7, 1, 1, width),
        "up": _array(8, width, 6),
        "down": _array(9, 6, width),
        "head": _array(10, width, CLASSES),
    }

    def losses_fn(p):
        h = _conv(x, p["patches"], 2, "VALID").reshape(B, -1, width)
        token = jnp.broadcast_to(p["token"], (B, 1, width))
        h = jnp.concatenate([token, h], 1) + p["positions"]
        n = _normalise(h, -1) * p["scale"]
        q, k, v = jnp.moveaxis(jnp.einsum("btd,dchk->btchk", n, p["qkv"]), 2, 0)
        attention = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
        h += jnp.einsum("bhts,bshk,hkd->btd", attention, v, p["out"])
        h += jax.nn.gelu(_normalise(h, -1) * p["scale"] @ p["up"]) @ p["down"]
        return _cross_entropy(h[:, 0] @ p["head"])

    return losses_fn, params


def _tokens():
    return jnp.asarray([[0, 0, 1, 2], [3, 1, 3, 3], [2, 2, 2, 2], [0, 1, 2, 3]])


def embedding():
    params = {"table": _array(1, 9, 4), "w": _array(2, 4, CLASSES)}

    def losses_fn(p):
        h = jnp.tanh(jnp.take(p["table"], _tokens(), axis=0)).sum(1)
        return _cross_entropy(h @ p["w"])

    return losses_fn, params


def tied_weights():
    params = {"table": _array(1, 9, 4), "w": _array(2, 4, 4)}

    def losses_fn(p):
        h = jnp.tanh(p["table"][_tokens()].mean(1) @ p["w"] @ p["w"])
        return _cross_entropy(h @ p["table"].T)

    return losses_fn, params


def dropout():
    _, params = mlp()
    x = _array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None])
        keep = jax.random.bernoulli(jax.random.key(0), 0.7, h.shape)
        return _cross_entropy(jnp.where(keep, h / 0.7, 0.0) @ p["v"])

    return losses_fn, params


def weight_norm():
    losses_fn, params = mlp()

    def normalised(p):
        w = p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)
        return losses_fn({**p, "w": w})

    return normalised, params


def example_latents():
    x = _array(1, B, 5)
    params = {"z": _array(2, B, 5), "w": _array(3, 5, CLASSES)}
    return lambda p: _cross_entropy((x + p["z"]) @ p["w"]), params


def positions_in_the_batch_axis():
    x = _array(1, B, 4, 4, 2)
    params = {
        "c": _array(2, 3, 3, 2, 4),
        "w": _array(3, 4, 3),
        "v": _array(4, 48, CLASSES),
    }

    def losses_fn(p):
        h = jnp.tanh(_conv(x, p["c"])).reshape(-1, 4) @ p["w"]
        return _cross_entropy(jnp.tanh(h).reshape(B, -1) @ p["v"])

    return losses_fn, params


def indexing():
    _, params = mlp()
    x = _array(1, B, 5)

    def losses_fn(p):
        z = jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]
        z = z.at[jnp.arange(B), _labels()].add(-0.3)
        picked = jax.nn.log_softmax(z)[jnp.arange(B), _labels()]
        best, _ = lax.top_k(z, 2)
        return best.sum(-1) - picked - jnp.sort(z, -1)[:, 0]

    return losses_fn, params


def nnx_model():
    x = _array(1, B, 5)

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(5, 6, rngs=rngs, param_dtype=jnp.float64)
            self.norm = nnx.LayerNorm(6, rngs=rngs, param_dtype=jnp.float64)
            self.outer = nnx.Linear(6, CLASSES, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x):
            return self.outer(nnx.relu(self.norm(self.inner(x))))

    graph, params = nnx.split(Model(nnx.Rngs(0)))

    def losses_fn(p):
        with jax.numpy_dtype_promotion("standard"):  # for Flax's normalisation
            return _cross_entropy(nnx.merge(graph, p, copy=True)(x))

    return losses_fn, params


def scanned_layers():
    x = _array(1, B, 5)
    params = {"w": _array(2, 3, 5, 5), "b": _array(3, 3, 5), "v": _array(4, 5, 3)}

    def losses_fn(p):
        def layer(h, wb):
            return jnp.tanh(h @ wb[0] + wb[1][None]), None

        return _cross_entropy(lax.scan(layer, x, (p["w"], p["b"]))[0] @ p["v"])

    return losses_fn, params


def custom_backward():
    """A backward rule of its own that keeps examples apart."""
    _, params = mlp()
    x = _array(1, B, 5)

    @jax.custom_vjp
    def double(h):
        return h

    double.defvjp(lambda h: (h, None), lambda _, d: (2 * d,))

    def losses_fn(p):
        h = double(jnp.tanh(x @ p["w"] + p["b"][None]))
        return _cross_entropy(h @ p["v"])

    return losses_fn, params


def cholesky():
    _, params = mlp()
    x = _array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None])
        gram = h[:, :, None] * h[:, None, :] + jnp.eye(6)[None]
        return _cross_entropy(lax.linalg.cholesky(gram)[:, :, 0] @ p["v"])

    return losses_fn, params


def solve():
    _, params = mlp()
    x = _array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None])
        gram = h[:, :, None] * h[:, None, :] + jnp.eye(6)[None]
        return _cross_entropy(jnp.linalg.solve(gram, h[:, :, None])[:, :, 0] @ p["v"])

    return losses_fn, params


def contrastive():
    _, params = mlp()
    x = _array(1, B, 5)

    def losses_fn(p):
        h = jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]
        return jax.nn.logsumexp(h @ h.T, 1)

    return losses_fn, params


INTERCEPTED = [
    mlp,
    group_norm,
    vision_transformer,
    embedding,
    tied_weights,
    dropout,
    weight_norm,
    example_latents,
    positions_in_the_batch_axis,
    indexing,
    nnx_model,
    scanned_layers,
    custom_backward,
    cholesky,
]
FALLING_BACK = {
    batch_norm: "influence each other through.*reduce_sum",
    contrastive: "influence each other through.*transpose",
    solve: "not known to stay apart in custom_linear_solve",
}


def _products(losses_fn, params, definition=None, method="auto", chunks=False):
    """All products, their references from dense rows, and how they were computed."""
    leaves, treedef = jax.tree.flatten(params)
    direction = [_array(50 + i, *p.shape) for i, p in enumerate(leaves)]
    weights = _array(99, B)
    kept = [i % 2 == 0 for i in range(len(leaves))]
    mask = jax.tree.unflatten(treedef, kept)
    partial = [
        v if k else optax.MaskedNode() for v, k in zip(direction, kept, strict=True)
    ]
    told = {}

    def products(params):
        losses, jac = ltjax.linearize(losses_fn, params, method=method)
        told.update(method=jac.method, reason=jac.reason)
        in_chunks = {
            "norms in chunks": jac.norms(definition=definition, chunk_size=3),
            "dense in chunks": jac.dense(chunk_size=3),
        }
        return (in_chunks if chunks else {}) | {
            "losses": losses,
            "vjp before": jac.vjp(weights),
            "jvp": jac.jvp(treedef.unflatten(direction)),
            "partial jvp": jac.jvp(treedef.unflatten(partial)),
            "vjp": jac.vjp(weights),
            "norms": jac.norms(definition=definition),
            "partial norms": jac.norms(definition=definition, mask=mask),
            "dense": jac.dense(),
            # Rows that the norms left behind serve the other products.
            "jvp after norms": jac.jvp(treedef.unflatten(direction)),
            "vjp after norms": jac.vjp(weights),
        }

    def reference(params):
        rows = [
            r.reshape(B, -1) for r in jax.tree.leaves(jax.jacrev(losses_fn)(params))
        ]
        dots = [r @ v.ravel() for r, v in zip(rows, direction, strict=True)]
        squares = [jnp.square(r).sum(1) for r in rows]

        def some(parts):
            return sum(x for x, k in zip(parts, kept, strict=True) if k)

        vjp = treedef.unflatten(
            [(weights @ r).reshape(p.shape) for r, p in zip(rows, leaves, strict=True)]
        )
        dense = treedef.unflatten(
            [r.reshape(B, *p.shape) for r, p in zip(rows, leaves, strict=True)]
        )
        norms = jnp.sqrt(sum(squares))
        return {
            "losses": losses_fn(params),
            "vjp before": vjp,
            "jvp": sum(dots),
            "partial jvp": some(dots),
            "vjp": vjp,
            "norms": norms,
            "norms in chunks": norms,
            "partial norms": jnp.sqrt(some(squares)),
            "dense": dense,
            "dense in chunks": dense,
            "jvp after norms": sum(dots),
            "vjp after norms": vjp,
        }

    got, expected = jax.jit(lambda p: (products(p), reference(p)))(params)
    return got, expected, told


def _assert_same(got, expected):
    for name in got:
        assert jax.tree.structure(got[name]) == jax.tree.structure(expected[name])
        for x, y in zip(
            jax.tree.leaves(got[name]), jax.tree.leaves(expected[name]), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", INTERCEPTED, ids=lambda m: m.__name__)
def test_intercepted_products_equal_dense_rows(model):
    got, expected, told = _products(*model())
    assert told["method"] == "intercept"
    assert "examples are independent; 100%" in told["reason"]
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "model", [embedding, example_latents, positions_in_the_batch_axis, weight_norm]
)
def test_chunks_change_nothing(model):
    got, expected, _ = _products(*model(), chunks=True)
    assert "norms in chunks" in got
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", FALLING_BACK, ids=lambda m: m.__name__)
def test_others_fall_back_and_say_why(model):
    got, expected, told = _products(*model(), definition="row")
    assert told["method"] == "linearize"
    assert re.search(FALLING_BACK[model], told["reason"])
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
def test_coupled_function_cannot_be_intercepted():
    losses_fn, params = batch_norm()
    with pytest.raises(ValueError, match=r"'intercept' is impossible.*reduce_sum"):
        jacobian(losses_fn, params, method="intercept")


@pytest.mark.usefixtures("x64")
def test_plain_method_can_be_asked_for():
    got, expected, told = _products(*mlp(), method="linearize")
    assert told["method"] == "linearize"
    _assert_same(got, expected)


@pytest.mark.usefixtures("x64")
def test_backward_rule_that_mixes_examples_is_noticed():
    x = _array(1, B, 5)

    @jax.custom_vjp
    def centred(h):
        return h

    centred.defvjp(lambda h: (h, None), lambda _, d: (d - d.mean(0, keepdims=True),))
    told = jacobian(lambda w: centred(x @ w).sum(1), _array(2, 5, 3))
    assert told.method == "linearize"
    assert "custom_vjp" in told.reason


@pytest.mark.usefixtures("x64")
def test_forward_rule_that_mixes_examples_is_noticed():
    x = _array(1, B, 5)

    @jax.custom_jvp
    def centred(h):
        return h

    centred.defjvp(lambda h, t: (h[0], t[0] - t[0].mean(0, keepdims=True)))
    w = _array(2, 5, 3)
    losses_fn = lambda w: jnp.square(centred(x @ w)).sum(1)  # noqa: E731

    @jax.jit
    def both(w):
        _, jac = ltjax.linearize(losses_fn, w)
        assert jac.method == "linearize"
        return jac.dense(), jax.jacrev(losses_fn)(w)

    np.testing.assert_allclose(*both(w), atol=1e-12)


@pytest.mark.parametrize(
    "mix",
    [
        lambda h: h[::-1],
        lambda h: jnp.cumsum(h, 0),
        lambda h: jnp.sort(h, 0),
        lambda h: jnp.roll(h, 1, 0),
        lambda h: h.T[:B, :].reshape(h.shape),
        lambda h: h[jnp.asarray([1, 0, 3, 2])],
        lambda h: jnp.zeros_like(h).at[jnp.asarray([1, 0, 3, 2])].set(h),
        lambda h: jax.nn.softmax(h, 0),
        lambda h: h - lax.map(lambda r: r, h).sum(0, keepdims=True),
        lambda h: lax.reduce_window(h, 0.0, lax.add, (2, 1), (1, 1), "SAME"),
        lambda h: lax.associative_scan(jnp.add, h),
        lambda h: jnp.einsum("bi,ci->bc", h, h),
    ],
)
def test_mixing_is_never_taken_for_independence(mix):
    x, w = _array(1, B, 5).astype(jnp.float32), _array(2, 5, B).astype(jnp.float32)

    def losses_fn(w):
        h = jnp.tanh(x @ w)
        return (h + mix(h)).sum(1)

    v = _array(3, 5, B).astype(jnp.float32)

    @jax.jit
    def both(w, v):
        _, jac = ltjax.linearize(losses_fn, w)
        assert jac.method == "linearize"
        with pytest.raises(ValueError, match="norms needs a definition"):
            jac.norms()
        return jac.jvp(v), jax.jvp(losses_fn, (w,), (v,))[1]

    np.testing.assert_allclose(*both(w, v), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_definitions_of_coupled_rows():
    x = _array(1, B, 5)
    params = {"w": _array(2, 5, 6), "s": _array(3, 1, 6), "v": _array(4, 6, CLASSES)}
    v = jax.tree.map(lambda p: _array(9, *p.shape), params)

    def losses_fn(p, freeze=lambda m: m):
        h = x @ p["w"]
        mean = freeze(h.mean(0, keepdims=True))
        variance = freeze(jnp.square(h - mean).mean(0, keepdims=True))
        h = (h - mean) * (lax.rsqrt(variance + 1e-5) * p["s"])
        return _cross_entropy(jax.nn.relu(h) @ p["v"])

    def dots(rows):
        return sum(
            (r * t[None]).reshape(B, -1).sum(1)
            for r, t in zip(jax.tree.leaves(rows), jax.tree.leaves(v), strict=True)
        )

    def norms(rows):
        return jnp.sqrt(
            sum(jnp.square(r).reshape(B, -1).sum(1) for r in jax.tree.leaves(rows))
        )

    def attributed(p):
        """By the book: inputs and cotangents of each layer, from one backward pass."""

        def probed(t):
            h = x @ p["w"] + t["h"]
            mean, variance = h.mean(0, keepdims=True), h.var(0, keepdims=True)
            n = (h - mean) * lax.rsqrt(variance + 1e-5)
            y = n * p["s"] + t["y"]
            z = jax.nn.relu(y) @ p["v"] + t["z"]
            return _cross_entropy(z).sum(), (n, jax.nn.relu(y))

        zeros = {
            "h": jnp.zeros((B, 6)),
            "y": jnp.zeros((B, 6)),
            "z": jnp.zeros((B, CLASSES)),
        }
        d, (n, r) = jax.grad(probed, has_aux=True)(zeros)
        return {
            "w": x[:, :, None] * d["h"][:, None, :],
            "s": (n * d["y"])[:, None],
            "v": r[:, :, None] * d["z"][:, None, :],
        }

    @jax.jit
    def both(p):
        _, jac = ltjax.linearize(losses_fn, p)
        rows = {
            "row": jax.jacrev(losses_fn)(p),
            "frozen": jax.jacrev(lambda p: losses_fn(p, lax.stop_gradient))(p),
            "attribution": attributed(p),
        }
        return {
            name: (
                (jac.jvp(v, definition=name), dots(r)),
                (jac.norms(definition=name), norms(r)),
            )
            for name, r in rows.items()
        }

    found = both(params)
    for name, pairs in found.items():
        for got, expected in pairs:
            np.testing.assert_allclose(got, expected, atol=1e-10, err_msg=name)
    exact = found["row"][1][1]
    for name in ("frozen", "attribution"):
        assert np.abs(found[name][1][1] - exact).max() > 1e-3

    with pytest.raises(ValueError, match=r"needs a definition here \(examples influ"):
        jacobian(losses_fn, params, lambda jac: jac.norms())
    with pytest.raises(ValueError, match=r"definition must be one of 'row'.*'ghost'"):
        jacobian(losses_fn, params, lambda jac: jac.jvp(v, definition="ghost"))


def test_definitions_agree_for_independent_examples():
    losses_fn, params = mlp()

    @functools.partial(jax.jit, static_argnums=1)
    def products(params, definition):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.norms(definition=definition), jac.jvp(params, definition=definition)

    for name in ("row", "frozen", "attribution"):
        for got, expected in zip(
            products(params, name), products(params, None), strict=True
        ):
            np.testing.assert_allclose(got, expected)


def test_definitions_need_losses_and_proofs():
    logits_fn = lambda w: _array(1, B, 5).astype(w.dtype) @ w  # noqa: E731
    w = _array(2, 5, 3)
    assert "outputs have shape (4, 3)" in jacobian(logits_fn, w).reason
    with pytest.raises(
        ValueError, match=r"'frozen' cannot be told here: losses of shape"
    ):
        jacobian(logits_fn, w, lambda jac: jac.jvp(w, definition="frozen"))
    attributed = lambda jac: jac.norms(definition="attribution")  # noqa: E731
    with pytest.raises(ValueError, match=r"'attribution' cannot be told.*linear_solve"):
        jacobian(*solve(), attributed)


WRAPPED_WHOLE = {
    "checkpoint": jax.checkpoint,
    "scan": lambda f: (
        lambda p: lax.scan(
            lambda c, _: (f(p), None), jnp.zeros((B, CLASSES)), None, length=1
        )[0]
    ),
    "cond": lambda f: lambda p: lax.cond(p["w"].sum() < 1e9, f, lambda p: 0 * f(p), p),
    "fori_loop": lambda f: (
        lambda p: lax.fori_loop(0, 1, lambda _, h: f(p), jnp.zeros((B, CLASSES)))
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("wrap", WRAPPED_WHOLE.values(), ids=WRAPPED_WHOLE)
@pytest.mark.parametrize("concrete", [True, False])
def test_statistics_of_the_first_layer_are_found_in_control_flow(wrap, concrete):
    """The first layer's input has no derivative, its statistics have one."""
    params = {"w": _array(2, 5, 6), "v": _array(3, 6, CLASSES)}

    def norms(x, definition):
        def body(p):
            h = x @ p["w"]
            centred = h - h.mean(0, keepdims=True)
            return (centred * lax.rsqrt(h.var(0, keepdims=True) + 1e-3)) @ p["v"]

        def losses_fn(p):
            return _cross_entropy(wrap(body)(p))

        rows = jax.tree.leaves(jax.jit(jax.jacrev(losses_fn))(params))
        expected = sum(jnp.square(r).reshape(B, -1).sum(1) for r in rows)
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.norms(definition=definition), jnp.sqrt(expected)

    x = _array(1, B, 5)
    call = norms if concrete else jax.jit(norms, static_argnums=1)
    np.testing.assert_allclose(*call(x, "row"), atol=1e-10)
    for definition in ("frozen", "attribution"):
        with pytest.raises(
            ValueError, match=r"for all examples at once.*stop_gradient"
        ):
            call(x, definition)


def test_products_inside_cond_leave_nothing_behind():
    losses_fn, params = mlp()

    @jax.jit
    def step(params, on):
        _, jac = ltjax.linearize(losses_fn, params)
        dots = lax.cond(on, lambda: jac.jvp(params), lambda: jnp.zeros(B))
        norms = lax.cond(on, lambda: jac.norms(), lambda: jnp.zeros(B))
        return dots, norms, jac.vjp(jnp.ones(B))

    @jax.jit
    def plain(params):
        _, jac = ltjax.linearize(losses_fn, params)
        gradient = jax.grad(lambda p: losses_fn(p).sum())(params)
        return jac.jvp(params), jac.norms(), gradient

    *products, gradient = step(params, True)
    *expected, total = plain(params)
    np.testing.assert_allclose(products, expected, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(total), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_examples_mapped_one_by_one_are_intercepted():
    losses_fn, params = mlp()
    x = _array(1, B, 5)

    def loss_fn(p, example):
        x, y = example
        logits = jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    @jax.jit
    def mapped(params):
        losses, jac = ltjax.linearize_examples(loss_fn, params, (x, _labels()))
        assert jac.method == "intercept"
        return losses, jac.norms()

    @jax.jit
    def batched(params):
        losses, jac = ltjax.linearize(losses_fn, params)
        return losses, jac.norms()

    np.testing.assert_allclose(mapped(params), batched(params), rtol=1e-5)


def _flops(fun, *args):
    return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]


def test_dots_cost_a_third_of_a_step():
    x = jnp.ones((32, 64))
    params = [jnp.ones((64, 64))] * 4

    def losses_fn(params):
        h = x
        for w in params:
            h = jnp.tanh(h @ w)
        return h.sum(1)

    def sgd(params, v):
        return jax.grad(lambda p: losses_fn(p).mean())(params)

    def weighted(params, v):
        losses, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jax.nn.softmax(losses))

    def dots(params, v):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jac.jvp(v))

    def cosines(params, v):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jac.jvp(v) / jac.norms())

    def last(params, v):
        _, jac = ltjax.linearize(losses_fn, params)
        return jac.vjp(jac.jvp([optax.MaskedNode()] * 3 + v[3:]))

    step = _flops(sgd, params, params)
    assert _flops(weighted, params, params) <= 1.03 * step
    assert _flops(dots, params, params) <= 1.43 * step
    assert _flops(cosines, params, params) <= 1.5 * step
    assert _flops(last, params, params) <= 1.15 * step


def test_definitions_agree_for_examples_that_cannot_be_intercepted(x64):
    """A checkpoint of most of the model falls back; examples stay independent."""
    x, params = jax.random.normal(jax.random.key(0), (4, 3)), jnp.eye(3)

    def loss_fn(p, example):
        step = jax.checkpoint(lambda h: jnp.tanh(p @ h))
        return step(step(example)).sum()

    @jax.jit
    def norms(params):
        _, jac = ltjax.linearize_examples(loss_fn, params, x)
        assert jac.method == "linearize"
        definitions = (None, "row", "frozen", "attribution")
        return [jac.norms(definition=definition) for definition in definitions]

    rows = jax.jit(jax.vmap(jax.grad(loss_fn), (None, 0)))(params, x)
    expected = np.linalg.norm(rows.reshape(4, -1), axis=1)
    for found in norms(params):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stacks_keep_examples_apart(x64, axis):
    params = {"w": _array(1, 3, 3), "b": _array(2, 3)}
    x = _array(3, B, 3)

    def losses_fn(p):
        h, b = jnp.tanh(x @ p["w"]), p["b"][None]
        stacked = jnp.stack([h, h * b, h + b], axis)
        first, _, last = jnp.unstack(jnp.sin(stacked), axis=axis)
        return (first * last).sum(1)

    @jax.jit
    def both(params):
        _, jac = ltjax.linearize(losses_fn, params, method="intercept")
        return jac.dense(), jax.jacrev(losses_fn)(params)

    found, expected = map(jax.tree.leaves, both(params))
    for got, rows in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, rows, rtol=1e-10, atol=1e-12)
