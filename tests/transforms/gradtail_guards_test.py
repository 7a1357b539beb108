"""GradTail and gradients that are zero, huge or not finite; masks that are refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax

PARAMS = {"hidden": jnp.ones((2, 3)), "head": jnp.ones(3)}
SIMILARITIES = ["cosine", "dot", "dot_unit_mean"]


@jax.jit
def rows(scale=1.0, seed=0, spread=0.5):
    """Per-example gradients around one direction, eight examples."""
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        name: scale * (1 + spread * jax.random.normal(key, (8, *PARAMS[name].shape)))
        for name, key in zip(PARAMS, keys, strict=True)
    }


def run(tx, batches):
    """The state after some batches of per-example gradients."""
    update = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for batch in batches:
        _, state = update(batch, state, PARAMS)
    return state


def cosine(a, b):
    return optax.tree.vdot(a, b) / optax.tree.norm(a) / optax.tree.norm(b)


@pytest.mark.parametrize("reference", ["weighted", "unweighted"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e30, 1e38])
def test_one_bad_gradient_does_not_spoil_the_mean(bad, reference):
    tx = ltjax.gradtail(burn_in=0, reference=reference)
    good = [rows(seed=i) for i in range(120)]
    spoiled = rows(seed=20)
    spoiled["head"] = spoiled["head"].at[3, 1].set(bad)
    expected = run(tx, good).mean_grad
    state = run(tx, [*good[:20], spoiled, *good[20:]])
    chex.assert_tree_all_finite(state)
    assert cosine(state.mean_grad, expected) > 0.9


def test_a_gradient_that_is_not_finite_has_no_part_in_the_mean():
    tx = ltjax.gradtail(burn_in=0)
    before = run(tx, [rows(seed=i) for i in range(5)])
    _, after = jax.jit(tx.update)(rows(np.nan), before, PARAMS)
    # Bias-corrected: as if the mean itself had been seen once more.
    expected = jax.tree.map(
        lambda m: m * (1 - 0.99**6) / (1 - 0.99**5), before.mean_grad
    )
    chex.assert_trees_all_close(after.mean_grad, expected, rtol=1e-5)
    first = run(tx, [rows(np.inf)])
    chex.assert_trees_all_equal(first.mean_grad, tx.init(PARAMS).mean_grad)


def test_gradients_may_vanish_and_come_back():
    """A mean of 0 limits nothing, and a small one not for long."""
    tx = ltjax.gradtail(burn_in=0)
    zero, tiny = rows(0.0), rows(1e-20)
    after_zero = run(tx, [zero, zero, rows()])
    assert optax.tree.norm(after_zero.mean_grad) > 0.01
    after_tiny = run(tx, [tiny, *[rows(seed=i) for i in range(150)]])
    assert optax.tree.norm(after_tiny.mean_grad) > 1


@pytest.mark.parametrize("scale", [2.0**-90, 2.0**90])
def test_weights_do_not_depend_on_the_size_of_gradients(scale):
    """Not by a bit, for leaves of all sizes."""
    params = {"large": jnp.zeros((90, 90)), "small": jnp.zeros(7), "one": jnp.zeros(())}
    tx = ltjax.gradtail(similarity="dot_unit_mean", activation=jnp.abs, burn_in=0)

    def weights(scale):
        state = tx.init(params)
        for seed in range(2):
            leaves = [
                scale * jax.random.normal(jax.random.key(seed + 10 * j), (4, *p.shape))
                for j, p in enumerate(jax.tree.leaves(params))
            ]
            batch = jax.tree.unflatten(jax.tree.structure(params), leaves)
            _, w, state = jax.jit(tx.update_with_weights)(batch, state, params)
        return w

    assert np.ptp(weights(1.0)) > 0.5
    chex.assert_trees_all_equal(weights(scale), weights(1.0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e18])
def test_one_bad_similarity_does_not_spoil_z_scores(bad):
    tx = ltjax.gradtail(similarity="dot", activation="bump", z_score=True, burn_in=0)
    good = [rows(seed=i) for i in range(40)]
    spoiled = rows(seed=20)
    spoiled["head"] = spoiled["head"].at[3, 1].set(bad)
    expected, state = run(tx, good), run(tx, [*good[:20], spoiled, *good[20:]])
    chex.assert_tree_all_finite(state)
    for name in ("similarity_mean", "similarity_square"):
        ratio = getattr(state, name) / getattr(expected, name)
        assert 0.1 < ratio < 10
    w, _ = jax.jit(tx.weights)(rows(seed=50), state, PARAMS)
    assert w.std() > 0.1


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_bad_row_leaves_weights_to_the_others(similarity):
    gentle = ltjax.transforms.gated(slope=0.2)
    tx = ltjax.gradtail(similarity=similarity, activation=gentle, burn_in=0)
    state = run(tx, [rows(seed=i) for i in range(5)])
    batch = rows(seed=7, spread=2.0)
    weights = jax.jit(tx.weights)
    expected, _ = weights(jax.tree.map(lambda g: g[1:], batch), state, PARAMS)
    batch["head"] = batch["head"].at[0, 0].set(jnp.nan)
    w, _ = weights(batch, state, PARAMS)
    assert w[0] == 1
    assert w[1:].std() > 0.05
    np.testing.assert_allclose(w[1:], expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
@pytest.mark.parametrize("z_score", [False, True])
@pytest.mark.parametrize("similarity", ["dot", "dot_unit_mean"])
def test_fitted_examples_do_not_starve_the_others(similarity, z_score, dtype):
    """56 rows are zero, 8 are not, and no norms tell."""
    x = jax.random.normal(jax.random.key(0), (64, 8), dtype)
    y = jnp.where(jnp.arange(64) < 56, 0, 3).astype(dtype)
    params = jnp.zeros(8, dtype)
    tx = ltjax.gradtail(
        activation="bump", similarity=similarity, z_score=z_score, burn_in=1
    )

    @jax.jit
    def step(state):
        _, jac = ltjax.linearize(lambda p: (x @ p - y) ** 2, params)
        plain = jac.vjp(jnp.full(64, 1 / 64, dtype))
        return tx.weights(jac, state, params)[0], plain, *tx.update(jac, state, params)

    state = tx.init(params)
    for _ in range(3):
        w, plain, updates, state = step(state)
    np.testing.assert_array_equal(w[:56], 1)
    np.testing.assert_allclose(w[56:].mean(), 1, rtol=1e-5)
    assert jnp.linalg.norm(updates) > 0.1 * jnp.linalg.norm(plain)


def by_rank(params):
    return jax.tree.map(lambda p: p.ndim < 2, params)


def by_path(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "head" in jax.tree_util.keystr(path), params
    )


@pytest.mark.parametrize("mask", [by_rank, by_path])
def test_a_mask_function_that_was_called_as_a_schedule_is_refused(mask):
    injected = optax.inject_hyperparams(ltjax.gradtail)(mask=mask, burn_in=0)
    with pytest.raises(TypeError, match=r"mask .*static_args"):
        injected.init(PARAMS)
    static = optax.inject_hyperparams(
        ltjax.gradtail, static_args=("activation", "mask")
    )(mask=mask, burn_in=0, activation=ltjax.transforms.gated(strength=2.0))
    state = static.init(PARAMS)
    mean = optax.tree.get(state, "mean_grad")
    assert isinstance(mean["hidden"], optax.MaskedNode)
    jax.eval_shape(static.update, rows(), state, PARAMS)


def test_an_activation_that_was_called_as_a_schedule_is_refused():
    injected = optax.inject_hyperparams(ltjax.gradtail)(activation=jnp.square)
    with pytest.raises(TypeError, match=r"activation .*static_args"):
        injected.init(PARAMS)
