"""The Jacobian as an operator: any parameters, any context, one forward pass."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

import ltjax
from tests.jacobian.operator_problem import (
    CLASSES,
    B,
    array,
    coupled,
    dots_of,
    labels,
    losses_fn,
    nested,
    norms_of,
    outputs_and_rows,
    rows_of,
)
from tests.jacobian.reference import flops


def _check(fun, params, tolerance, method="auto", ndim=1):
    """All products against dense rows."""
    expected, rows = outputs_and_rows(fun, params)
    direction = jax.tree.map(lambda p: array(p.size, *p.shape).astype(p.dtype), params)

    @jax.jit
    def products(params, direction):
        outputs, jac = ltjax.linearize(fun, params, method=method)
        weights = array(7, *outputs.shape).astype(outputs.dtype)
        norms = jac.norms(definition="row", chunk_size=3)
        return (
            outputs,
            jac.jvp(direction),
            weights,
            jac.vjp(weights),
            norms,
            jac.dense(),
        )

    outputs, dots, weights, gradient, norms, dense = products(params, direction)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    assert dots.dtype == outputs.dtype
    close = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(outputs, expected, **close)
    np.testing.assert_allclose(dots, dots_of(rows, direction), **close)
    np.testing.assert_allclose(norms, norms_of(rows, ndim), **close)
    chex.assert_trees_all_close(dense, rows, **close)
    expected = jax.tree.map(
        lambda r: np.tensordot(np.asarray(weights, r.dtype), r, ndim), rows
    )
    chex.assert_trees_all_close(gradient, expected, **close)


@pytest.mark.parametrize("method", ["auto", "linearize"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.06)]
)
def test_any_tree_in_float32_and_bfloat16(dtype, tolerance, method):
    params = nested(dtype)
    if dtype == jnp.bfloat16:
        rows = rows_of(losses_fn, params)

        @jax.jit
        def products(params):
            _, jac = ltjax.linearize(losses_fn, params, method=method)
            return jac.jvp(params), jac.norms(), jac.vjp(jnp.ones(B, dtype))

        dots, norms, gradient = products(params)
        assert dots.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            dots.astype(np.float32), dots_of(rows, params), atol=tolerance
        )
        assert norms.dtype == jnp.float32
        np.testing.assert_allclose(norms, norms_of(rows), atol=tolerance)
        chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    else:
        _check(losses_fn, params, tolerance, method)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["auto", "linearize"])
def test_any_tree_in_float64(method):
    _check(losses_fn, nested(np.float64), 1e-12, method)


@pytest.mark.usefixtures("x64")
def test_coupled_rows_are_exact():
    _check(coupled, nested(np.float64), 1e-11)


def test_outputs_of_any_shape():
    def logits(params):
        return jnp.tanh(array(0, B, 4) @ params)

    _check(logits, array(1, 4, 2), 1e-5, ndim=2)
    _check(
        lambda w: logits(w)[:, :, None] * jnp.ones((1, 1, 2)),
        array(1, 4, 2),
        1e-5,
        ndim=3,
    )


def test_batch_norm_in_training():
    x = array(0, B, 5, 5, 2)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(3, (3, 3))(x)))
            return nn.Dense(CLASSES)(x.mean((1, 2)))

    variables = jax.jit(Net().init)(jax.random.key(0), x)

    def losses_fn(params):
        logits, new = Net().apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            x,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels())
        return losses, new

    @jax.jit
    def products(params):
        losses, jac, new = ltjax.linearize(losses_fn, params, has_aux=True)
        assert jac.method == "linearize"
        norms = jac.norms(definition="row", chunk_size=3)
        return losses, new, jac.jvp(params), norms, jac.vjp(losses)

    params = variables["params"]
    losses, new, dots, norms, gradient = products(params)
    _, expected = jax.jit(losses_fn)(params)
    chex.assert_trees_all_close(new, expected, rtol=1e-5)
    rows = rows_of(lambda p: losses_fn(p)[0], params)
    np.testing.assert_allclose(dots, dots_of(rows, params), atol=1e-5)
    np.testing.assert_allclose(norms, norms_of(rows), rtol=1e-4)
    chex.assert_trees_all_close(
        gradient,
        jax.tree.map(lambda r: np.tensordot(losses, r, 1), rows),
        atol=1e-4,
    )


def test_nnx_state_with_statistics():
    x = array(0, B, 4)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(4, 5, rngs=rngs)
            self.norm = nnx.BatchNorm(5, rngs=rngs)
            self.outer = nnx.Linear(5, CLASSES, rngs=rngs)

        def __call__(self, x):
            return self.outer(nnx.relu(self.norm(self.inner(x))))

    graph, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)

    def losses_fn(params):
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels())
        return losses, nnx.state(model, nnx.BatchStat)

    def step(params):
        losses, jac, new = ltjax.linearize(losses_fn, params, has_aux=True)
        return jac.vjp(losses), new

    def plain(params):
        losses, vjp, new = jax.vjp(losses_fn, params, has_aux=True)
        return vjp(losses)[0], new

    gradient, new = jax.jit(step)(params)
    exact, expected = jax.jit(plain)(params)
    chex.assert_trees_all_close(new, expected, rtol=1e-5)
    chex.assert_trees_all_close(gradient, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fun", [losses_fn, coupled])
def test_aux_is_returned_whole(fun):
    def losses_fn(params):
        losses = fun(params)
        return losses, {"mean": losses.mean(), "name": "run", "hole": None, "n": 3}

    params = nested()
    losses, _, aux = ltjax.linearize(losses_fn, params, has_aux=True)
    np.testing.assert_allclose(aux.pop("mean"), losses.mean(), rtol=1e-6)
    assert aux == {"name": "run", "hole": None, "n": 3}


@pytest.mark.parametrize("fun", [losses_fn, coupled])
def test_under_vmap_and_scan(x64, fun):
    tree = nested(np.float64)
    params = [tree, jax.tree.map(lambda p: p * 1.1, tree)]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *params)

    def step(p):
        losses, jac = ltjax.linearize(fun, p)
        return jac.vjp(jac.jvp(p) / jac.norms(definition="row")), losses

    expected = [jax.jit(step)(p) for p in params]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *expected)
    chex.assert_trees_all_close(
        jax.jit(jax.vmap(step))(stacked), expected, rtol=1e-10, atol=1e-12
    )
    _, scanned = jax.jit(lambda s: lax.scan(lambda _, p: (None, step(p)), None, s))(
        stacked
    )
    chex.assert_trees_all_close(scanned, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "linearize"])
def test_one_forward_pass_is_shared(method):
    x = jnp.ones((16, 32))
    params = [jnp.ones((32, 32))] * 3

    def losses_fn(params):
        h = x
        for w in params:
            h = jnp.tanh(h @ w)
        return h.sum(1)

    def step(params, direction):
        _, jac = ltjax.linearize(losses_fn, params, method=method)
        return jac.vjp(jac.jvp(direction))

    def gradient(params):
        return jax.grad(lambda p: losses_fn(p).sum())(params)

    forward = flops(losses_fn, params)
    both = flops(gradient, params)
    tangent = flops(lambda p, v: jax.jvp(losses_fn, (p,), (v,)), params, params)
    assert flops(step, params, params) <= 1.02 * (both + tangent - forward)


def test_masked_directions_cost_their_part():
    x = jnp.ones((16, 32))
    params = [jnp.ones((32, 32))] * 3
    last = [optax.MaskedNode(), optax.MaskedNode(), params[2]]

    def losses_fn(params):
        h = x
        for w in params:
            h = jnp.tanh(h @ w)
        return h.sum(1)

    for method in ("auto", "linearize"):

        def dots(p, method=method):
            return ltjax.linearize(losses_fn, p, method=method)[1].jvp(last)

        assert flops(dots, params) <= 1.5 * flops(losses_fn, params)
        zeros = [jnp.zeros_like(params[0])] * 2
        expected = jax.jvp(losses_fn, (params,), ([*zeros, params[2]],))[1]
        np.testing.assert_allclose(dots(params), expected, rtol=1e-5)


def test_norms_of_a_subset():
    params = nested()
    rows = rows_of(losses_fn, params)
    mask = {"layers": [True, False], "scale": False, "nothing": None}
    for method in ("auto", "linearize"):

        @jax.jit
        def norms(params, method=method):
            _, jac = ltjax.linearize(losses_fn, params, method=method)
            return jac.norms(mask=mask), jac.norms(mask=False)

        some, none = norms(params)
        np.testing.assert_allclose(some, norms_of(rows["layers"][0]), rtol=1e-5)
        np.testing.assert_allclose(none, np.zeros(B))


def test_bad_masks_are_named():
    def norms(mask):
        jax.eval_shape(
            lambda p: ltjax.linearize(losses_fn, p)[1].norms(mask=mask), nested()
        )

    with pytest.raises(TypeError, match="mask must hold Python booleans, got 1"):
        norms({"layers": 1, "scale": True, "nothing": None})
    with pytest.raises(ValueError, match="mask must have the structure of params"):
        norms({"scale": True})


def test_materialised_rows_behave_alike():
    params = nested()

    @jax.jit
    def products(params):
        losses, jac = ltjax.linearize(losses_fn, params)
        held = ltjax.Jacobian.from_rows(jac.dense(), params, (B,))
        assert held.method == "rows"
        return [(j.jvp(params), j.norms(), j.vjp(losses)) for j in (held, jac)]

    held, jac = products(params)
    np.testing.assert_allclose(held[0], jac[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(held[1], jac[1], rtol=1e-5)
    chex.assert_trees_all_close(held[2], jac[2], rtol=1e-4, atol=1e-6)


def test_averaged_gradient_is_refused():
    params = {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"updates\['.'\] has the shape.*averaged"):
        ltjax.Jacobian.from_rows(params, params, (3,))


BAD_CALLS = {
    "averaged loss": (
        lambda: ltjax.linearize(lambda p: losses_fn(p).mean(), nested()),
        ValueError,
        r"one loss per example.*scalar",
    ),
    "integer output": (
        lambda: ltjax.linearize(lambda p: jnp.arange(3), nested()),
        TypeError,
        "must return floating point, got int32",
    ),
    "two outputs": (
        lambda: ltjax.linearize(lambda p: (losses_fn(p), 1), nested()),
        TypeError,
        "must return one array.*got tuple",
    ),
    "no aux": (
        lambda: ltjax.linearize(losses_fn, nested(), has_aux=True),
        TypeError,
        r"must return \(losses, aux\) with has_aux=True",
    ),
    "integer parameter": (
        lambda: ltjax.linearize(losses_fn, {"w": jnp.arange(3)}),
        TypeError,
        r"params\['w'\] must be floating point, got int32",
    ),
    "method": (
        lambda: ltjax.linearize(losses_fn, nested(), method="hooks"),
        ValueError,
        "method must be one of 'auto'.*got 'hooks'",
    ),
    "direction": (
        lambda: ltjax.linearize(losses_fn, nested())[1].jvp({"scale": 1.0}),
        ValueError,
        "direction must have the structure of params",
    ),
    "direction's shape": (
        lambda: ltjax.linearize(jnp.tanh, jnp.ones(3))[1].jvp(jnp.ones(4)),
        ValueError,
        r"direction must have shape \(3,\), got \(4,\)",
    ),
    "cotangents": (
        lambda: ltjax.linearize(losses_fn, nested())[1].vjp(jnp.ones(B + 1)),
        ValueError,
        r"cotangents must have shape \(8,\), got \(9,\)",
    ),
    "cotangents' dtype": (
        lambda: ltjax.linearize(losses_fn, nested())[1].vjp(jnp.ones(B, jnp.int32)),
        TypeError,
        "cotangents must have floating dtype, got int32",
    ),
    "chunks": (
        lambda: ltjax.linearize(losses_fn, nested())[1].norms(chunk_size=0),
        ValueError,
        "chunk_size must be at least 1, got 0",
    ),
    "empty batch": (
        lambda: ltjax.linearize_examples(lambda p, x: p * x, 1.0, jnp.ones(0)),
        ValueError,
        "batch must not be empty",
    ),
    "no batch": (
        lambda: ltjax.linearize_examples(lambda p, x: p, 1.0, ()),
        ValueError,
        "batch must hold at least one array",
    ),
    "ragged batch": (
        lambda: ltjax.linearize_examples(
            lambda p, x: p, 1.0, {"x": jnp.ones(3), "y": jnp.ones(4)}
        ),
        ValueError,
        "batch must have one leading axis",
    ),
    "loss per example": (
        lambda: ltjax.linearize_examples(lambda p, x: p * x, 1.0, jnp.ones((3, 2))),
        ValueError,
        r"loss_fn must return a scalar for one example, got shape \(2,\)",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_are_named(case):
    call, error, message = BAD_CALLS[case]
    with pytest.raises(error, match=message):
        jax.eval_shape(call)
