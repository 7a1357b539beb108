"""GDW against its released code, second-order autodiff and loops in NumPy."""

import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax
from ltjax import transforms
from tests.transforms.gdw_problem import (
    KEY,
    LR,
    MODELS,
    B,
    C,
    batch_norm,
    cross_entropy,
    gdw_step,
    make_problem,
    meta_gradient,
    mlp,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"


def _flows_loop(logits, labels):
    """Capped probabilities and D, from their definitions."""
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p = np.minimum(p / p.sum(1, keepdims=True), 0.999)
    return p, p - np.eye(z.shape[1])[np.asarray(labels)]


def _zero_mean_loop(weights, logits, labels):
    p, _ = _flows_loop(logits, labels)
    out = np.array(weights, np.float64)
    for i, y in enumerate(np.asarray(labels)):
        rest = [c for c in range(p.shape[1]) if c != y]
        out[i, y] = sum(out[i, c] * p[i, c] for c in rest) / (1 - p[i, y])
    return out


def _second_stage_loop(weights, gradient, logits, labels, step_size, clip):
    change = np.clip(step_size * gradient / np.abs(gradient).sum(), -clip, clip)
    return _zero_mean_loop(np.clip(weights - change, 1e-6, 1e6), logits, labels)


def _lookahead_loss(weights, logits_fn, params, batch, meta, lr):
    """Meta loss after the virtual step, a function that jax.grad can go through."""
    x, y = batch
    probs = jnp.minimum(jax.nn.softmax(logits_fn(params, x)), 0.999)
    flow = jax.lax.stop_gradient(probs - jax.nn.one_hot(y, C, dtype=probs.dtype))
    grad = jax.grad(lambda p: jnp.sum(logits_fn(p, x) * flow * weights) / len(y))
    ahead = jax.tree.map(lambda p, g: p - lr * g, params, grad(params))
    return cross_entropy(logits_fn(ahead, meta[0]), meta[1])


def test_matches_the_released_code_over_all_steps(x64):
    data = {k: jnp.asarray(v) for k, v in np.load(FIXTURES / "gdw_mlp.npz").items()}
    layers = ["l1_weight", "l1_bias", "l2_weight", "l2_bias"]

    def golden(prefix, names, t):
        return {n: data[f"{prefix}{t}_{n}"] for n in names}

    def logits_fn(p, x):
        h = jnp.tanh(x @ p["l1_weight"].T + p["l1_bias"][None])
        return h @ p["l2_weight"].T + p["l2_bias"][None]

    lr = data["lr"]
    tx = optax.chain(
        transforms.gdw(C, lookahead_lr=lr, key=KEY),
        optax.add_decayed_weights(data["weight_decay"]),
        optax.sgd(lr, momentum=data["momentum"]),
    )

    @jax.jit
    def step(params, state, x, y, x_meta, y_meta):
        logits, jac = ltjax.linearize(lambda p: logits_fn(p, x), params)
        meta_grad_fn = jax.grad(lambda p: cross_entropy(logits_fn(p, x_meta), y_meta))
        updates, state = tx.update(
            jac, state, params, logits=logits, labels=y, meta_grad_fn=meta_grad_fn
        )
        return optax.apply_updates(params, updates), state

    params = golden("params", layers, 0)
    state = tx.init(params)
    net = golden("net", ["w1", "b1", "w2", "b2"], 0)
    state = (state[0]._replace(net=net), *state[1:])
    assert data["outer_lr"] == 0.1 * B * C  # the default step size
    assert data["x"].shape[0] == 4
    for t in range(4):
        batch = (data[k][t] for k in ("x", "y", "x_meta", "y_meta"))
        params, state = step(params, state, *batch)
        expected = golden("params", layers, t + 1), golden("net", net, t + 1)
        chex.assert_trees_all_close((params, state[0].net), expected, atol=1e-12)


@pytest.mark.parametrize("model", ["mlp", "batch_norm"])
def test_weights_and_net_gradient_match_second_order_autodiff(x64, model):
    params, batch, meta = make_problem(model, jnp.float64)
    logits_fn = MODELS[model]
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, net_weight_decay=0.0)
    state = tx.init(params)
    logits, jac = ltjax.linearize(lambda p: logits_fn(p, batch[0]), params)
    weights, new = tx.weights(
        jac,
        state,
        params,
        logits=logits,
        labels=batch[1],
        meta_grad_fn=meta_gradient(model, meta),
    )

    meta_loss = functools.partial(
        _lookahead_loss,
        logits_fn=logits_fn,
        params=params,
        batch=batch,
        meta=meta,
        lr=LR,
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    def constrained(net):
        v = transforms.apply_weighting_net(net, losses)
        v = jnp.broadcast_to(v[:, None], logits.shape)
        return transforms.zero_mean_weights(v, logits, batch[1])

    first = constrained(state.net)
    gradient = np.asarray(jax.grad(meta_loss)(first))
    assert np.abs(gradient).max() > 1e-5
    expected = _second_stage_loop(first, gradient, logits, batch[1], 0.1 * B * C, 0.2)
    np.testing.assert_allclose(weights, expected, atol=1e-10, rtol=0)

    net_gradient = jax.grad(lambda net: meta_loss(constrained(net)))(state.net)
    first_moment = optax.tree.get(new, "mu")
    chex.assert_trees_all_close(
        jax.tree.map(lambda m: m / 0.1, first_moment), net_gradient, atol=1e-10
    )
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(net_gradient)) > 1e-5


def test_net_is_trained_by_adam_with_coupled_decay(x64):
    params, batch, meta = make_problem("mlp", jnp.float64)

    def nets(decay):
        tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, net_weight_decay=decay)
        state = tx.init(params)
        return state.net, gdw_step(tx, params, state, batch, meta)[1]

    net, plain = nets(0.0)
    _, decayed = nets(0.5)
    difference = jax.tree.map(
        lambda a, b: (b - a) / 0.1,
        optax.tree.get(plain, "mu"),
        optax.tree.get(decayed, "mu"),
    )
    chex.assert_trees_all_close(difference, jax.tree.map(lambda w: w / 2, net))


def test_instance_level_is_meta_weight_net(x64):
    params, batch, meta = make_problem("batch_norm", jnp.float64)
    logits_fn = MODELS["batch_norm"]
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level="instance")
    state = tx.init(params)
    updates, new = gdw_step(tx, params, state, batch, meta, "batch_norm")

    def losses_fn(p):
        logits = logits_fn(p, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    def weighted_gradient(weights):
        return jax.grad(lambda p: jnp.mean(weights * losses_fn(p)))(params)

    def meta_loss(net):
        grads = weighted_gradient(
            transforms.apply_weighting_net(net, losses_fn(params))
        )
        ahead = jax.tree.map(lambda p, g: p - LR * g, params, grads)
        return cross_entropy(logits_fn(ahead, meta[0]), meta[1])

    gradient = jax.tree.map(
        lambda g, w: g + 1e-4 * w, jax.grad(meta_loss)(state.net), state.net
    )
    net = jax.tree.map(  # Adam's first step
        lambda w, g: w - 1e-3 * g / (jnp.abs(g) + 1e-8), state.net, gradient
    )
    weights = transforms.apply_weighting_net(net, losses_fn(params))
    mu = jax.tree.map(lambda m: m / 0.1, optax.tree.get(new, "mu"))
    chex.assert_trees_all_close(mu, gradient, atol=1e-10)
    chex.assert_trees_all_close(new.net, net, atol=1e-10)
    chex.assert_trees_all_close(updates, weighted_gradient(weights), atol=1e-10)
    np.testing.assert_allclose(new.target_weight, weights.mean(), rtol=1e-10)
    np.testing.assert_allclose(new.other_weight, weights.mean(), rtol=1e-10)


def test_meta_passes_leave_batch_statistics_alone():
    params, batch, meta = make_problem("batch_norm")
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)

    @jax.jit
    def step(params, state, x_meta):
        logits, jac, statistics = ltjax.linearize(
            lambda p: batch_norm(p, batch[0]), params, has_aux=True
        )
        updates, _ = tx.update(
            jac,
            state,
            params,
            logits=logits,
            labels=batch[1],
            meta_grad_fn=meta_gradient("batch_norm", (x_meta, meta[1])),
        )
        return updates, statistics

    state = tx.init(params)
    one, statistics = step(params, state, meta[0])
    two, same = step(params, state, jnp.square(meta[0]))
    chex.assert_trees_all_equal(statistics, same)
    chex.assert_trees_all_close(statistics, batch_norm(params, batch[0])[1], rtol=1e-5)
    assert not np.allclose(one["w2"], two["w2"])


def test_pure_functions_match_loops(x64):
    rng = np.random.default_rng(1)
    logits, weights = jnp.asarray(4 * rng.normal(size=(2, B, C)))
    weights = jnp.exp(weights / 4)
    labels = jnp.asarray(rng.integers(0, C, B))
    meta_gradient = jnp.asarray(rng.normal(size=(B, C)))
    _, flow = _flows_loop(logits, labels)

    constrained = jax.jit(transforms.zero_mean_weights)(weights, logits, labels)
    expected = _zero_mean_loop(weights, logits, labels)
    np.testing.assert_allclose(constrained, expected, rtol=1e-12)
    np.testing.assert_allclose((constrained * flow).sum(1), 0, atol=1e-12)

    cotangents = jax.jit(transforms.logit_cotangents)(weights, logits, labels)
    np.testing.assert_allclose(cotangents, expected * flow / B, atol=1e-12)

    v = weights[:, 0]
    gradient = flow * np.asarray(meta_gradient) / B
    first = _zero_mean_loop(np.tile(np.asarray(v)[:, None], (1, C)), logits, labels)
    for step_size, clip in ((None, 0.2), (1.5, 0.01), (0.0, 0.2)):
        got = jax.jit(transforms.gdw_weights, static_argnames="step_size")(
            v, meta_gradient, logits, labels, step_size=step_size, clip=clip
        )
        k = 0.1 * B * C if step_size is None else step_size
        want = _second_stage_loop(first, gradient, logits, labels, k, clip)
        np.testing.assert_allclose(got, want, rtol=1e-10)
        np.testing.assert_allclose((got * flow).sum(1), 0, atol=1e-12)


def test_pure_functions_take_bfloat16_and_certain_predictions():
    logits = jnp.array([[50.0, 0.0, 0.0], [50.0, 0.0, 0.0]], jnp.bfloat16)
    labels = jnp.array([0, 1])
    ones = jnp.ones((2, 3), jnp.bfloat16)
    out = (
        transforms.zero_mean_weights(ones, logits, labels),
        transforms.logit_cotangents(ones, logits, labels),
        transforms.gdw_weights(ones[:, 0], ones, logits, labels),
    )
    chex.assert_tree_all_finite(out)
    chex.assert_type(out, jnp.float32)
    expected = [[0, 0, 0], [0.4995, -0.4995, 0]]
    np.testing.assert_allclose(out[1], expected, atol=1e-6)


def test_unit_weights_give_the_plain_gradient():
    params, (x, y), _ = make_problem()
    logits, jac = ltjax.linearize(lambda p: mlp(p, x), params)
    cotangents = transforms.logit_cotangents(jnp.ones_like(logits), logits, y)
    plain = jax.grad(lambda p: cross_entropy(mlp(p, x), y))(params)
    chex.assert_trees_all_close(jac.vjp(cotangents), plain, atol=1e-6)


def test_weights_are_constants_to_autodiff():
    logits, labels = jnp.ones((2, 3)), jnp.array([0, 1])

    def total(z):
        w = transforms.zero_mean_weights(jnp.ones((2, 3)), z, labels)
        return jnp.sum(w) + jnp.sum(
            jnp.square(transforms.logit_cotangents(w, z, labels))
        )

    np.testing.assert_array_equal(jax.grad(total)(logits), 0)
    net = transforms.init_weighting_net(KEY, 4)
    slope = jax.grad(lambda x: transforms.apply_weighting_net(net, x).sum())(
        jnp.ones(3)
    )
    np.testing.assert_array_equal(slope, 0)


def test_weighting_net_matches_loop_and_initial_range():
    net = transforms.init_weighting_net(KEY, 100)
    chex.assert_trees_all_equal_shapes(
        net,
        {
            "w1": jnp.ones((1, 100)),
            "b1": jnp.ones(100),
            "w2": jnp.ones((100, 1)),
            "b2": jnp.ones(1),
        },
    )
    for name, bound in (("w1", 1.0), ("b1", 1.0), ("w2", 0.1)):
        assert 0.9 * bound < jnp.abs(net[name]).max() <= bound
    assert not np.array_equal(net["w1"][0], net["b1"])
    losses = jnp.array([0.0, 1.0, 30.0])
    n = jax.tree.map(lambda a: np.asarray(a, np.float64), net)
    want = [
        1 / (1 + np.exp(-(np.maximum(x * n["w1"][0] + n["b1"], 0) @ n["w2"] + n["b2"])))
        for x in (0.0, 1.0, 30.0)
    ]
    got = transforms.apply_weighting_net(net, losses)
    np.testing.assert_allclose(got, np.concatenate(want), rtol=1e-5)
