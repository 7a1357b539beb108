"""Batches over eight devices.

On some versions of JAX a jitted ``vmap(grad)`` of a sharded batch through a convolution
is silently wrong, so its reference is NumPy's.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ltjax
from tests.jacobian.operator_problem import (
    CLASSES,
    B,
    array,
    dots_of,
    losses_fn,
    nested,
    norms_of,
    outputs_and_rows,
)


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
    params = {"kernel": array(1, 3, 3, 2, 4), "head": array(2, 4, CLASSES)}
    x, y = array(3, batch, 4, 4, 2), jnp.arange(batch) % CLASSES
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
    np.testing.assert_allclose(got["norms"], norms_of(rows), **close)
    np.testing.assert_allclose(got["chunked"], norms_of(rows), **close)
    np.testing.assert_allclose(got["dots"], _dots_sorted(rows, exact), **close)
    chex.assert_trees_all_close(got["dense"], rows, **close)
    weighted = {k: np.tensordot(np.asarray(losses), r, 1) for k, r in rows.items()}
    chex.assert_trees_all_close(got["gradient"], weighted, **close)


def _dots_sorted(rows, direction):
    return sum(np.tensordot(rows[k], direction[k], direction[k].ndim) for k in rows)


def test_sharded_dense_model_equals_one_device():
    params = nested()
    x = array(0, B, 4)

    @jax.jit
    def products(params, x):
        losses, jac = ltjax.linearize(lambda p: losses_fn(p, x), params)
        return jac.jvp(params), jac.vjp(losses), jac.norms(), jac.dense()

    losses, rows = outputs_and_rows(losses_fn, params)
    mesh = _mesh()
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    dots, gradient, norms, dense = products(replicated, sharded)
    np.testing.assert_allclose(dots, dots_of(rows, params), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norms, norms_of(rows), rtol=1e-4)
    chex.assert_trees_all_close(dense, rows, rtol=1e-4, atol=1e-5)
    expected = jax.tree.map(lambda r: np.tensordot(losses, r, 1), rows)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-4, atol=1e-5)
