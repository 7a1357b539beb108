"""GDW against its released code, second-order autodiff and loops in NumPy."""

import functools
from pathlib import Path

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

FIXTURES = Path(__file__).parents[1] / "fixtures"
KEY = jax.random.key(0)
B, C, F = 8, 5, 6
LR = 0.07


def _cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _mlp(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"]


def _batch_norm(params, x):
    """Train-mode batch normalisation: every row depends on the whole batch."""
    h = x @ params["w1"]
    mean, var = h.mean(0), h.var(0)
    h = (h - mean[None]) / jnp.sqrt(var + 1e-5)[None] * params["scale"][None]
    return jnp.tanh(h + params["b1"][None]) @ params["w2"], {"mean": mean, "var": var}


def _conv(params, x):
    h = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(h).mean((1, 2)) @ params["w2"]


MODELS = {"mlp": _mlp, "batch_norm": lambda p, x: _batch_norm(p, x)[0], "conv": _conv}


def _problem(model="mlp", dtype=jnp.float32, batch=B, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    params = {"w2": normal(7, C)}
    if model == "conv":
        params |= {"kernel": normal(3, 3, 2, 7)}
        x, x_meta = normal(batch, 4, 4, 2), normal(batch, 4, 4, 2)
    else:
        params |= {"w1": normal(F, 7), "b1": normal(7), "scale": normal(7)}
        x, x_meta = normal(batch, F), normal(batch, F)
    if model == "mlp":
        del params["scale"]
    y, y_meta = (jnp.asarray(rng.integers(0, C, batch), jnp.int32) for _ in range(2))
    return params, (x, y), (x_meta, y_meta)


def _meta_grad_fn(model, meta):
    x, y = meta
    return jax.grad(lambda p: _cross_entropy(MODELS[model](p, x), y))


def _step(tx, params, state, batch, meta, model="mlp"):
    x, y = batch
    logits, jac = ltjax.linearize(lambda p: MODELS[model](p, x), params)
    return tx.update(
        jac,
        state,
        params,
        logits=logits,
        labels=y,
        meta_grad_fn=_meta_grad_fn(model, meta),
    )


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
    return _cross_entropy(logits_fn(ahead, meta[0]), meta[1])


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
        meta_grad_fn = jax.grad(lambda p: _cross_entropy(logits_fn(p, x_meta), y_meta))
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
    params, batch, meta = _problem(model, jnp.float64)
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
        meta_grad_fn=_meta_grad_fn(model, meta),
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
    params, batch, meta = _problem("mlp", jnp.float64)

    def nets(decay):
        tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, net_weight_decay=decay)
        state = tx.init(params)
        return state.net, _step(tx, params, state, batch, meta)[1]

    net, plain = nets(0.0)
    _, decayed = nets(0.5)
    difference = jax.tree.map(
        lambda a, b: (b - a) / 0.1,
        optax.tree.get(plain, "mu"),
        optax.tree.get(decayed, "mu"),
    )
    chex.assert_trees_all_close(difference, jax.tree.map(lambda w: w / 2, net))


def test_instance_level_is_meta_weight_net(x64):
    params, batch, meta = _problem("batch_norm", jnp.float64)
    logits_fn = MODELS["batch_norm"]
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level="instance")
    state = tx.init(params)
    updates, new = _step(tx, params, state, batch, meta, "batch_norm")

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
        return _cross_entropy(logits_fn(ahead, meta[0]), meta[1])

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
    params, batch, meta = _problem("batch_norm")
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)

    @jax.jit
    def step(params, state, x_meta):
        logits, jac, statistics = ltjax.linearize(
            lambda p: _batch_norm(p, batch[0]), params, has_aux=True
        )
        updates, _ = tx.update(
            jac,
            state,
            params,
            logits=logits,
            labels=batch[1],
            meta_grad_fn=_meta_grad_fn("batch_norm", (x_meta, meta[1])),
        )
        return updates, statistics

    state = tx.init(params)
    one, statistics = step(params, state, meta[0])
    two, same = step(params, state, jnp.square(meta[0]))
    chex.assert_trees_all_equal(statistics, same)
    chex.assert_trees_all_close(statistics, _batch_norm(params, batch[0])[1], rtol=1e-5)
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
    params, (x, y), _ = _problem()
    logits, jac = ltjax.linearize(lambda p: _mlp(p, x), params)
    cotangents = transforms.logit_cotangents(jnp.ones_like(logits), logits, y)
    plain = jax.grad(lambda p: _cross_entropy(_mlp(p, x), y))(params)
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


def test_rows_held_in_memory_are_the_same():
    params, (x, y), meta = _problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)
    state = tx.init(params)
    rows = jax.jacrev(lambda p: _mlp(p, x))(params)
    got = tx.update(
        rows,
        state,
        params,
        logits=_mlp(params, x),
        labels=y,
        meta_grad_fn=_meta_grad_fn("mlp", meta),
    )
    chex.assert_trees_all_close(got, _step(tx, params, state, (x, y), meta), atol=1e-5)


def test_recomputed_forward_is_the_same():
    params, (x, y), meta = _problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)
    state = tx.init(params)
    logits, jac = ltjax.linearize(jax.checkpoint(lambda p: _mlp(p, x)), params)
    got = tx.update(
        jac,
        state,
        params,
        logits=logits,
        labels=y,
        meta_grad_fn=_meta_grad_fn("mlp", meta),
    )
    chex.assert_trees_all_close(got, _step(tx, params, state, (x, y), meta), atol=1e-6)


def test_meta_gradient_is_taken_once_and_not_differentiated():
    calls = []
    params, (x, y), meta = _problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)

    def meta_grad_fn(p):
        calls.append(p)
        # Fails to be differentiated once more.
        return jax.pure_callback(lambda q: q, p, jax.grad(_meta_loss)(p))

    def _meta_loss(p):
        return _cross_entropy(_mlp(p, meta[0]), meta[1])

    logits, jac = ltjax.linearize(lambda p: _mlp(p, x), params)
    got, _ = tx.update(
        jac, tx.init(params), params, logits=logits, labels=y, meta_grad_fn=meta_grad_fn
    )
    want, _ = _step(tx, params, tx.init(params), (x, y), meta)
    assert len(calls) == 1
    chex.assert_trees_all_close(got, want, atol=1e-6)


@pytest.mark.parametrize("level", ["class", "instance"])
def test_a_step_takes_one_softmax(level):
    params, (x, y), _ = _problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level=level)

    def step(params, state):
        logits, jac = ltjax.linearize(lambda p: _mlp(p, x), params)
        return tx.update(
            jac, state, params, logits=logits, labels=y, meta_grad_fn=lambda p: p
        )

    jaxpr = str(jax.make_jaxpr(step)(params, tx.init(params)))
    assert jaxpr.count("= reduce_max[") == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("level", ["class", "instance"])
def test_jitted_steps_keep_dtypes_and_compile_once(level, dtype):
    params, batch, meta = _problem("mlp", dtype)

    def schedule(step):
        return 0.1 * jnp.maximum(1 - step.astype(jnp.float32) / 3, 0)

    tx = optax.chain(
        transforms.gdw(C, lookahead_lr=schedule, key=KEY, level=level),
        optax.sgd(0.1, momentum=0.9),
    )

    @jax.jit
    def step(params, state):
        updates, state = _step(tx, params, state, batch, meta)
        return optax.apply_updates(params, updates), state

    start = params, tx.init(params)
    out = start
    for _ in range(5):  # past the end of the schedule, where it is 0
        out = step(*out)
    assert step._cache_size() == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(out, start)
    chex.assert_tree_all_finite(out)
    method = out[1][0]
    assert method.step == 5
    assert method.net["w1"].dtype == jnp.float32
    assert not np.array_equal(method.net["w1"], start[1][0].net["w1"])


def test_bfloat16_is_close_to_float32():
    problem = _problem("mlp", jnp.bfloat16)
    wide = jax.tree.map(
        lambda a: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a, problem
    )
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level="instance")
    results = []
    for params, batch, meta in (problem, wide):
        updates, _ = _step(tx, params, tx.init(params), batch, meta)
        results.append(jax.tree.map(lambda a: np.asarray(a, np.float32), updates))
    chex.assert_trees_all_close(*results, atol=0.01)


def test_schedule_of_the_lookahead_is_read_at_the_step():
    params, batch, meta = _problem()

    def schedule(step):
        return 0.1 / (1 + step.astype(jnp.float32))

    tx = transforms.gdw(C, lookahead_lr=schedule, key=KEY)
    fixed = transforms.gdw(C, lookahead_lr=0.1 / 3, key=KEY)
    state = tx.init(params)._replace(step=jnp.asarray(2, jnp.int32))
    got, _ = _step(tx, params, state, batch, meta)
    want, _ = _step(fixed, params, state, batch, meta)
    chex.assert_trees_all_close(got, want, rtol=1e-5)


def test_in_a_chain_with_injected_hyperparameters_and_accumulation():
    params, batch, meta = _problem()
    # optax's accumulation multiplies booleans by integers.
    with jax.numpy_dtype_promotion("standard"):
        method = optax.inject_hyperparams(
            transforms.gdw, static_args=("num_classes", "hidden")
        )(C, lookahead_lr=optax.constant_schedule(LR), key=KEY, clip=0.2)
        frozen = jax.tree.map(lambda _: "head", params) | {"w1": "frozen"}
        rest = optax.multi_transform(
            {"head": optax.adam(0.1), "frozen": optax.set_to_zero()}, frozen
        )
        rest = optax.MultiSteps(rest, every_k_schedule=2).gradient_transformation()
        tx = optax.chain(method, rest)

        @jax.jit
        def step(params, state):
            x, y = batch
            logits, jac = ltjax.linearize(lambda p: _mlp(p, x), params)
            return tx.update(
                jac,
                state,
                params,
                logits=logits,
                labels=y,
                meta_grad_fn=_meta_grad_fn("mlp", meta),
                value=0.0,  # of no interest to anyone here
            )

        state = tx.init(params)
        first, state = step(params, state)
        second, state = step(params, state)
    plain = transforms.gdw(C, lookahead_lr=LR, key=KEY)
    _, once = _step(plain, params, plain.init(params), batch, meta)
    _, twice = _step(plain, params, once, batch, meta)
    assert step._cache_size() == 1
    assert not any(np.any(u) for u in jax.tree.leaves(first))
    assert np.any(second["w2"])
    assert not np.any(second["w1"])
    chex.assert_trees_all_close(
        optax.tree.get(state, "net"), twice.net, rtol=1e-5, atol=1e-6
    )


def test_seeds_train_together_under_vmap():
    params, batch, meta = _problem()

    def run(key, lr):
        tx = transforms.gdw(C, lookahead_lr=lr, key=key)
        return _step(tx, params, tx.init(params), batch, meta)

    keys, lrs = jax.random.split(KEY, 2), jnp.array([0.1, 0.2])
    together = jax.jit(jax.vmap(run))(keys, lrs)
    for i in range(2):
        one = jax.tree.map(lambda a, i=i: a[i], together)
        chex.assert_trees_all_close(one, run(keys[i], lrs[i]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("level", "model"),
    [("class", "batch_norm"), ("class", "conv"), ("instance", "batch_norm")],
)
def test_eight_devices_equal_one(level, model, eight_devices):
    params, batch, meta = _problem(model, batch=16)
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level=level)
    state = tx.init(params)

    def step(params, state, batch, meta):
        return _step(tx, params, state, batch, meta, model)

    one = jax.jit(step)(params, state, batch, meta)
    everywhere = NamedSharding(eight_devices, P())
    split = NamedSharding(eight_devices, P("data"))
    args = jax.device_put(
        (params, state, batch, meta), (everywhere, everywhere, split, split)
    )
    eight = jax.jit(step, out_shardings=everywhere)(*args)
    chex.assert_trees_all_close(one, eight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["class", "instance"])
@pytest.mark.parametrize("case", ["saturated", "no_meta", "one_class", "tiny", "huge"])
def test_extremes_stay_finite(case, level):
    params, (x, y), meta = _problem()
    meta_grad_fn = _meta_grad_fn("mlp", meta)
    scale = {"saturated": 1e4, "huge": 1e30}.get(case, 1.0)
    if case == "one_class":
        y = jnp.zeros_like(y)
    if case == "no_meta":
        meta_grad_fn = functools.partial(jax.tree.map, jnp.zeros_like)
    if case == "tiny":
        x = jnp.zeros_like(x)
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level=level)
    state = tx.init(params)
    logits, jac = ltjax.linearize(lambda p: scale * _mlp(p, x), params)
    out = tx.update(
        jac, state, params, logits=logits, labels=y, meta_grad_fn=meta_grad_fn
    )
    chex.assert_tree_all_finite(out)
    if case == "no_meta":
        np.testing.assert_allclose(
            out[1].other_weight,
            transforms.apply_weighting_net(
                out[1].net if level == "instance" else state.net,
                optax.softmax_cross_entropy_with_integer_labels(logits, y),
            ).mean(),
            rtol=1e-5,
        )


def _gdw(**changes):
    return transforms.gdw(
        **({"num_classes": C, "lookahead_lr": LR, "key": KEY} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, r"num_classes.*at least 2.*1"),
        ({"num_classes": 5.0}, TypeError, r"num_classes.*integer.*5\.0"),
        ({"lookahead_lr": -0.1}, ValueError, r"lookahead_lr.*-0\.1"),
        ({"lookahead_lr": float("nan")}, ValueError, r"lookahead_lr.*nan"),
        ({"lookahead_lr": None}, TypeError, r"lookahead_lr.*None"),
        ({"key": 0}, TypeError, r"key.*jax\.random\.key.*0"),
        ({"key": jax.random.split(KEY)}, ValueError, r"key.*\(2,\)"),
        ({"step_size": -1.0}, ValueError, r"step_size.*-1\.0"),
        ({"clip": -0.2}, ValueError, r"clip.*-0\.2"),
        ({"clip": "0.2"}, TypeError, r"clip.*'0\.2'"),
        ({"hidden": 0}, ValueError, r"hidden.*at least 1.*0"),
        ({"net_learning_rate": -1e-3}, ValueError, r"net_learning_rate.*-0\.001"),
        ({"net_weight_decay": np.inf}, ValueError, r"net_weight_decay.*inf"),
        ({"level": "pixel"}, ValueError, r"level.*'class', 'instance'.*'pixel'"),
    ],
)
def test_bad_hyperparameters_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        _gdw(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"logits": jnp.ones((B, C + 1))}, ValueError, r"shape \(8, 5\).*\(8, 6\)"),
        ({"logits": jnp.ones(B)}, ValueError, r"logits.*2 dimensions.*\(8,\)"),
        ({"labels": jnp.ones(B)}, TypeError, r"labels.*integer.*float32"),
        ({"labels": jnp.ones(3, int)}, ValueError, r"labels.*\(8,\).*\(3,\)"),
        ({"params": None}, ValueError, r"params must be given.*None"),
        ({"meta_grad_fn": None}, TypeError, r"meta_grad_fn.*function.*NoneType"),
        (
            {"meta_grad_fn": lambda p: p["w1"]},
            ValueError,
            r"meta_grad_fn must return.*structure",
        ),
        (
            {"meta_grad_fn": lambda p: p | {"w2": jnp.ones(2)}},
            ValueError,
            r"meta_grad_fn must return.*w2.*\(7, 5\).*\(2,\)",
        ),
        (
            {"updates": {"w1": jnp.ones((F, 7))}},
            ValueError,
            r"updates must have the structure of params",
        ),
    ],
)
def test_bad_updates_are_named(changes, error, message):
    params, (x, y), meta = _problem()
    logits, jac = ltjax.linearize(lambda p: _mlp(p, x), params)
    tx = _gdw()
    call = {
        "updates": jac,
        "state": tx.init(params),
        "params": params,
        "logits": logits,
        "labels": y,
        "meta_grad_fn": _meta_grad_fn("mlp", meta),
    }
    with pytest.raises(error, match=message):
        tx.update(**(call | changes))


def test_averaged_gradients_and_other_class_counts_are_refused():
    params, batch, meta = _problem()
    tx = _gdw()
    extra = {
        "logits": _mlp(params, batch[0]),
        "labels": batch[1],
        "meta_grad_fn": _meta_grad_fn("mlp", meta),
    }
    with pytest.raises(ValueError, match="averaged"):
        tx.update(params, tx.init(params), params, **extra)
    with pytest.raises(ValueError, match=r"logits.*\(any, 9\).*\(8, 5\)"):
        _step(_gdw(num_classes=9), params, tx.init(params), batch, meta)
    with pytest.raises(TypeError, match="labels"):
        tx.update(params, tx.init(params), params, logits=extra["logits"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda z, y: transforms.zero_mean_weights(jnp.ones((2, 2)), z, y),
            r"weights.*\(2, 3\).*\(2, 2\)",
        ),
        (
            lambda z, y: transforms.logit_cotangents(jnp.ones(2), z, y),
            r"weights.*\(2, 3\).*\(2,\)",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(3), z, z, y),
            r"example_weights.*\(2,\).*\(3,\)",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(2), jnp.ones(2), z, y),
            r"meta_gradient.*\(2, 3\).*\(2,\)",
        ),
        (
            lambda z, y: transforms.apply_weighting_net(
                transforms.init_weighting_net(KEY), z
            ),
            r"losses.*1 dimension.*\(2, 3\)",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(2), z, z, y, step_size=-1.0),
            r"step_size.*-1\.0",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(2), z, z, y, clip=np.nan),
            r"clip.*nan",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 3)), jnp.array([0, 1]))
