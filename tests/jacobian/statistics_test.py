"""What else the rows tell, against dense rows."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import ltjax
from ltjax.jacobian._updates import as_jacobian
from tests.jacobian.reference import dense, flat

SIZE = 6
X = np.random.default_rng(0).normal(size=(SIZE, 3))
PARAMS = {
    "w": np.random.default_rng(1).normal(size=(3, 4)),
    "b": np.random.default_rng(2).normal(size=4),
}


def loss_fn(p, x):
    return jnp.sum(jnp.tanh(x @ p["w"]) * p["b"]) ** 2


def losses_fn(p, x=X):
    return jax.vmap(loss_fn, (None, 0))(p, jnp.asarray(x))


def from_rows(p):
    return losses_fn(p), ltjax.Jacobian.from_rows(jax.jacrev(losses_fn)(p), p, (SIZE,))


def rearranged(p):
    losses, jac = ltjax.linearize(losses_fn, p)
    return losses, as_jacobian(jax.tree.map(lambda g: g, jac), None, None)


def microbatches(p):
    return ltjax.linearize_microbatches(losses_fn, p, jnp.asarray(X), microbatch_size=2)


KINDS = {
    "intercept": functools.partial(ltjax.linearize, losses_fn, method="intercept"),
    "linearize": functools.partial(ltjax.linearize, losses_fn, method="linearize"),
    "examples": lambda p: ltjax.linearize_examples(loss_fn, p, jnp.asarray(X)),
    "rows": from_rows,
    "rearranged": rearranged,
    "microbatches": microbatches,
}
every_kind = pytest.mark.parametrize("linearize", KINDS.values(), ids=KINDS)


@pytest.fixture
def params(x64):
    return jax.tree.map(jnp.asarray, PARAMS)


@every_kind
def test_all_statistics_are_those_of_dense_rows(linearize, params):
    rows = dense(losses_fn, params)
    other = np.random.default_rng(3).normal(size=(4, 3))
    limit = np.median(np.linalg.norm(rows, axis=1))

    @jax.jit
    def found(params):
        _, jac = linearize(params)
        _, second = ltjax.linearize(lambda p: losses_fn(p, other), params)
        return (
            ltjax.clipped_sum(jac, limit),
            ltjax.gram(jac, chunk_size=4),
            ltjax.gram(jac, second),
            ltjax.noise_scale(jac),
            jac.map_rows(lambda g: jnp.max(g["w"]), chunk_size=4),
        )

    clipped, kernel, influence, noise, largest = found(params)
    norms = np.linalg.norm(rows, axis=1)
    close = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(
        flat(clipped), np.minimum(1, limit / norms) @ rows, **close
    )
    np.testing.assert_allclose(kernel, rows @ rows.T, **close)
    others = dense(lambda p: losses_fn(p, other), params)
    np.testing.assert_allclose(influence, rows @ others.T, **close)
    np.testing.assert_allclose(noise.variance, rows.var(0, ddof=1).sum(), **close)
    np.testing.assert_allclose(
        noise.squared_mean,
        np.sum(rows.mean(0) ** 2) - rows.var(0, ddof=1).sum() / SIZE,
        **close,
    )
    widths = jax.jacrev(losses_fn)(params)["w"]
    np.testing.assert_allclose(largest, widths.max((1, 2)), **close)


@every_kind
def test_projections_keep_inner_products(linearize, params):
    rows = dense(losses_fn, params)
    size = 512

    @jax.jit
    def found(params, key):
        return ltjax.project(linearize(params)[1], key, size)

    features = found(params, jax.random.key(0))
    chex.assert_shape(features, (SIZE, size))
    norms = np.linalg.norm(rows, axis=1)
    error = np.abs(features @ features.T - rows @ rows.T)
    assert (error < 5 * np.sqrt(2 / size) * np.outer(norms, norms)).all()
    # The same directions for another batch; others for another key.
    again = found(params, jax.random.key(0))
    np.testing.assert_array_equal(again, features)
    assert not np.allclose(found(params, jax.random.key(1)), features)


def test_sensitivity_of_the_clipped_sum(params):
    """Bounded by C for one example more, by 2C for another in its place."""
    limit = 0.3

    @jax.jit
    def clipped(params, x):
        _, jac = ltjax.linearize(lambda p: losses_fn(p, x), params)
        return ltjax.clipped_sum(jac, limit)

    whole = flat(clipped(params, jnp.asarray(X)))
    fewer = flat(clipped(params, jnp.asarray(X[1:])))
    replaced = flat(clipped(params, jnp.asarray(X).at[0].set(-100.0)))
    assert 0.9 * limit < np.linalg.norm(whole - fewer) <= limit * (1 + 1e-12)
    assert limit < np.linalg.norm(whole - replaced) <= 2 * limit * (1 + 1e-12)


def test_coupled_examples_have_no_sensitivity(params):
    def coupled(p):
        h = jnp.asarray(X) @ p["w"]
        return jnp.sum((h - h.mean(0)[None]) ** 2, 1)

    _, jac = ltjax.linearize(coupled, {"w": params["w"]})
    with pytest.raises(ValueError, match="norms needs a definition"):
        ltjax.clipped_sum(jac, 1.0)
    rows = dense(coupled, {"w": params["w"]})
    np.testing.assert_allclose(ltjax.gram(jac), rows @ rows.T, rtol=1e-10)
    noise = ltjax.noise_scale(jac, definition="row")
    np.testing.assert_allclose(noise.variance, rows.var(0, ddof=1).sum(), rtol=1e-10)
    with pytest.raises(ValueError, match=r"definition must be one of.*frozen"):
        ltjax.noise_scale(jac, definition="frozen")  # whose rows are not the gradient's


def test_attribution_has_rows_that_add_up(params):
    def coupled(p):
        h = jnp.asarray(X) @ p["w"]
        return jnp.sum(jnp.tanh(h - h.mean(0)[None]), 1)

    _, jac = ltjax.linearize(coupled, {"w": params["w"]})
    noise = ltjax.noise_scale(jac, definition="attribution")
    mean = jac.vjp(jnp.full(SIZE, 1 / SIZE))["w"]
    total = noise.squared_mean + noise.variance / SIZE
    np.testing.assert_allclose(total, (mean**2).sum(), rtol=1e-10)


@pytest.mark.parametrize("method", ["intercept", "linearize"])
def test_inside_shard_map(method, params):
    """The noise is that of the whole batch; products are of a device's own rows."""
    mesh = jax.make_mesh(
        (2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2]
    )

    def statistics(p, x):
        jac = ltjax.linearize(lambda p: losses_fn(p, x), p, method=method)[1]
        noise = ltjax.noise_scale(jac)
        return noise, ltjax.gram(jac)[None], ltjax.project(jac, jax.random.key(0), 3)

    rows = jax.P("data")
    sharded = jax.shard_map(
        statistics, mesh=mesh, in_specs=(jax.P(), rows), out_specs=(jax.P(), rows, rows)
    )
    noise, products, features = jax.jit(sharded)(params, jnp.asarray(X))
    _, jac = ltjax.linearize(losses_fn, params)
    chex.assert_trees_all_close(noise, ltjax.noise_scale(jac), rtol=1e-10)
    whole = ltjax.gram(jac)
    for i in range(2):
        own = slice(3 * i, 3 * i + 3)
        np.testing.assert_allclose(products[i], whole[own, own], rtol=1e-10)
    expected = ltjax.project(jac, jax.random.key(0), 3)
    np.testing.assert_allclose(features, expected, rtol=1e-10)


def test_outputs_of_any_shape(params):
    """The empirical neural tangent kernel of logits."""

    def logits_fn(p):
        return jnp.tanh(jnp.asarray(X) @ p["w"])

    rows = jax.jacrev(logits_fn)(params)["w"].reshape(SIZE, 4, -1)
    _, jac = ltjax.linearize(logits_fn, {"w": params["w"]})
    kernel = jax.jit(lambda: ltjax.gram(jac))()
    np.testing.assert_allclose(
        kernel, np.einsum("bcp,dep->bcde", rows, rows), rtol=1e-10, atol=1e-12
    )
    assert ltjax.project(jac, jax.random.key(0), 8).shape == (SIZE, 4, 8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes(dtype):
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), PARAMS)
    _, jac = ltjax.linearize(lambda p: losses_fn(p, jnp.asarray(X, dtype)), params)
    chex.assert_trees_all_equal_dtypes(ltjax.clipped_sum(jac, 1.0), params)
    assert ltjax.gram(jac).dtype == dtype
    assert ltjax.project(jac, jax.random.key(0), 2).dtype == dtype
    assert ltjax.noise_scale(jac).variance.dtype == jnp.float32


def test_vanishing_rows_stay_finite():
    _, jac = ltjax.linearize(lambda w: jnp.array([0.0, 1.0]) * w, jnp.float32(0))
    assert ltjax.clipped_sum(jac, 0.5) == 0.5
    still = ltjax.linearize(lambda w: jnp.zeros(2) * w, jnp.float32(0))[1]
    assert ltjax.noise_scale(still).examples == 0


def test_bad_arguments_are_named(params):
    _, jac = ltjax.linearize(losses_fn, params)
    with pytest.raises(ValueError, match=r"max_norm .*0\.0"):
        ltjax.clipped_sum(jac, 0.0)
    _, logits = ltjax.linearize(lambda p: jnp.asarray(X) @ p["w"], params)
    with pytest.raises(ValueError, match=r"losses \[B\].*\(6, 4\)"):
        ltjax.clipped_sum(logits, 1.0)
    with pytest.raises(TypeError, match="key must be a typed key"):
        ltjax.project(jac, 0, 2)
    with pytest.raises(ValueError, match="dim must be at least 1"):
        ltjax.project(jac, jax.random.key(0), 0)
    _, other = ltjax.linearize(lambda p: p["w"].sum(0), {"w": params["w"]})
    with pytest.raises(ValueError, match="other must have the parameters"):
        ltjax.gram(jac, other)
    _, single = ltjax.linearize(lambda p: losses_fn(p)[:1], params)
    with pytest.raises(ValueError, match=r"at least 2 losses.*\(1,\)"):
        ltjax.noise_scale(single)
