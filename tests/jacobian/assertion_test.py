"""Functions that are said to keep examples apart."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

import ltjax
from tests.jacobian.reference import array, assert_products, dense, jacobian

pytestmark = pytest.mark.usefixtures("x64")

B, STEPS, WIDTH = 4, 3, 5


def _attend(q, k, v):
    return jax.nn.softmax(q @ k.mT) @ v


def _kernel(q, k, v, out):
    out[...] = _attend(q[...], k[...], v[...])


def _backward_kernel(q, k, v, d, *out):
    _, pullback = jax.vjp(_attend, q[...], k[...], v[...])
    for ref, cotangent in zip(out, pullback(d[...]), strict=True):
        ref[...] = cotangent


def _called(kernel, results, *operands):
    """A kernel on one example after the other."""
    block = pl.BlockSpec((1, STEPS, WIDTH), lambda i: (i, 0, 0))
    shape = jax.ShapeDtypeStruct(operands[0].shape, operands[0].dtype)
    return pl.pallas_call(
        kernel,
        out_shape=[shape] * results,
        grid=(len(operands[0]),),
        in_specs=[block] * len(operands),
        out_specs=[block] * results,
        interpret=True,
    )(*operands)


@jax.custom_vjp
def attention(q, k, v):
    return _called(_kernel, 1, q, k, v)[0]


attention.defvjp(
    lambda q, k, v: (attention(q, k, v), (q, k, v)),
    lambda operands, d: tuple(_called(_backward_kernel, 3, *operands, d)),
)


def transformer(attend, wrap=lambda f: f, loop=False):
    """Two layers of attention, in a loop perhaps, and losses of examples."""
    x = array(1, B, STEPS, WIDTH)

    def layer(h, w):
        q, k, v = jnp.moveaxis(jnp.einsum("btd,ndk->nbtk", h, w), 0, 0)
        return wrap(attend)(q, k, v) + h, None

    def losses_fn(p):
        if loop:
            h, _ = jax.lax.scan(layer, x, p["w"])
        else:
            h = layer(layer(x, p["w"][0])[0], p["w"][1])[0]
        return jnp.square(h @ p["out"]).sum((1, 2))

    return losses_fn


def _params():
    return {"w": array(2, 2, 3, WIDTH, WIDTH) / 3, "out": array(3, WIDTH, 2)}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["", "checkpoint"])
@pytest.mark.parametrize("loop", [False, True], ids=["", "scan"])
def test_a_kernel_is_intercepted(loop, wrap):
    losses_fn = transformer(ltjax.independent(attention), wrap, loop)
    told = jacobian(losses_fn, _params())
    assert told.method == "intercept"
    # A checkpoint around the function itself knows no line that calls it.
    line = "" if wrap is jax.checkpoint else " (assertion_test.py:"
    assert f"as asserted of custom_vjp_call{line}" in told.reason
    assert_products(losses_fn, _params(), rows_of=transformer(_attend))


def test_without_a_word_nothing_is_known_of_a_kernel():
    assert jacobian(transformer(attention), _params()).method == "linearize"


def test_vmap_takes_the_word_back():
    """It would be about other axes then."""
    per_step = jax.vmap(ltjax.independent(jnp.fft.irfft), 1, 1)
    x, w = array(1, B, STEPS, WIDTH), array(2, WIDTH, WIDTH)

    def losses_fn(w):
        return jnp.square(per_step(x @ w)).sum((1, 2))

    assert "asserted" not in jacobian(losses_fn, w).reason
    assert_products(losses_fn, w)


def _system():
    return jnp.eye(WIDTH) + 0.1 * array(5, WIDTH, WIDTH)


def _by_rows(h):
    return ltjax.independent(lambda h: jnp.linalg.solve(_system(), h.T).T)(h)


def _by_columns(h):
    return ltjax.independent(lambda h: jnp.linalg.solve(_system(), h), 1, 1)(h.T).T


def _tree(h):
    def fun(scale, xs):
        return {"sum": xs["h"] * scale + xs["k"].T, "mean": xs["h"].mean()}

    axes = (None, {"h": 0, "k": -1}), {"sum": 0, "mean": None}
    return ltjax.independent(fun, *axes)(jnp.float64(2), {"h": h, "k": h.T})


_shared = ltjax.independent(lambda h: h * h.sum(1, keepdims=True))

CASES = {
    "a system of equations": ("intercept", _by_rows),
    "examples on the last axis": ("intercept", _by_columns),
    "trees of axes": ("intercept", lambda h: _tree(h)["sum"]),
    "a result that mixes them": ("linearize", lambda h: h * _tree(h)["mean"]),
    "another axis than that of examples": ("linearize", lambda h: _shared(h.T).T),
}


@pytest.mark.parametrize(("method", "fun"), CASES.values(), ids=CASES)
def test_axes(method, fun):
    x, w = array(1, WIDTH, WIDTH), array(2, WIDTH, WIDTH)

    def losses_fn(w):
        return jnp.square(fun(jnp.tanh(x @ w))).sum(1)

    assert jacobian(losses_fn, w).method == method
    definition = None if method == "intercept" else "row"
    assert_products(losses_fn, w, definition=definition)


def test_parameters_may_be_arguments():
    scaled = ltjax.independent(lambda h, s: h * jnp.tanh(s)[None], in_axes=(0, None))
    x, params = array(1, B, WIDTH), {"w": array(2, WIDTH, 3), "s": array(3, 3)}

    def losses_fn(p):
        return jnp.square(scaled(x @ p["w"], p["s"])).sum(1)

    assert_products(losses_fn, params, definition="row")


def test_check_finds_a_false_word():
    mixed = ltjax.independent(lambda h: h + h.mean(0, keepdims=True))
    x, w = array(1, B, WIDTH), array(2, WIDTH, 3)

    def losses_fn(w):
        return jnp.square(mixed(x @ w)).sum(1)

    found = ltjax.check(losses_fn, w, key=jax.random.key(0))
    assert not found.ok


def test_values_and_gradients_are_those_of_the_function():
    fun = ltjax.independent(jnp.outer, (0, None), 0)
    x, y = array(1, B), array(2, 3)
    assert jnp.array_equal(fun(x, y), jnp.outer(x, y))
    rows = dense(lambda y: fun(x, y).sum(1), y)
    assert jnp.allclose(rows, jnp.broadcast_to(x[:, None], (B, 3)))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (((0, 0, 0), 0), r"in_axes must be a prefix of the tree .*got \(0, 0, 0\)"),
        ((0, (0, 0)), r"out_axes must be a prefix of the tree .*got \(0, 0\)"),
        ((2, 0), r"in_axes must be axes, got 2 for shape \(4, 5\)"),
        (((0, 1), 0), r"axes of one size, got sizes \[4, 5\]"),
        ((0, 1), r"axes of one size, got sizes \[4, 5\]"),
        ((None, None), "in_axes must name an axis of the examples, got None alone"),
    ],
)
def test_axes_that_do_not_fit(axes, message):
    fun = ltjax.independent(jnp.add, *axes)
    with pytest.raises(ValueError, match=message):
        fun(jnp.zeros((B, WIDTH)), jnp.zeros((B, WIDTH)))


def test_what_is_no_function():
    with pytest.raises(TypeError, match="fun must be a function, got int"):
        ltjax.independent(3)
