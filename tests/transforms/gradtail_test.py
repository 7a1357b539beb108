"""GradTail against a plain NumPy version, and what its weights are for."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax
from ltjax.transforms import aligned, bump

SIMILARITIES = ["cosine", "dot", "dot_unit_mean"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def disagreement(s):
    """An activation without norms, so that they are taken for cosines only."""
    return jax.nn.sigmoid(-4 * s)


def network(seed=0, batch=6):
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (batch, 4))
    y = jax.random.randint(keys[1], (batch,), 0, 3)
    params = {
        "hidden": jax.random.normal(keys[2], (4, 5)),
        "head": jax.random.normal(keys[3], (5, 3)),
    }

    def losses_fn(p, x=x):
        z = jnp.tanh(x @ p["hidden"]) @ p["head"]
        return optax.softmax_cross_entropy_with_integer_labels(z, y)

    return losses_fn, params


def flat(tree, leading=0):
    return np.concatenate(
        [np.reshape(g, (*g.shape[:leading], -1)) for g in jax.tree.leaves(tree)], -1
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e15, 1e19])
def test_extreme_gradients_leave_a_finite_state(scale, similarity):
    tx = ltjax.gradtail(
        activation=disagreement, similarity=similarity, burn_in=0, z_score=True
    )
    params = jnp.ones(2)
    rows = scale * jnp.array([[1.0, 2.0], [2.0, -1.0], [-1.0, 0.5]])
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(rows, state, params)
        chex.assert_tree_all_finite((updates, state))


@pytest.mark.parametrize("z_score", [False, True])
@pytest.mark.parametrize("reference", ["weighted", "unweighted"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_steps_match_numpy(x64, similarity, reference, z_score):
    losses_fn, params = network()
    decay, burn_in = 0.8, 2
    tx = ltjax.gradtail(
        activation=disagreement,
        similarity=similarity,
        decay=decay,
        burn_in=burn_in,
        reference=reference,
        z_score=z_score,
    )

    @jax.jit
    def step(params, state):
        _, jac = ltjax.linearize(losses_fn, params)
        return tx.update(jac.dense(), state, params)

    dense = jax.jit(jax.jacrev(losses_fn))
    state = tx.init(params)
    mean, first, second, lr = 0.0, 0.0, 0.0, 0.5
    for t in range(5):
        rows = flat(dense(params), 1)
        updates, state = step(params, state)

        corrected = mean / (1 - decay**t) if t else np.zeros(rows.shape[1])
        size = np.linalg.norm(corrected) or 1.0
        s = {
            "cosine": rows @ corrected / np.linalg.norm(rows, axis=1) / size,
            "dot": rows @ corrected,
            "dot_unit_mean": rows @ corrected / size,
        }[similarity]
        if t:
            first = decay * first + (1 - decay) * s.mean()
            second = decay * second + (1 - decay) * (s**2).mean()
        if z_score and t:
            m, sq = first / (1 - decay**t), second / (1 - decay**t)
            s = (s - m) / np.sqrt(sq - m**2)
        raw = sigmoid(-4 * s)
        w = raw / raw.mean() if t >= burn_in else np.ones(6)
        weighted = (w[:, None] * rows).mean(0)
        np.testing.assert_allclose(flat(updates), weighted, rtol=1e-10, atol=1e-13)
        observed = weighted if reference == "weighted" else rows.mean(0)
        mean = decay * mean + (1 - decay) * observed
        np.testing.assert_allclose(flat(state.mean_grad), mean, rtol=1e-10)
        params = jax.tree.map(lambda p, u: p - lr * u, params, updates)


def test_clean_reference_matches_numpy(x64):
    """Weights rise with agreement with the running mean of the clean gradient."""
    losses_fn, params = network()
    clean_fn = functools.partial(
        losses_fn, x=jax.random.normal(jax.random.key(9), (6, 4))
    )
    meta_grad_fn = jax.grad(lambda p: clean_fn(p).mean())
    decay, burn_in, strength = 0.8, 2, 7.0
    tx = ltjax.gradtail(
        activation=aligned(strength=strength),
        reference="clean",
        decay=decay,
        burn_in=burn_in,
    )

    @jax.jit
    def step(params, state):
        _, jac = ltjax.linearize(losses_fn, params)
        return tx.update(jac, state, params, meta_grad_fn=meta_grad_fn)

    dense, clean = jax.jit(jax.jacrev(losses_fn)), jax.jit(meta_grad_fn)
    state, mean = tx.init(params), 0.0
    for t in range(5):
        rows = flat(dense(params), 1)
        g = flat(clean(params))
        updates, state = step(params, state)
        size = np.linalg.norm(mean) or 1.0
        s = rows @ (mean + np.zeros_like(g)) / np.linalg.norm(rows, axis=1) / size
        raw = 1 + strength * np.maximum(s, 0)
        w = raw / raw.mean() if t >= burn_in else np.ones(6)
        expected = (w[:, None] * rows).mean(0)
        np.testing.assert_allclose(flat(updates), expected, rtol=1e-10, atol=1e-13)
        mean = decay * mean + (1 - decay) * g
        np.testing.assert_allclose(flat(state.mean_grad), mean, rtol=1e-10)
        params = jax.tree.map(lambda p, u: p - 0.5 * u, params, updates)
    assert np.ptp(w) > 0.1


def test_clean_gradient_that_is_not_finite_is_left_out():
    losses_fn, params = network()
    tx = ltjax.gradtail(reference="clean", activation="aligned", burn_in=0)

    @jax.jit
    def step(state, scale):
        _, jac = ltjax.linearize(losses_fn, params)
        clean = lambda p: jax.tree.map(lambda x: scale * x, p)  # noqa: E731
        return tx.update(jac, state, params, meta_grad_fn=clean)

    _, state = step(tx.init(params), 1.0)
    updates, state = step(state, jnp.nan)
    chex.assert_tree_all_finite((updates, state))
    _, direct = jax.jit(lambda s: step(s, 1.0))(state)
    chex.assert_tree_all_finite(direct)


def test_jacobian_equals_materialised_rows(x64):
    losses_fn, params = network()
    tx = ltjax.gradtail(burn_in=1)

    @jax.jit
    def both(lazy, dense):
        _, jac = ltjax.linearize(losses_fn, params)
        return tx.update(jac, lazy, params), tx.update(jac.dense(), dense, params)

    lazy = dense = tx.init(params)
    for _ in range(3):
        (a, lazy), (b, dense) = both(lazy, dense)
        chex.assert_trees_all_close((a, lazy), (b, dense), rtol=1e-10)


def test_mask_defines_similarity_but_not_the_update(x64):
    losses_fn, params = network()
    mask = {"hidden": False, "head": True}
    tx = ltjax.gradtail(activation=disagreement, burn_in=0, mask=mask)
    state = tx.init(params)
    assert isinstance(state.mean_grad["hidden"], optax.MaskedNode)
    direction = jax.random.normal(jax.random.key(7), (5, 3))
    state = state._replace(
        step=state.step + 1, mean_grad={**state.mean_grad, "head": direction}
    )

    @jax.jit
    def both(state):
        _, jac = ltjax.linearize(losses_fn, params)
        return tx.weights(jac, state, params)[0], tx.update(jac, state, params)[0]

    w, updates = both(state)
    rows = jax.jit(jax.jacrev(losses_fn))(params)
    head = flat({"head": rows["head"]}, 1)
    s = head @ direction.ravel()
    s = s / np.linalg.norm(head, axis=1) / np.linalg.norm(direction)
    raw = sigmoid(-4 * s)
    np.testing.assert_allclose(w, raw / raw.mean(), rtol=1e-10)
    for name in params:
        expected = np.tensordot(w, rows[name], 1) / len(w)
        np.testing.assert_allclose(updates[name], expected, rtol=1e-10)


def test_weight_per_pixel():
    key = jax.random.key(0)
    image = jax.random.normal(key, (2, 3, 3, 4))
    target = jax.random.normal(jax.random.key(1), (2, 3, 3))
    params = jnp.ones(4)
    tx = ltjax.gradtail(activation=disagreement, similarity="dot_unit_mean", burn_in=1)

    @jax.jit
    def step(state):
        _, jac = ltjax.linearize(lambda p: (image @ p - target) ** 2, params)
        return tx.weights(jac, state, params)[0], *tx.update(jac, state, params)

    state = tx.init(params)
    for _ in range(2):
        w, updates, state = step(state)
    assert w.shape == (2, 3, 3)
    assert w.std() > 0.01
    rows = 2 * (image @ params - target)[..., None] * image
    np.testing.assert_allclose(
        updates, (w[..., None] * rows).mean((0, 1, 2)), rtol=1e-4
    )


@pytest.mark.parametrize("wrong", [{"similarity": "cosine"}, {"activation": "gated"}])
def test_norms_of_pixels_are_refused_with_what_to_do(wrong):
    settings = {"similarity": "dot", "activation": "bump"} | wrong
    params, image = jnp.ones(4), jnp.ones((2, 3, 3, 4))

    def weights(**changed):
        tx = ltjax.gradtail(**(settings | changed))
        _, jac = ltjax.linearize(lambda p: (image @ p) ** 2, params)
        return tx.weights(jac, tx.init(params), params)[0]

    with pytest.raises(ValueError, match=r"\(2, 3, 3\).*18 rows") as refused:
        jax.eval_shape(weights)
    assert "similarity='dot'" in refused.value.__notes__[0]
    assert jax.eval_shape(lambda: weights(definition="row")).shape == (2, 3, 3)


def test_one_output_needs_an_earlier_layer_or_z_scores():
    """The gradients of its bias are scalars: their cosines are signs."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, y = jax.random.normal(keys[0], (16, 4)), jax.random.normal(keys[1], (16,))
    params = {
        "hidden": jax.random.normal(keys[2], (4, 8)),
        "head": jax.random.normal(keys[3], (8,)),
        "bias": jnp.zeros(()),
    }

    def losses_fn(p):
        return jnp.square(jnp.tanh(x @ p["hidden"]) @ p["head"] + p["bias"] - y)

    def weights(defining, **kwargs):
        mask = {name: name == defining for name in params}
        tx = ltjax.gradtail(activation=disagreement, burn_in=0, mask=mask, **kwargs)

        @jax.jit
        def step(state):
            _, jac = ltjax.linearize(losses_fn, params)
            w, _ = tx.weights(jac, state, params)
            return w, tx.update(jac, state, params)[1]

        w, state = step(tx.init(params))
        w, state = step(state)
        return np.unique(np.round(w, 4))

    assert len(weights("bias")) == 2
    assert len(weights("hidden")) == 16
    assert len(weights("bias", similarity="dot_unit_mean", z_score=True)) == 16


def clusters(seed):
    """Two common clusters, a rare one, and noise: common inputs, the other label."""
    rng = np.random.default_rng(seed)
    sizes = 200, 200, 20, 20
    means = (2, 0), (-2, 0), (2, 3), (2, 0)
    x = [rng.normal(m, 0.4, (n, 2)) for m, n in zip(means, sizes, strict=True)]
    return np.concatenate(x).astype(np.float32), np.repeat([0, 1, 1, 1], sizes)


def weights_of_clusters(tx, clean=None):
    """``[seeds, examples]`` weights early in training, for six seeds."""
    seeds = [clusters(seed) for seed in range(6)]
    x, y = (jnp.asarray(np.stack(a)) for a in zip(*seeds, strict=True))

    def run(key, x, y):
        keys = jax.random.split(key)
        params = {
            "w1": jax.random.normal(keys[0], (2, 32)),
            "b1": jnp.zeros(32),
            "w2": 0.2 * jax.random.normal(keys[1], (32, 2)),
        }

        def losses_fn(p, x=x, y=y):
            z = jnp.tanh(x @ p["w1"] + p["b1"][None, :]) @ p["w2"]
            return optax.softmax_cross_entropy_with_integer_labels(z, y)

        extra = {}
        if clean is not None:
            extra["meta_grad_fn"] = jax.grad(lambda p: losses_fn(p, *clean).mean())

        def step(carry, _):
            params, state = carry
            _, jac = ltjax.linearize(losses_fn, params)
            updates, w, state = tx.update_with_weights(jac, state, params, **extra)
            return (jax.tree.map(lambda p, g: p - 0.05 * g, params, updates), state), w

        return jax.lax.scan(step, (params, tx.init(params)), length=30)[1]

    w = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 6), x, y)
    return np.asarray(w)[:, 8:].mean(1)


def test_rare_counts_more_than_common_and_noise_is_not_the_top():
    """Weights by group, early in training, for six seeds of data and network."""
    tx = ltjax.gradtail(
        activation=bump(width=0.5), decay=0.9, burn_in=5, reference="unweighted"
    )
    w = weights_of_clusters(tx)
    common, rare, noise = w[:, :400], w[:, 400:420], w[:, 420:]
    assert (rare.mean(1) > 1.5 * common.mean(1)).all()
    assert (rare.mean(1) > 1.5 * noise.mean(1)).all()


def test_clean_set_tells_rare_examples_from_wrong_labels():
    tx = ltjax.gradtail(activation="aligned", reference="clean", decay=0.9, burn_in=5)
    x, y = clusters(100)
    few = np.r_[0:5, 200:205, 400:405]  # of both common clusters and of the rare one
    w = weights_of_clusters(tx, (jnp.asarray(x[few]), jnp.asarray(y[few])))
    common, rare, wrong = w[:, :400], w[:, 400:420], w[:, 420:]
    assert (rare.mean(1) > common.mean(1)).all()
    assert (wrong.mean(1) < common.mean(1)).all()
