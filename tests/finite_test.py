"""Extreme input leaves everything finite."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from tests.bad_input import (
    FEATURES,
    PARAMS,
    B,
    C,
    L,
    M,
    Y,
    Z,
    gdw,
    logits_fn,
    losses_fn,
)

EXTREME_LOGITS = {
    "zeros": jnp.zeros((B, C)),
    "saturated right": 1e4 * jax.nn.one_hot(Y, C),
    "saturated wrong": -1e4 * jax.nn.one_hot(Y, C),
    "huge": jnp.full((B, C), 3e38),
}


@pytest.mark.parametrize("logits", EXTREME_LOGITS.values(), ids=EXTREME_LOGITS)
@pytest.mark.parametrize("labels", [Y, jnp.zeros_like(Y)], ids=["mixed", "one class"])
@pytest.mark.parametrize("meta_scale", [0.0, 1.0, 1e30])
def test_gdw_stays_finite(logits, labels, meta_scale):
    updates, state = gdw_step(logits, labels, meta_scale)
    chex.assert_tree_all_finite((updates, jax.tree.leaves(state)))


@jax.jit
def gdw_step(logits, labels, meta_scale):
    tx = gdw()
    _, jac = ltjax.linearize(lambda p: logits + logits_fn(p), PARAMS)
    return tx.update(
        jac,
        tx.init(PARAMS),
        PARAMS,
        logits=logits,
        labels=labels,
        meta_grad_fn=lambda p: jax.tree.map(lambda x: jnp.full_like(x, meta_scale), p),
    )


def test_zero_gradients_stay_finite():
    for tx in (ltjax.absgd(0.5), ltjax.gradtail(burn_in=0)):

        @jax.jit
        def step(state, tx=tx):
            losses, jac = ltjax.linearize(lambda p: 0 * losses_fn(p), PARAMS)
            return tx.update(jac, state, PARAMS, losses=losses)

        state = tx.init(PARAMS)
        for _ in range(3):
            updates, state = step(state)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        chex.assert_tree_all_finite(jax.tree.leaves(state))


def test_an_empty_class_leaves_losses_and_metrics_finite():
    counts = jnp.array([50, 30, 0])
    for loss in (
        L.ldam,
        L.balanced_softmax,
        L.class_balanced_cross_entropy,
        L.class_balanced_focal,
        L.class_balanced_sigmoid,
    ):
        assert np.isfinite(loss(Z, Y, class_counts=counts)).all()
    absent = np.zeros(6, int)
    assert np.isfinite(M.per_class_accuracy(absent, absent, 3)).all()
    assert M.balanced_accuracy(absent, absent, 3) == 1
    assert np.isfinite(M.fisher_discriminant_ratio(FEATURES, absent, 3))
    assert np.isfinite(M.tightness(FEATURES, absent, 3).overall)
