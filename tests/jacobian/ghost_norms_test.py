"""Norms from inputs and output cotangents: exact, accurate in float32, no dearer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from tests.jacobian.reference import array, assert_products, dense, jacobian

B, T, D = 4, 6, 32


def _positions(x, d):
    """A matrix product over positions whose output cotangents are ``d``."""
    return lambda w: jnp.sum((x @ w) * d, (1, 2))


def _cancelling(share, dtype):
    """Inputs and cotangents whose rows are ``share`` of the sum of their parts."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(B, 1, D)), T, 1)
    d = rng.normal(size=(B, T, D))
    d -= d.mean(1, keepdims=True)
    d += share * rng.normal(size=(B, 1, D))
    return jnp.asarray(x, dtype), jnp.asarray(d, dtype)


def _norms(losses_fn, params):
    """Norms, and how they were computed."""
    norms = jax.jit(lambda p: ltjax.linearize(losses_fn, p)[1].norms())(params)
    return norms, jacobian(losses_fn, params)


@pytest.mark.parametrize("share", [1.0, 1e-1, 1e-2, 1e-3])
def test_relative_error_of_rows_that_cancel(share):
    x, d = _cancelling(share, jnp.float32)
    w = jnp.zeros((D, D), jnp.float32)
    found, told = _norms(_positions(x, d), w)
    assert told.method == "intercept"
    exact = np.einsum(
        "btk,btn->bkn", np.asarray(x, np.float64), np.asarray(d, np.float64)
    )
    expected = np.linalg.norm(exact.reshape(B, -1), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("inputs", "cotangents"), [(1e4, 1e-22), (1e10, 1e-24), (1e-12, 1e12)]
)
@pytest.mark.parametrize("positions", [1, T])
def test_norms_whose_parts_leave_the_range_of_float32_when_squared(
    inputs, cotangents, positions
):
    rng = np.random.default_rng(0)
    x = jnp.asarray(inputs * rng.normal(size=(B, positions, D)), jnp.float32)
    d = jnp.asarray(cotangents * rng.normal(size=(B, positions, D)), jnp.float32)
    d = d.at[0].set(0.0)
    _, jac = ltjax.linearize(_positions(x, d), jnp.zeros((D, D), jnp.float32))
    exact = np.einsum(
        "btk,btn->bkn", np.asarray(x, np.float64), np.asarray(d, np.float64)
    )
    expected = np.linalg.norm(exact.reshape(B, -1), axis=1)
    np.testing.assert_allclose(jax.jit(jac.norms)(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32])
@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_lookups_by_indices_of_a_narrow_type(dtype, mode):
    largest = min(jnp.iinfo(dtype).max, 299)
    tokens = jnp.asarray([[0, 3, 3], [largest, 1, largest], [7, 7, 7]], dtype)
    weight = jnp.asarray(array(1, 3, 3, 2), jnp.float32)

    def losses_fn(table):
        rows = table.at[tokens].get(mode=mode)
        return jnp.sum(rows * weight, (1, 2))

    for size in (256, 300):
        table = jnp.zeros((size, 2), jnp.float32)
        _, jac = ltjax.linearize(losses_fn, table)
        expected = np.linalg.norm(dense(losses_fn, table), axis=1)
        np.testing.assert_allclose(jac.norms(), expected, rtol=1e-5)


def test_bfloat16_norms_are_those_of_its_numbers():
    x, d = _cancelling(1.0, jnp.bfloat16)
    w = jnp.zeros((D, D), jnp.bfloat16)
    norms, _ = _norms(_positions(x, d), w)
    assert norms.dtype == jnp.float32
    exact = np.einsum(
        "btk,btn->bkn", np.asarray(x, np.float64), np.asarray(d, np.float64)
    )
    expected = np.linalg.norm(exact.reshape(B, -1), axis=1)
    np.testing.assert_allclose(norms, expected, rtol=1e-2)


def test_norms_of_cancelled_rows_are_finite():
    """Constant sequences under a softmax over positions have gradients of about 0."""
    x = jnp.broadcast_to(array(1, B, 1, D, dtype=jnp.float32), (B, T, D))
    w = array(2, D, D, dtype=jnp.float32) / D
    norms, _ = _norms(lambda w: -jax.nn.log_softmax((x @ w).sum(-1), 1)[:, 0], w)
    assert np.isfinite(norms).all()
    assert (norms < 1e-4).all()


def test_one_cancelled_example_leaves_the_others_as_they_are(x64):
    x, d = _cancelling(1.0, jnp.float64)
    d = d.at[0].add(-d[0].mean(0, keepdims=True))
    assert_products(_positions(x, d), jnp.zeros((D, D)), tolerance=1e-8)


def test_lookups_of_one_entry_that_cancel():
    tokens = jnp.zeros((B, T), jnp.int32)
    d = jnp.asarray(_cancelling(1e-3, jnp.float32)[1])
    table = jnp.zeros((40, D), jnp.float32)
    norms, _ = _norms(lambda t: jnp.sum(t[tokens] * d, (1, 2)), table)
    expected = np.linalg.norm(np.asarray(d, np.float64).sum(1), axis=1)
    np.testing.assert_allclose(norms, expected, rtol=1e-3)


def _stacked(p):
    h = array(1, B, 4)
    for layer in range(3):
        h = jnp.tanh(h @ p["w"][layer])
    return jnp.sum(h**2, 1)


def _unstacked(p):
    h = array(1, B, 4)
    for w in jnp.unstack(p["w"]):
        h = jnp.tanh(h @ w)
    return jnp.sum(h**2, 1)


def _split(p):
    x = array(1, B, T, 4)
    q, k, v = jnp.split(p["w"].reshape(4, 12), 3, 1)
    scores = jnp.einsum("btd,bsd->bts", x @ q, x @ k)
    return jnp.sum((jax.nn.softmax(scores) @ (x @ v)) ** 2, (1, 2))


def _overlapping(p):
    h = array(1, B, 4)
    w = p["w"].reshape(12, 4)
    return jnp.sum(jnp.tanh(jnp.tanh(h @ w[:4]) @ w[2:6]) @ w[6:10], 1)


def _used_twice(p):
    h = array(1, B, 4)
    return jnp.sum(jnp.tanh(jnp.tanh(h @ p["w"][0]) @ p["w"][1].T) @ p["w"][0].T, 1)


def _whole_and_part(p):
    h = array(1, B, 4)
    w = p["w"] / jnp.linalg.norm(p["w"])
    return jnp.sum(jnp.tanh(h @ w[0]) @ p["w"][1], 1)


SLICES = [_stacked, _unstacked, _split, _overlapping, _used_twice, _whole_and_part]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("losses_fn", SLICES)
def test_slices_of_one_parameter(losses_fn):
    assert_products(losses_fn, {"w": array(2, 3, 4, 4)})


def _compiled(fun, *args):
    return jax.jit(fun).lower(*args).compile()


def test_slices_cost_what_separate_parameters_do():
    layers, width, batch = 4, 32, 32
    x = jnp.ones((batch, 8, width))

    def losses_fn(ws):
        h = x
        for layer in range(layers):
            h = jnp.tanh(h @ ws[layer])
        return h.sum((1, 2))

    def norms(ws):
        return ltjax.linearize(losses_fn, ws)[1].norms()

    together = _compiled(norms, jnp.ones((layers, width, width)))
    apart = _compiled(norms, [jnp.ones((width, width))] * layers)
    flops = [c.cost_analysis()["flops"] for c in (together, apart)]
    memory = [c.memory_analysis().temp_size_in_bytes for c in (together, apart)]
    assert flops[0] <= 1.1 * flops[1]
    assert memory[0] <= 1.3 * memory[1]


def test_chunks_are_sized_by_what_a_row_needs():
    """An operation that cannot be applied to one example keeps its memory bounded."""
    batch, positions, width = 256, 64, 32
    xs = jnp.ones((batch, positions, width))
    params = {"a": jnp.eye(width) / 10, "c": jnp.eye(width) / 10}

    @jax.checkpoint
    def body(p, x):
        flat = x.reshape(batch * positions, width)
        return jnp.tanh(jnp.tanh(flat @ p["a"]) @ p["c"]).reshape(x.shape).mean(1)

    def norms(p):
        return ltjax.linearize(lambda p: body(p, xs).sum(1), p)[1].norms()

    memory = _compiled(norms, params).memory_analysis().temp_size_in_bytes
    assert memory < 128 * 2**20
