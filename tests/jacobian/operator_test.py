"""The Jacobian as an operator: any parameters, any context, one forward pass."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ltjax

B, CLASSES = 8, 3


def _array(seed, *shape, dtype=np.float32):
    values = np.random.default_rng(seed).normal(size=shape) / 2
    return jnp.asarray(values.astype(np.float32)).astype(dtype)


def _labels():
    return jnp.arange(B) % CLASSES


def _tree(dtype=np.float32):
    """Nested parameters with a scalar and holes."""
    return {
        "layers": [
            {"w": _array(1, 4, 5, dtype=dtype), "b": _array(2, 5, dtype=dtype)},
            (_array(3, 5, CLASSES, dtype=dtype), None),
        ],
        "scale": jnp.asarray(1.5, dtype),
        "nothing": None,
    }


def _losses(params, x=None):
    x = _array(0, B, 4, dtype=params["scale"].dtype) if x is None else x
    first, (w, _) = params["layers"]
    h = jnp.tanh(x @ first["w"] + first["b"][None])
    return optax.softmax_cross_entropy_with_integer_labels(
        h @ w * params["scale"], _labels()
    )


def _coupled(params):
    """Every loss depends on the statistics of the batch."""
    x = _array(0, B, 4, dtype=params["scale"].dtype)
    first, (w, _) = params["layers"]
    h = x @ first["w"] + first["b"][None]
    h = (h - h.mean(0, keepdims=True)) / (0.1 + h.std(0, keepdims=True))
    return jnp.square(h @ w * params["scale"]).sum(1)


def _rows(fun, params):
    """Dense rows, one plain backward pass each."""
    return _outputs_and_rows(fun, params)[1]


@functools.partial(jax.jit, static_argnums=0)
def _outputs_and_rows(fun, params):
    outputs, vjp = jax.vjp(fun, params)
    basis = jnp.eye(outputs.size, dtype=outputs.dtype)
    rows = lax.map(lambda e: vjp(e.reshape(outputs.shape))[0], basis)
    return outputs, jax.tree.map(
        lambda r: r.reshape(*outputs.shape, *r.shape[1:]), rows
    )


def _dots(rows, direction):
    return sum(
        np.tensordot(np.asarray(r, np.float64), np.asarray(v, np.float64), v.ndim)
        for r, v in zip(jax.tree.leaves(rows), jax.tree.leaves(direction), strict=True)
    )


def _norms(rows, ndim=1):
    squares = [
        np.square(np.asarray(r, np.float64)).sum(tuple(range(ndim, r.ndim)))
        for r in jax.tree.leaves(rows)
    ]
    return np.sqrt(sum(squares))


def _check(fun, params, tolerance, method="auto", ndim=1):
    """All products against dense rows."""
    expected, rows = _outputs_and_rows(fun, params)
    direction = jax.tree.map(lambda p: _array(p.size, *p.shape).astype(p.dtype), params)

    @jax.jit
    def products(params, direction):
        outputs, jac = ltjax.linearize(fun, params, method=method)
        weights = _array(7, *outputs.shape).astype(outputs.dtype)
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
    np.testing.assert_allclose(dots, _dots(rows, direction), **close)
    np.testing.assert_allclose(norms, _norms(rows, ndim), **close)
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
    params = _tree(dtype)
    if dtype == jnp.bfloat16:
        rows = _rows(_losses, params)

        @jax.jit
        def products(params):
            _, jac = ltjax.linearize(_losses, params, method=method)
            return jac.jvp(params), jac.norms(), jac.vjp(jnp.ones(B, dtype))

        dots, norms, gradient = products(params)
        assert dots.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            dots.astype(np.float32), _dots(rows, params), atol=tolerance
        )
        assert norms.dtype == jnp.float32
        np.testing.assert_allclose(norms, _norms(rows), atol=tolerance)
        chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    else:
        _check(_losses, params, tolerance, method)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["auto", "linearize"])
def test_any_tree_in_float64(method):
    _check(_losses, _tree(np.float64), 1e-12, method)


@pytest.mark.usefixtures("x64")
def test_coupled_rows_are_exact():
    _check(_coupled, _tree(np.float64), 1e-11)


def test_outputs_of_any_shape():
    def logits(params):
        return jnp.tanh(_array(0, B, 4) @ params)

    _check(logits, _array(1, 4, 2), 1e-5, ndim=2)
    _check(
        lambda w: logits(w)[:, :, None] * jnp.ones((1, 1, 2)),
        _array(1, 4, 2),
        1e-5,
        ndim=3,
    )


def test_batch_norm_in_training():
    x = _array(0, B, 5, 5, 2)

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
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, _labels())
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
    rows = _rows(lambda p: losses_fn(p)[0], params)
    np.testing.assert_allclose(dots, _dots(rows, params), atol=1e-5)
    np.testing.assert_allclose(norms, _norms(rows), rtol=1e-4)
    chex.assert_trees_all_close(
        gradient,
        jax.tree.map(lambda r: np.tensordot(losses, r, 1), rows),
        atol=1e-4,
    )


def test_nnx_state_with_statistics():
    x = _array(0, B, 4)

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
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, _labels())
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


@pytest.mark.parametrize("fun", [_losses, _coupled])
def test_aux_is_returned_whole(fun):
    def losses_fn(params):
        losses = fun(params)
        return losses, {"mean": losses.mean(), "name": "run", "hole": None, "n": 3}

    params = _tree()
    losses, _, aux = ltjax.linearize(losses_fn, params, has_aux=True)
    np.testing.assert_allclose(aux.pop("mean"), losses.mean(), rtol=1e-6)
    assert aux == {"name": "run", "hole": None, "n": 3}


@pytest.mark.parametrize("fun", [_losses, _coupled])
def test_under_vmap_and_scan(x64, fun):
    tree = _tree(np.float64)
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


def _flops(fun, *args):
    return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]


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

    forward = _flops(losses_fn, params)
    both = _flops(gradient, params)
    tangent = _flops(lambda p, v: jax.jvp(losses_fn, (p,), (v,)), params, params)
    assert _flops(step, params, params) <= 1.02 * (both + tangent - forward)


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

        assert _flops(dots, params) <= 1.5 * _flops(losses_fn, params)
        zeros = [jnp.zeros_like(params[0])] * 2
        expected = jax.jvp(losses_fn, (params,), ([*zeros, params[2]],))[1]
        np.testing.assert_allclose(dots(params), expected, rtol=1e-5)


def test_norms_of_a_subset():
    params = _tree()
    rows = _rows(_losses, params)
    mask = {"layers": [True, False], "scale": False, "nothing": None}
    for method in ("auto", "linearize"):

        @jax.jit
        def norms(params, method=method):
            _, jac = ltjax.linearize(_losses, params, method=method)
            return jac.norms(mask=mask), jac.norms(mask=False)

        some, none = norms(params)
        np.testing.assert_allclose(some, _norms(rows["layers"][0]), rtol=1e-5)
        np.testing.assert_allclose(none, np.zeros(B))


def test_bad_masks_are_named():
    def norms(mask):
        jax.eval_shape(
            lambda p: ltjax.linearize(_losses, p)[1].norms(mask=mask), _tree()
        )

    with pytest.raises(TypeError, match="mask must hold Python booleans, got 1"):
        norms({"layers": 1, "scale": True, "nothing": None})
    with pytest.raises(ValueError, match="mask must have the structure of params"):
        norms({"scale": True})


def test_materialised_rows_behave_alike():
    params = _tree()

    @jax.jit
    def products(params):
        losses, jac = ltjax.linearize(_losses, params)
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


# Sharded batches. jit + batch-sharded vmap(grad) through a convolution is silently
# wrong on some versions of JAX, so references are NumPy's.


def _mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def _numpy_conv(x, kernel):
    """Same-padded cross-correlation, by loops over the window."""
    height, width = kernel.shape[:2]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            seen = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            out += seen @ kernel[i, j]
    return out


def _numpy_rows(x, labels, kernel, head):
    """Gradients per example of the model below, by hand in float64."""
    h = _numpy_conv(x, kernel)
    pooled = np.maximum(h, 0).mean((1, 2))
    z = pooled @ head
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    d = p - np.eye(CLASSES)[labels]
    g_head = pooled[:, :, None] * d[:, None, :]
    d_h = (d @ head.T)[:, None, None, :] * (h > 0) / (h.shape[1] * h.shape[2])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    g_kernel = np.zeros((len(x), *kernel.shape))
    for i in range(3):
        for j in range(3):
            seen = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            g_kernel[:, i, j] = np.einsum("bhwc,bhwo->bco", seen, d_h)
    return {"kernel": g_kernel, "head": g_head}


def _net(params, x):
    h = lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(h).mean((1, 2)) @ params["head"]


def _batched(params, x, y):
    return ltjax.linearize(
        lambda p: optax.softmax_cross_entropy_with_integer_labels(_net(p, x), y), params
    )


def _plain(params, x, y):
    return ltjax.linearize(
        lambda p: optax.softmax_cross_entropy_with_integer_labels(_net(p, x), y),
        params,
        method="linearize",
    )


def _single(params, x, y):
    def loss_fn(p, example):
        x, y = example
        logits = _net(p, x[None])[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return ltjax.linearize_examples(loss_fn, params, (x, y))


def _single_unproven(params, x, y):
    """With a primitive that interception does not know."""

    def loss_fn(p, example):
        x, y = example
        logits = _net(p, x[None])[0]
        logits *= lax.linalg.cholesky(jnp.eye(2) + 0 * logits[0])[0, 0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return ltjax.linearize_examples(loss_fn, params, (x, y))


@pytest.mark.parametrize("make", [_batched, _plain, _single, _single_unproven])
def test_sharded_convolution_equals_numpy(make):
    batch = 16
    params = {"kernel": _array(1, 3, 3, 2, 4), "head": _array(2, 4, CLASSES)}
    x, y = _array(3, batch, 4, 4, 2), jnp.arange(batch) % CLASSES
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    rows = _numpy_rows(np.asarray(x, np.float64), np.asarray(y), **exact)

    mesh = _mesh()
    x, y = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))

    @jax.jit
    def products(params, x, y):
        losses, jac = make(params, x, y)
        return {
            "norms": jac.norms(),
            "chunked": jac.norms(chunk_size=8),
            "dots": jac.jvp(params),
            "gradient": jac.vjp(losses),
            "dense": jac.dense(),
        }, losses

    got, losses = products(params, x, y)
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(got["norms"], _norms(rows), **close)
    np.testing.assert_allclose(got["chunked"], _norms(rows), **close)
    np.testing.assert_allclose(got["dots"], _dots_sorted(rows, exact), **close)
    chex.assert_trees_all_close(got["dense"], rows, **close)
    weighted = {k: np.tensordot(np.asarray(losses), r, 1) for k, r in rows.items()}
    chex.assert_trees_all_close(got["gradient"], weighted, **close)


def _dots_sorted(rows, direction):
    return sum(np.tensordot(rows[k], direction[k], direction[k].ndim) for k in rows)


def test_sharded_dense_model_equals_one_device():
    params = _tree()
    x = _array(0, B, 4)

    @jax.jit
    def products(params, x):
        losses, jac = ltjax.linearize(lambda p: _losses(p, x), params)
        return jac.jvp(params), jac.vjp(losses), jac.norms(), jac.dense()

    losses, rows = _outputs_and_rows(_losses, params)
    mesh = _mesh()
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    dots, gradient, norms, dense = products(replicated, sharded)
    np.testing.assert_allclose(dots, _dots(rows, params), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norms, _norms(rows), rtol=1e-4)
    chex.assert_trees_all_close(dense, rows, rtol=1e-4, atol=1e-5)
    expected = jax.tree.map(lambda r: np.tensordot(losses, r, 1), rows)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-4, atol=1e-5)


BAD_CALLS = {
    "averaged loss": (
        lambda: ltjax.linearize(lambda p: _losses(p).mean(), _tree()),
        ValueError,
        r"one loss per example.*scalar",
    ),
    "integer output": (
        lambda: ltjax.linearize(lambda p: jnp.arange(3), _tree()),
        TypeError,
        "must return floating point, got int32",
    ),
    "two outputs": (
        lambda: ltjax.linearize(lambda p: (_losses(p), 1), _tree()),
        TypeError,
        "must return one array.*got tuple",
    ),
    "no aux": (
        lambda: ltjax.linearize(_losses, _tree(), has_aux=True),
        TypeError,
        r"must return \(losses, aux\) with has_aux=True",
    ),
    "integer parameter": (
        lambda: ltjax.linearize(_losses, {"w": jnp.arange(3)}),
        TypeError,
        r"params\['w'\] must be floating point, got int32",
    ),
    "method": (
        lambda: ltjax.linearize(_losses, _tree(), method="hooks"),
        ValueError,
        "method must be one of 'auto'.*got 'hooks'",
    ),
    "direction": (
        lambda: ltjax.linearize(_losses, _tree())[1].jvp({"scale": 1.0}),
        ValueError,
        "direction must have the structure of params",
    ),
    "direction's shape": (
        lambda: ltjax.linearize(jnp.tanh, jnp.ones(3))[1].jvp(jnp.ones(4)),
        ValueError,
        r"direction must have shape \(3,\), got \(4,\)",
    ),
    "cotangents": (
        lambda: ltjax.linearize(_losses, _tree())[1].vjp(jnp.ones(B + 1)),
        ValueError,
        r"cotangents must have shape \(8,\), got \(9,\)",
    ),
    "cotangents' dtype": (
        lambda: ltjax.linearize(_losses, _tree())[1].vjp(jnp.ones(B, jnp.int32)),
        TypeError,
        "cotangents must have floating dtype, got int32",
    ),
    "chunks": (
        lambda: ltjax.linearize(_losses, _tree())[1].norms(chunk_size=0),
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
