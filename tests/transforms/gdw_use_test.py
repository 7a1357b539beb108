"""GDW in training: compiled, scheduled, in chains, mapped, on several devices."""

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
from tests.transforms.gdw_problem import (
    KEY,
    LR,
    C,
    cross_entropy,
    gdw_step,
    make_problem,
    meta_gradient,
    mlp,
)


def test_rows_held_in_memory_are_the_same():
    params, (x, y), meta = make_problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)
    state = tx.init(params)
    rows = jax.jacrev(lambda p: mlp(p, x))(params)
    got = tx.update(
        rows,
        state,
        params,
        logits=mlp(params, x),
        labels=y,
        meta_grad_fn=meta_gradient("mlp", meta),
    )
    chex.assert_trees_all_close(
        got, gdw_step(tx, params, state, (x, y), meta), atol=1e-5
    )


def test_recomputed_forward_is_the_same():
    params, (x, y), meta = make_problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)
    state = tx.init(params)
    logits, jac = ltjax.linearize(jax.checkpoint(lambda p: mlp(p, x)), params)
    got = tx.update(
        jac,
        state,
        params,
        logits=logits,
        labels=y,
        meta_grad_fn=meta_gradient("mlp", meta),
    )
    chex.assert_trees_all_close(
        got, gdw_step(tx, params, state, (x, y), meta), atol=1e-6
    )


def test_meta_gradient_is_taken_once_and_not_differentiated():
    calls = []
    params, (x, y), meta = make_problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY)

    def meta_grad_fn(p):
        calls.append(p)
        # Fails to be differentiated once more.
        return jax.pure_callback(lambda q: q, p, jax.grad(_meta_loss)(p))

    def _meta_loss(p):
        return cross_entropy(mlp(p, meta[0]), meta[1])

    logits, jac = ltjax.linearize(lambda p: mlp(p, x), params)
    got, _ = tx.update(
        jac, tx.init(params), params, logits=logits, labels=y, meta_grad_fn=meta_grad_fn
    )
    want, _ = gdw_step(tx, params, tx.init(params), (x, y), meta)
    assert len(calls) == 1
    chex.assert_trees_all_close(got, want, atol=1e-6)


@pytest.mark.parametrize("level", ["class", "instance"])
def test_a_step_takes_one_softmax(level):
    params, (x, y), _ = make_problem()
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level=level)

    def step(params, state):
        logits, jac = ltjax.linearize(lambda p: mlp(p, x), params)
        return tx.update(
            jac, state, params, logits=logits, labels=y, meta_grad_fn=lambda p: p
        )

    jaxpr = str(jax.make_jaxpr(step)(params, tx.init(params)))
    assert jaxpr.count("= reduce_max[") == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("level", ["class", "instance"])
def test_jitted_steps_keep_dtypes_and_compile_once(level, dtype):
    params, batch, meta = make_problem("mlp", dtype)

    def schedule(step):
        return 0.1 * jnp.maximum(1 - step.astype(jnp.float32) / 3, 0)

    tx = optax.chain(
        transforms.gdw(C, lookahead_lr=schedule, key=KEY, level=level),
        optax.sgd(0.1, momentum=0.9),
    )

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state):
        updates, state = gdw_step(tx, params, state, batch, meta)
        return optax.apply_updates(params, updates), state

    start = params, tx.init(params)
    out = start
    for _ in range(5):  # past the end of the schedule, where it is 0
        out = step(*out)
    chex.assert_trees_all_equal_shapes_and_dtypes(out, start)
    chex.assert_tree_all_finite(out)
    method = out[1][0]
    assert method.step == 5
    assert method.net["w1"].dtype == jnp.float32
    assert not np.array_equal(method.net["w1"], start[1][0].net["w1"])


def test_bfloat16_is_close_to_float32():
    problem = make_problem("mlp", jnp.bfloat16)
    wide = jax.tree.map(
        lambda a: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a, problem
    )
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level="instance")
    results = []
    for params, batch, meta in (problem, wide):
        updates, _ = gdw_step(tx, params, tx.init(params), batch, meta)
        results.append(jax.tree.map(lambda a: np.asarray(a, np.float32), updates))
    chex.assert_trees_all_close(*results, atol=0.01)


def test_schedule_of_the_lookahead_is_read_at_the_step():
    params, batch, meta = make_problem()

    def schedule(step):
        return 0.1 / (1 + step.astype(jnp.float32))

    tx = transforms.gdw(C, lookahead_lr=schedule, key=KEY)
    fixed = transforms.gdw(C, lookahead_lr=0.1 / 3, key=KEY)
    state = tx.init(params)._replace(step=jnp.asarray(2, jnp.int32))
    got, _ = gdw_step(tx, params, state, batch, meta)
    want, _ = gdw_step(fixed, params, state, batch, meta)
    chex.assert_trees_all_close(got, want, rtol=1e-5)


def test_in_a_chain_with_injected_hyperparameters_and_accumulation():
    params, batch, meta = make_problem()
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
        @chex.assert_max_traces(n=1)
        def step(params, state):
            x, y = batch
            logits, jac = ltjax.linearize(lambda p: mlp(p, x), params)
            return tx.update(
                jac,
                state,
                params,
                logits=logits,
                labels=y,
                meta_grad_fn=meta_gradient("mlp", meta),
                value=0.0,  # of no interest to anyone here
            )

        state = tx.init(params)
        first, state = step(params, state)
        second, state = step(params, state)
    plain = transforms.gdw(C, lookahead_lr=LR, key=KEY)
    _, once = gdw_step(plain, params, plain.init(params), batch, meta)
    _, twice = gdw_step(plain, params, once, batch, meta)
    assert not any(np.any(u) for u in jax.tree.leaves(first))
    assert np.any(second["w2"])
    assert not np.any(second["w1"])
    chex.assert_trees_all_close(
        optax.tree.get(state, "net"), twice.net, rtol=1e-5, atol=1e-6
    )


def test_seeds_train_together_under_vmap():
    params, batch, meta = make_problem()

    def run(key, lr):
        tx = transforms.gdw(C, lookahead_lr=lr, key=key)
        return gdw_step(tx, params, tx.init(params), batch, meta)

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
    params, batch, meta = make_problem(model, batch=16)
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level=level)
    state = tx.init(params)

    def step(params, state, batch, meta):
        return gdw_step(tx, params, state, batch, meta, model)

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
    params, (x, y), meta = make_problem()
    meta_grad_fn = meta_gradient("mlp", meta)
    scale = {"saturated": 1e4, "huge": 1e30}.get(case, 1.0)
    if case == "one_class":
        y = jnp.zeros_like(y)
    if case == "no_meta":
        meta_grad_fn = functools.partial(jax.tree.map, jnp.zeros_like)
    if case == "tiny":
        x = jnp.zeros_like(x)
    tx = transforms.gdw(C, lookahead_lr=LR, key=KEY, level=level)
    state = tx.init(params)
    logits, jac = ltjax.linearize(lambda p: scale * mlp(p, x), params)
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
