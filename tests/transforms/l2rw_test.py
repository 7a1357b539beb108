"""L2RW against second-order autodiff."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import ltjax
from ltjax import transforms

B, F, H = 8, 4, 6


def _losses(params, x, y):
    """Squared errors of a net with train-mode batch normalisation."""
    h = x @ params["w1"]
    h = (h - h.mean(0)[None]) / jnp.sqrt(h.var(0) + 1e-5)[None]
    return jnp.square(jnp.tanh(h) @ params["w2"] - y)


def _problem(dtype=jnp.float32, batch=B):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    params = {"w1": normal(F, H), "w2": normal(H)}
    return params, (normal(batch, F), normal(batch)), (normal(batch, F), normal(batch))


def _meta_grad_fn(meta):
    return jax.grad(lambda p: _losses(p, *meta).mean())


@functools.partial(jax.jit, static_argnums=0)
def _step(tx, params, state, batch, meta):
    _, jac = ltjax.linearize(lambda p: _losses(p, *batch), params)
    return tx.update(jac, state, params, meta_grad_fn=_meta_grad_fn(meta))


def test_matches_second_order_autodiff(x64):
    params, batch, meta = _problem(jnp.float64)

    def weighted_gradient(eps):
        return jax.grad(lambda p: jnp.sum(eps * _losses(p, *batch)))(params)

    def meta_loss(eps):
        ahead = jax.tree.map(lambda p, g: p - 0.3 * g, params, weighted_gradient(eps))
        return _losses(ahead, *meta).mean()

    weights = np.maximum(-np.asarray(jax.jit(jax.grad(meta_loss))(jnp.zeros(B))), 0)
    assert 0 < np.count_nonzero(weights) < B
    weights /= weights.sum()
    tx = transforms.l2rw()
    updates, state = _step(tx, params, tx.init(params), batch, meta)
    expected = jax.jit(weighted_gradient)(jnp.asarray(weights))
    chex.assert_trees_all_close(updates, expected, atol=1e-10)
    np.testing.assert_allclose(state.effective_size, 1 / np.sum(weights**2))


def test_weights_match_loop_at_all_scales():
    alignment = np.array([2.0, -1.0, 0.0, 6.0])
    want = 4 * np.array([0.25, 0.0, 0.0, 0.75])
    for scale in (1.0, 1e-36, 1e37):
        got = jax.jit(transforms.l2rw_weights)(
            jnp.asarray(scale * alignment, jnp.float32)
        )
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_no_agreement_means_no_step():
    np.testing.assert_array_equal(transforms.l2rw_weights(-jnp.ones(3)), 0)
    params, batch, _ = _problem()
    tx = transforms.l2rw()

    @jax.jit
    def step(params):
        _, jac = ltjax.linearize(lambda p: _losses(p, *batch), params)
        nowhere = lambda p: jax.tree.map(jnp.zeros_like, p)  # noqa: E731
        return tx.update(jac, tx.init(params), params, meta_grad_fn=nowhere)

    updates, state = step(params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    assert state.effective_size == 0


def test_rows_held_in_memory_are_the_same():
    params, batch, meta = _problem()
    tx = transforms.l2rw()

    @jax.jit
    def step(params):
        rows = jax.jacrev(lambda p: _losses(p, *batch))(params)
        extra = {"meta_grad_fn": _meta_grad_fn(meta)}
        return tx.update(rows, tx.init(params), params, **extra)

    got = step(params)
    want = _step(tx, params, tx.init(params), batch, meta)
    chex.assert_trees_all_close(got, want, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_jitted_steps_keep_dtypes_and_compile_once(dtype):
    params, batch, meta = _problem(dtype)
    tx = optax.chain(transforms.l2rw(), optax.sgd(0.1, momentum=0.9))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state):
        updates, state = _step(tx, params, state, batch, meta)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    out = step(*step(params, state))
    chex.assert_trees_all_equal_shapes_and_dtypes(out, (params, state))
    chex.assert_tree_all_finite(out)
    assert out[1][0].effective_size.dtype == jnp.float32


def test_product_with_absgd_multiplies_weights():
    params, batch, meta = _problem()
    tx = transforms.product(transforms.l2rw(), transforms.absgd(2.0))

    @jax.jit
    def both(params):
        losses, jac = ltjax.linearize(lambda p: _losses(p, *batch), params)
        extra = {"losses": losses, "meta_grad_fn": _meta_grad_fn(meta)}
        got, _ = tx.update(jac, tx.init(params), params, **extra)
        first = transforms.l2rw_weights(jac.jvp(_meta_grad_fn(meta)(params)))
        second, _ = transforms.absgd_weights(losses, -jnp.inf, temperature=2.0)
        return got, jac.vjp(first * second / B)

    chex.assert_trees_all_close(*both(params), rtol=1e-5)


def test_eight_devices_equal_one(eight_devices):
    params, batch, meta = _problem(batch=16)
    tx = transforms.l2rw()

    def step(params, batch, meta):
        return _step(tx, params, tx.init(params), batch, meta)

    everywhere = NamedSharding(eight_devices, P())
    split = NamedSharding(eight_devices, P("data"))
    args = jax.device_put((params, batch, meta), (everywhere, split, split))
    eight = jax.jit(step, out_shardings=everywhere)(*args)
    chex.assert_trees_all_close(
        jax.jit(step)(params, batch, meta), eight, rtol=1e-4, atol=1e-5
    )


def test_bad_input_is_named():
    params, batch, meta = _problem()
    tx = transforms.l2rw()
    state = tx.init(params)
    _, jac = ltjax.linearize(lambda p: _losses(p, *batch), params)
    with pytest.raises(TypeError, match="meta_grad_fn"):
        tx.update(jac, state, params)
    with pytest.raises(TypeError, match=r"meta_grad_fn.*function.*dict"):
        tx.update(jac, state, params, meta_grad_fn=params)
    with pytest.raises(ValueError, match=r"meta_grad_fn must return.*w1.*\(4, 6\)"):
        tx.update(jac, state, params, meta_grad_fn=lambda p: p | {"w1": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"params must be given.*None"):
        tx.update(jac, state, meta_grad_fn=_meta_grad_fn(meta))
    with pytest.raises(TypeError, match=r"alignment.*floating.*int32"):
        transforms.l2rw_weights(jnp.ones(3, jnp.int32))
