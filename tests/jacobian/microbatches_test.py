"""Microbatches give the products, weights and updates of the whole batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import ltjax

SIZE, CLASSES = 16, 3


@pytest.fixture
def problem(x64):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "w": jax.random.normal(keys[0], (5, 4), jnp.float64),
        "head": jax.random.normal(keys[1], (4, CLASSES), jnp.float64),
    }
    x = jax.random.normal(keys[2], (SIZE, 5), jnp.float64)
    return params, (x, jax.random.randint(keys[3], (SIZE,), 0, CLASSES))


def logits_fn(params, batch):
    return jnp.tanh(batch[0] @ params["w"]) @ params["head"]


def losses_fn(params, batch):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits_fn(params, batch), batch[1]
    )


@pytest.mark.parametrize("fun", [losses_fn, logits_fn])
@pytest.mark.parametrize("size", [1, 4, SIZE])
def test_products_are_those_of_dense_rows(fun, size, problem):
    params, batch = problem
    rows = jax.jacrev(lambda p: fun(p, batch))(params)
    outputs = fun(params, batch)
    cotangents = jnp.cos(jnp.arange(outputs.size, dtype=jnp.float64))
    cotangents = cotangents.reshape(outputs.shape)
    direction = jax.tree.map(jnp.sin, params)

    @jax.jit
    def products(params, batch):
        got, jac = ltjax.linearize_microbatches(
            fun, params, batch, microbatch_size=size
        )
        return (
            (got, jac.jvp(direction), jac.vjp(cotangents), jac.dense()),
            (
                jac.norms(definition="row"),
                jac.norms(definition="row", mask={"w": True, "head": False}),
            ),
        )

    flat = {k: r.reshape(*outputs.shape, -1) for k, r in rows.items()}
    squares = {k: jnp.sum(r**2, -1) for k, r in flat.items()}
    expected = (
        (
            outputs,
            sum(flat[k] @ direction[k].reshape(-1) for k in flat),
            jax.tree.map(lambda r: jnp.tensordot(cotangents, r, cotangents.ndim), rows),
            rows,
        ),
        (jnp.sqrt(squares["w"] + squares["head"]), jnp.sqrt(squares["w"])),
    )
    chex.assert_trees_all_close(products(params, batch), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "weighting",
    [
        ltjax.absgd(0.5),
        ltjax.gradtail(burn_in=1),
        ltjax.gradtail(activation="aligned", reference="clean", burn_in=1),
        ltjax.l2rw(),
        ltjax.gdw(CLASSES, lookahead_lr=0.1, key=jax.random.key(0)),
    ],
    ids=["absgd", "gradtail", "gradtail clean", "l2rw", "gdw"],
)
def test_weights_and_updates_are_those_of_the_whole_batch(weighting, problem):
    params, batch = problem
    fun = logits_fn if "net" in weighting.init(params)._fields else losses_fn
    extra = {"labels": batch[1], "meta_grad_fn": lambda p: p}

    def run(linearize):
        state, found = weighting.init(params), []
        for scale in (1.0, 0.9, 0.8):
            at = jax.tree.map(lambda p, s=scale: s * p, params)
            _, jac = linearize(at)
            *results, state = weighting.update_with_weights(jac, state, at, **extra)
            found.append(results)
        return found, state

    whole = jax.jit(lambda: run(lambda p: ltjax.linearize(lambda p: fun(p, batch), p)))
    parts = jax.jit(
        lambda: run(
            lambda p: ltjax.linearize_microbatches(fun, p, batch, microbatch_size=4)
        )
    )
    chex.assert_trees_all_close(parts(), whole(), rtol=1e-8, atol=1e-12)


def test_memory_is_that_of_a_microbatch():
    wide = {"w": jnp.ones((8, 512)), "head": jnp.ones((512, CLASSES))}
    x, y = jnp.ones((1024, 8)), jnp.zeros(1024, jnp.int32)

    def gradient(size):
        def fun(params, batch):
            losses, jac = ltjax.linearize_microbatches(
                losses_fn, params, batch, microbatch_size=size
            )
            return losses, jac.vjp(jnp.ones_like(losses))

        compiled = jax.jit(fun).lower(wide, (x, y)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert gradient(32) < gradient(1024) / 8


def test_sums_are_in_float32():
    """Sums of many small gradients in bfloat16 would stop growing."""
    x = jnp.full((1024, 1), 1.0, jnp.bfloat16)
    _, jac = ltjax.linearize_microbatches(
        lambda w, x: x @ w, jnp.ones(1, jnp.bfloat16), x, microbatch_size=1
    )
    np.testing.assert_array_equal(jac.vjp(jnp.ones(1024, jnp.bfloat16)), 1024)


def test_eight_devices_equal_one(problem, eight_devices):
    params, batch = problem
    tx = ltjax.gradtail(burn_in=0)

    def step(params, batch):
        _, jac = ltjax.linearize_microbatches(
            losses_fn, params, batch, microbatch_size=8
        )
        return tx.update(jac, tx.init(params), params)

    sharded = NamedSharding(eight_devices, PartitionSpec("data"))
    got = jax.jit(step)(params, jax.device_put(batch, sharded))
    expected = jax.jit(step)(params, batch)
    chex.assert_trees_all_close(got, expected, rtol=1e-8, atol=1e-12)
