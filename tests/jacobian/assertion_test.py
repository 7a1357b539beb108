"""Functions that are asserted to keep examples apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

import ltjax
from tests.jacobian.reference import array, assert_products, dense, flat, jacobian

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


def _wrap_nothing(f):
    return f


def transformer(attend, kernel=_wrap_nothing, layer=_wrap_nothing, loop=False):
    """Two layers of attention, in a loop perhaps, and losses of examples.

    Args:
      attend: the kernel.
      kernel: what is around it, such as `jax.checkpoint`.
      layer: what is around a layer.
      loop: whether layers are in a `lax.scan`.
    """
    x = array(1, B, STEPS, WIDTH)

    @layer
    def one(h, w):
        mask = jnp.tril(jnp.ones((STEPS, STEPS), bool))  # which the kernel closes over
        q, k, v = jnp.moveaxis(jnp.einsum("btd,ndk->nbtk", h, w), 0, 0)
        masked = kernel(lambda q, k, v: jnp.where(mask[0, 0], attend(q, k, v), 0))
        return masked(q, k, v) + h

    def losses_fn(p):
        if loop:
            h, _ = jax.lax.scan(lambda h, w: (one(h, w), None), x, p["w"])
        else:
            h = one(one(x, p["w"][0]), p["w"][1])
        return jnp.square(h @ p["out"]).sum((1, 2))

    return losses_fn


def _params():
    return {"w": array(2, 2, 3, WIDTH, WIDTH) / 3, "out": array(3, WIDTH, 2)}


@pytest.mark.parametrize(
    "wrap", [_wrap_nothing, jax.checkpoint], ids=["", "checkpoint"]
)
@pytest.mark.parametrize("loop", [False, True], ids=["", "scan"])
def test_a_kernel_is_intercepted(loop, wrap):
    def kernel(fun):
        return wrap(ltjax.independent(fun))

    losses_fn = transformer(attention, kernel, loop=loop)
    told = jacobian(losses_fn, _params())
    assert told.method == "intercept"
    assert "independent, as asserted of <lambda>;" in told.reason
    assert_products(losses_fn, _params(), rows_of=transformer(_attend))


@pytest.mark.parametrize("loop", [False, True], ids=["", "scan"])
def test_norms_of_a_checkpointed_layer(loop):
    """Its products with directions have no forward mode."""
    losses_fn = transformer(attention, ltjax.independent, jax.checkpoint, loop)
    params = _params()
    told = jacobian(losses_fn, params)
    assert told.method == "linearize"
    assert "a custom_vjp of parameters has no tangents" in told.reason

    @jax.jit
    def products(params):
        losses, jac = ltjax.linearize(losses_fn, params)
        return jac.norms(), jac.vjp(losses), losses

    norms, weighted, losses = products(params)
    rows = dense(transformer(_attend), params)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-9)
    np.testing.assert_allclose(flat(weighted), losses @ rows, rtol=1e-9)


def test_nothing_is_known_of_a_kernel():
    told = jacobian(transformer(attention), _params())
    assert told.method == "linearize"
    assert "known to stay apart in custom_vjp_call (assertion_test.py" in told.reason


def test_an_outer_vmap_ignores_the_assertion():
    """Axis 1 of the function is axis 2 then, and axis 1 that of vmap."""
    shifted = jax.vmap(ltjax.independent(lambda h: h + jnp.roll(h, 1, 0), 1, 1), 1, 1)
    x, w = array(1, WIDTH, WIDTH, WIDTH), array(2, WIDTH, WIDTH)

    def losses_fn(w):
        return jnp.square(shifted(x @ w)).sum((0, 2))

    assert "asserted" not in jacobian(losses_fn, w).reason
    assert_products(losses_fn, w, definition="row")


def test_what_the_function_closes_over_may_have_a_gradient():
    x, params = array(1, B, WIDTH), {"w": array(2, WIDTH, 3), "s": array(3, 3)}

    def losses_fn(p):
        scaled = ltjax.independent(lambda h: h * jnp.tanh(p["s"])[None])
        return jnp.square(scaled(x @ p["w"])).sum(1)

    assert_products(losses_fn, params, definition="row")


def test_a_table_that_all_examples_share():
    """It is no batch statistic, though it has a row for every example."""
    table = array(5, WIDTH, WIDTH)
    turned = ltjax.independent(lambda h, t: h @ t, (0, None))
    x, w = array(1, WIDTH, WIDTH), array(2, WIDTH, WIDTH)

    def losses_fn(w):
        return jnp.square(turned(x @ w, table)).sum(1)

    assert "examples are independent, as asserted" in jacobian(losses_fn, w).reason
    assert_products(losses_fn, w)
    assert_products(losses_fn, w, definition="frozen")


def test_an_assertion_that_was_not_needed_is_not_named():
    x, w = array(1, B, WIDTH), array(2, WIDTH, WIDTH)
    double = ltjax.independent(lambda h: h * 2, 1, 1)
    told = jacobian(lambda w: double(x @ w).sum(1), w)
    assert told.method == "intercept"
    assert "asserted" not in told.reason


def test_arguments_and_results_that_are_none():
    x, w = array(1, B, WIDTH), array(2, WIDTH, WIDTH)
    fun = ltjax.independent(lambda h, mask=None: (h * 2, None), (0, None))

    def losses_fn(w):
        return jnp.square(fun(jnp.tanh(x @ w), None)[0]).sum(1)

    assert_products(losses_fn, w)


def test_integers_and_results_on_other_axes():
    x, w = array(1, B, WIDTH), array(2, WIDTH, WIDTH)
    fun = ltjax.independent(
        lambda h, n: (jnp.where(n[:, None] > 1, h, 2 * h), (h + 1).T, n), 0, (0, 1, 0)
    )

    def losses_fn(w):
        first, second, n = fun(jnp.tanh(x @ w), jnp.arange(B))
        return jnp.square(first + jnp.sin(second).T).sum(1) * n.astype(x.dtype)

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

    assert "custom_vjp of parameters" in jacobian(losses_fn, params).reason
    assert_products(losses_fn, params, definition="row")


def test_check_finds_a_false_assertion():
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


def test_it_looks_like_the_function():
    def attend(q):
        """Attention."""
        return q

    fun = ltjax.independent(attend, [0])
    assert (fun.__name__, fun.__doc__) == ("attend", "Attention.")
    assert jnp.array_equal(fun(jnp.ones(3)), jnp.ones(3))


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        (((0, 0, 0), 0), ValueError, r"in_axes must be a prefix .*got \(0, 0, 0\)"),
        ((0, (0, 0)), ValueError, r"out_axes must be a prefix .*got \(0, 0\)"),
        ((2, 0), ValueError, r"in_axes must be axes of the arrays, got 2 for \(4, 5\)"),
        (((0, 1), 0), ValueError, r"one size, got \[4, 5\] in arguments and \[4\] in"),
        (
            (0, 1),
            ValueError,
            r"one size, got \[4, 4\] in arguments and \[5\] in",
        ),
        (
            (None, None),
            ValueError,
            "in_axes must name an axis of the examples",
        ),
        (("a", 0), TypeError, "in_axes must hold integers or None, got 'a'"),
        ((True, 0), TypeError, "in_axes must hold integers or None, got True"),
    ],
)
def test_axes_that_do_not_fit(axes, error, message):
    fun = ltjax.independent(jnp.add, *axes)
    with pytest.raises(error, match=message):
        fun(jnp.zeros((B, WIDTH)), jnp.zeros((B, WIDTH)))


def test_what_is_no_function():
    with pytest.raises(TypeError, match="fun must be a function, got int"):
        ltjax.independent(3)
