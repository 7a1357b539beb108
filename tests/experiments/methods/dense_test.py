"""Losses, weights and predictions by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from experiments.methods import (
    Absgd,
    BalancedSoftmax,
    Batch,
    GradTail,
    MethodConfig,
    OptimizerConfig,
    make_method,
)
from experiments.models import Outputs

COUNTS = jnp.array([90.0, 9.0, 1.0])
SHAPE = (4, 3, 5)  # of a batch's labels


def _apply(params, rest, x, *, train, key=None):
    """A layer before the head, both by pixel."""
    h = jnp.tanh(x @ params["body"])
    return Outputs(h @ params["head"], h), rest


@pytest.fixture
def batch():
    x, y = jax.random.split(jax.random.key(0))
    return Batch(jax.random.normal(x, (*SHAPE, 2)), jax.random.randint(y, SHAPE, 0, 3))


def _steps(config, batch, count=1):
    method = make_method(
        config,
        _apply,
        optimizer=OptimizerConfig(
            learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant"
        ),
        epochs=1,
        steps_per_epoch=count,
        class_counts=COUNTS,
    )
    params = {"body": jnp.ones((2, 4)) / 3, "head": jnp.eye(4, 3)}
    key = jax.random.key(1)
    state = method.init(params, {}, batch.inputs, key)
    for _ in range(count):
        before = state.params
        state, metrics = jax.jit(method.step)(state, batch, None, key)
    change = jax.tree.map(lambda a, b: a - b, before, state.params)
    return before, change, metrics


def _losses(params, batch, shift):
    z = _apply(params, {}, batch.inputs, train=True)[0].logits + shift
    return -jnp.take_along_axis(
        jax.nn.log_softmax(z), batch.targets[..., None], axis=-1
    )[..., 0]


@pytest.mark.parametrize("balanced", [False, True])
def test_each_pixel_has_the_loss_of_an_example(batch, balanced):
    config = MethodConfig(loss=BalancedSoftmax()) if balanced else MethodConfig()
    params, change, metrics = _steps(config, batch)
    shift = jnp.log(COUNTS) if balanced else 0.0
    expected = _losses(params, batch, shift)
    np.testing.assert_allclose(metrics["losses"], expected, rtol=1e-5)
    assert metrics["predictions"].shape == SHAPE
    z = np.asarray(_apply(params, {}, batch.inputs, train=True)[0].logits)
    for at in np.ndindex(SHAPE):
        own = batch.targets[at]
        margin = z[at][own] - np.delete(z[at], own).max()
        np.testing.assert_allclose(metrics["margins"][at], margin, rtol=1e-5)
    np.testing.assert_array_equal(metrics["weights"], np.ones(SHAPE))
    gradient = jax.grad(lambda p: _losses(p, batch, shift).mean())(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), change, gradient
    )


def test_absgd_weighs_pixels_against_all_of_the_batch(batch):
    params, change, metrics = _steps(
        MethodConfig(weighting=Absgd(temperature=0.5)), batch
    )
    losses = np.asarray(_losses(params, batch, 0.0), np.float64)
    expected = np.exp(losses / 0.5) / np.exp(losses / 0.5).mean()
    np.testing.assert_allclose(metrics["weights"], expected, rtol=1e-4)
    gradient = jax.grad(lambda p: (expected * _losses(p, batch, 0.0)).mean())(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), change, gradient
    )


def test_gradtail_compares_gradients_of_the_head_by_pixel(batch):
    config = GradTail(
        activation="bump",
        similarity="dot_unit_mean",
        definition="row",
        layers="classifier",
        burn_in=1,
        decay=0.0,
        width=0.1,
    )
    params, change, metrics = _steps(MethodConfig(weighting=config), batch, count=2)
    # With decay 0 the reference is the gradient one step before.
    first, _, _ = _steps(MethodConfig(weighting=config), batch)
    head = jax.grad(lambda p: _losses(p, batch, 0.0).mean())(first)["head"]
    rows = jax.jacrev(lambda h: _losses(params | {"head": h}, batch, 0.0))(
        params["head"]
    )
    s = np.tensordot(rows, head / np.linalg.norm(head), ((3, 4), (0, 1)))
    expected = ltjax.gradtail_weights(
        jnp.asarray(s), activation=ltjax.transforms.bump(width=0.1)
    )
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(metrics["weights"], expected, rtol=2e-3, atol=1e-4)
    assert np.abs(change["body"]).max() > 0
