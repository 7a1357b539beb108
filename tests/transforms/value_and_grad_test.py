"""Weighted gradients in the shape of `jax.value_and_grad`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

X = jax.random.normal(jax.random.key(0), (8, 3))
Y = jnp.array([0, 1, 0, 1, 0, 0, 1, 1])
PARAMS = {"w": jax.random.normal(jax.random.key(1), (3, 2)), "b": jnp.zeros(2)}


def logits_fn(params, x):
    return x @ params["w"] + params["b"][None, :]


def losses_fn(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits_fn(params, x), y)


def test_is_the_gradient_of_the_weighted_mean():
    weighting = ltjax.absgd(0.5, gamma=1.0)
    fun = jax.jit(ltjax.weighted_value_and_grad(losses_fn, weighting))
    state = weighting.init(PARAMS)
    losses, gradient, new = fun(PARAMS, state, X, Y)
    expected = losses_fn(PARAMS, X, Y)
    weights = jax.nn.softmax(expected / 0.5)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    chex.assert_trees_all_close(
        gradient,
        jax.grad(lambda p: jnp.sum(weights * losses_fn(p, X, Y)))(PARAMS),
        rtol=1e-5,
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert new.step == 1


def test_aux_comes_with_the_losses():
    weighting = ltjax.absgd(0.5)
    fun = ltjax.weighted_value_and_grad(
        lambda p, x, y: (losses_fn(p, x, y), {"x": x, "name": "aux"}),
        weighting,
        has_aux=True,
    )
    (losses, aux), *rest = fun(PARAMS, weighting.init(PARAMS), X, Y)
    plain = ltjax.weighted_value_and_grad(losses_fn, weighting)
    expected = plain(PARAMS, weighting.init(PARAMS), X, Y)
    chex.assert_trees_all_equal((losses, *rest), expected)
    np.testing.assert_array_equal(aux["x"], X)
    assert aux["name"] == "aux"


def test_gdw_takes_its_clean_set_by_keyword():
    weighting = ltjax.gdw(2, lookahead_lr=0.1, key=jax.random.key(0))
    fun = ltjax.weighted_value_and_grad(logits_fn, weighting)
    meta_grad_fn = jax.grad(lambda p: losses_fn(p, X, 1 - Y).mean())

    @jax.jit
    def step(state):
        return fun(PARAMS, state, X, labels=Y, meta_grad_fn=meta_grad_fn)

    state = weighting.init(PARAMS)
    logits, gradient, new = step(state)

    @jax.jit
    def by_hand(state):
        logits, jac = ltjax.linearize(lambda p: logits_fn(p, X), PARAMS)
        extra = {"logits": logits, "labels": Y, "meta_grad_fn": meta_grad_fn}
        return logits, weighting.update(jac, state, PARAMS, **extra)

    got, expected = by_hand(state)
    chex.assert_trees_all_close((gradient, new), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, got, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(),
        lambda inner: optax.apply_if_finite(inner, 3),
    ],
    ids=["MultiSteps", "apply_if_finite"],
)
def test_wrappers_take_the_gradient(make):
    weighting = ltjax.absgd(0.5)
    tx = make(optax.sgd(0.1))
    fun = ltjax.weighted_value_and_grad(losses_fn, weighting)

    @jax.jit
    def step(params, own, state, x):
        _, gradient, own = fun(params, own, x, Y)
        with jax.numpy_dtype_promotion("standard"):  # which MultiSteps relies on
            updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), own, state

    params, own, state = PARAMS, weighting.init(PARAMS), tx.init(PARAMS)
    for sign in (1.0, -1.0):
        params, own, state = step(params, own, state, sign * X)
    assert not np.allclose(params["w"], PARAMS["w"])
    chex.assert_tree_all_finite(params)
