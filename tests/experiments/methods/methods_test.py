"""The step of every method, on a model small enough to check by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ltjax
from experiments import methods
from experiments.methods import (
    LOSSES,
    Absgd,
    Batch,
    ClassBalanced,
    Elm,
    Focal,
    Gdw,
    GradTail,
    Huber,
    L2rw,
    MethodConfig,
    MwNet,
    NoWeighting,
    OptimizerConfig,
    SquaredError,
)

COUNTS = np.array([40, 8, 2])
SGD = OptimizerConfig(learning_rate=0.1, weight_decay=0.01, schedule="constant")
CLASSIFICATION = [
    c for c in LOSSES.values() if not MethodConfig(loss=c()).is_regression
]


class Outputs(NamedTuple):
    logits: jax.Array
    embeddings: jax.Array


def apply(params, rest, x, *, train, key=None):
    """A hidden layer normalised over the batch, with a running mean, and a head."""
    h = x @ params["layer"]["kernel"]
    mean = h.mean(0) if train else rest
    h = jnp.tanh(h - mean)
    z = h @ params["head"]["kernel"] + params["head"]["bias"]
    return Outputs(z, h), (0.9 * rest + 0.1 * mean if train else rest)


def model(seed, outputs=3):
    rng = np.random.default_rng(seed)
    params = {
        "layer": {"kernel": rng.normal(size=(4, 5))},
        "head": {"kernel": rng.normal(size=(5, outputs)), "bias": np.zeros(outputs)},
    }
    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params), jnp.zeros(5)


def batch(seed, size=12, regression=False):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(size, 4)), jnp.float32)
    if regression:
        return Batch(x, jnp.asarray(rng.normal(size=size), jnp.float32))
    return Batch(x, jnp.asarray(rng.integers(0, 3, size), jnp.int32))


def _dtype(x):
    return x.dtype


def make(config, optimizer=SGD, class_counts=COUNTS, **kwargs):
    kwargs = {"epochs": 4, "steps_per_epoch": 5} | kwargs
    return methods.make_method(
        config, apply, optimizer=optimizer, class_counts=class_counts, **kwargs
    )


def run(config, steps=3, seed=0, **kwargs):
    method = make(config, **kwargs)
    state = method.init(*model(seed), batch(0).inputs, jax.random.key(seed))
    step = jax.jit(method.step)
    for i in range(steps):
        state, metrics = step(state, batch(i), batch(100 + i), jax.random.key(i))
    return state, metrics


CONFIGS = [
    *(MethodConfig(loss=loss()) for loss in CLASSIFICATION),
    MethodConfig(loss=Elm(kind="center")),
    MethodConfig(weighting=Absgd()),
    MethodConfig(weighting=GradTail(burn_in=1)),
    MethodConfig(
        weighting=GradTail(burn_in=1, activation="aligned", reference="clean")
    ),
    MethodConfig(weighting=Gdw()),
    MethodConfig(weighting=MwNet()),
    MethodConfig(weighting=L2rw()),
    MethodConfig(feature_penalty=0.01, max_norm=0.1),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: f"{c.loss.name}-{c.weighting.name}"
)
def test_step_moves_and_keeps_structure(config):
    method = make(config)
    first = method.init(*model(0), batch(0).inputs, jax.random.key(0))
    state, metrics = run(config)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, state)
    assert jax.tree.map(_dtype, first) == jax.tree.map(_dtype, state)
    assert int(state.step) == 3
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params))
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), first, state).params
    assert min(jax.tree.leaves(moved)) > 0
    assert metrics["weights"].shape == metrics["losses"].shape == (12,)
    assert np.isfinite(metrics["weights"]).all()
    np.testing.assert_allclose(metrics["loss"], metrics["losses"].mean(), rtol=1e-6)


def test_plain_step_is_sgd_with_coupled_decay():
    (params, rest), (x, y) = model(0), batch(0)

    def mean_loss(p):
        z = apply(p, rest, x, train=True)[0].logits
        return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()

    grads = jax.jit(jax.grad(mean_loss))(params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.01 * p), params, grads)
    state, metrics = run(MethodConfig(), steps=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, expected
    )
    np.testing.assert_allclose(metrics["weights"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], mean_loss(params), rtol=1e-6)
    np.testing.assert_allclose(metrics["weighted_loss"], metrics["loss"], rtol=1e-6)


def test_decay_may_spare_biases_and_classifier_scale():
    def decayed(which):
        optimizer = OptimizerConfig(
            learning_rate=0.1, weight_decay=10.0, decayed=which, schedule="constant"
        )
        return run(MethodConfig(), steps=2, optimizer=optimizer)[0].params

    every, kernels = decayed("all"), decayed("kernels")
    bias = ("head", "bias")
    assert not np.allclose(every[bias[0]][bias[1]], kernels[bias[0]][bias[1]])


def test_absgd_reports_its_own_weights():
    _, metrics = run(MethodConfig(weighting=Absgd(temperature=0.5)), steps=1)
    expected, _ = ltjax.absgd_weights(metrics["losses"], -jnp.inf, temperature=0.5)
    np.testing.assert_allclose(metrics["weights"], expected, rtol=1e-5)
    assert metrics["weighted_loss"] > metrics["loss"]


def test_start_epoch_delays_weighting_and_class_weights():
    config = MethodConfig(
        loss=ClassBalanced(start_epoch=1), weighting=Absgd(start_epoch=1)
    )
    _, plain = run(MethodConfig(), steps=5)
    _, before = run(config, steps=5)
    _, after = run(config, steps=6)
    np.testing.assert_allclose(before["losses"], plain["losses"], rtol=1e-5)
    np.testing.assert_allclose(before["weights"], 1.0, rtol=1e-6)
    assert np.ptp(after["weights"]) > 0.1


@pytest.mark.parametrize("weighting", [Gdw, MwNet, L2rw])
def test_meta_passes_leave_batch_statistics_alone(weighting):
    plain, _ = run(MethodConfig(), steps=1)
    meta, _ = run(MethodConfig(weighting=weighting()), steps=1)
    np.testing.assert_allclose(meta.rest, plain.rest, rtol=1e-6)


@pytest.mark.parametrize("loss", [SquaredError, Huber])
@pytest.mark.parametrize("weighting", [NoWeighting, Absgd, GradTail])
def test_regression(loss, weighting):
    config = MethodConfig(loss=loss(), weighting=weighting())
    method = make(config, class_counts=None)
    data = batch(0, regression=True)
    state = method.init(*model(0, outputs=1), data.inputs, jax.random.key(0))
    step = jax.jit(method.step)
    for _ in range(2):
        state, metrics = step(state, data, None, jax.random.key(0))
    outputs, _ = apply(*model(0, outputs=1), data.inputs, train=True)
    first = jnp.square(outputs.logits[:, 0] - data.targets)
    assert metrics["losses"].shape == (12,)
    assert metrics["losses"].mean() < first.mean()


def test_maps_over_seeds_and_scans():
    config = MethodConfig(weighting=Gdw())
    method = make(config)
    keys = jax.random.split(jax.random.key(0), 2)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), model(0), model(1))
    batches = jax.tree.map(lambda *x: jnp.stack(x), *(batch(i) for i in range(3)))
    metas = jax.tree.map(lambda *x: jnp.stack(x), *(batch(100 + i) for i in range(3)))

    def train(variables, key):
        state = method.init(*variables, batches.inputs[0], key)

        def body(state, xs):
            return method.step(state, *xs, key)

        return jax.lax.scan(body, state, (batches, metas))

    state, metrics = jax.jit(jax.vmap(train))(stacked, keys)
    assert metrics["weights"].shape == (2, 3, 12)
    single = method.init(*model(1), batches.inputs[0], keys[1])
    step = jax.jit(method.step)
    for i in range(3):
        single, _ = step(single, batch(i), batch(100 + i), keys[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-5),
        state.params,
        single.params,
    )


def test_hyperparameters_may_be_traced():
    def final_loss(rate, temperature, penalty):
        config = MethodConfig(
            weighting=Absgd(temperature=temperature), feature_penalty=penalty
        )
        method = make(config, OptimizerConfig(learning_rate=rate, weight_decay=0.0))
        state = method.init(*model(0), batch(0).inputs, jax.random.key(0))
        state, _ = method.step(state, batch(0), None, jax.random.key(0))
        return method.step(state, batch(0), None, jax.random.key(0))[1]["loss"]

    grid = jnp.array([0.0, 0.1]), jnp.array([1.0, 1.0]), jnp.array([0.0, 0.0])
    still, moved = jax.jit(jax.vmap(final_loss))(*grid)
    assert moved < still


def test_learning_rate_changes_once_per_epoch():
    def rates(**kwargs):
        config = OptimizerConfig(learning_rate=1.0, **kwargs)
        schedule = config.learning_rates(epochs=4, steps_per_epoch=3)
        return [float(schedule(step)) for step in range(0, 12, 3)], schedule

    cosine, schedule = rates(schedule="cosine")
    np.testing.assert_allclose(
        cosine, [0.5 * (1 + np.cos(np.pi * e / 4)) for e in range(4)], atol=1e-6
    )
    assert schedule(2) == schedule(0) != schedule(3)
    steps, _ = rates(schedule="step", milestones=(1, 3), factor=0.1)
    np.testing.assert_allclose(steps, [1, 0.1, 0.1, 0.01], rtol=1e-5)
    warm, _ = rates(schedule="constant", warmup_epochs=2)
    np.testing.assert_allclose(warm, [0.5, 1, 1, 1])


def test_gradtail_may_compare_with_the_unweighted_mean():
    def final(reference):
        config = MethodConfig(weighting=GradTail(burn_in=1, reference=reference))
        return run(config, steps=4)[1]["weights"]

    assert np.ptp(final("unweighted")) > 0.01
    assert abs(final("unweighted") - final("weighted")).max() > 1e-3


def test_refuses_combinations_without_meaning():
    with pytest.raises(ValueError, match="loss must be 'ce' with weighting='gdw'"):
        MethodConfig(weighting=Gdw(), loss=Focal())
    with pytest.raises(ValueError, match="feature_penalty must be 0"):
        MethodConfig(weighting=MwNet(), feature_penalty=0.1)
    with pytest.raises(ValueError, match=r"class_counts must be given"):
        make(MethodConfig(loss=SquaredError()))
