"""Class-balanced weights and losses against the authors' released code."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ltjax import losses

# Made by running the released PyTorch code in float64 (with float32 class weights).
GOLDEN = np.load(Path(__file__).parents[1] / "fixtures" / "class_balanced.npz")


@pytest.mark.parametrize("beta", ["0.99", "0.9999"])
@pytest.mark.parametrize(
    ("name", "loss_fn"),
    [
        ("softmax", losses.class_balanced_cross_entropy),
        ("sigmoid", losses.class_balanced_sigmoid),
        ("focal", losses.class_balanced_focal),
    ],
)
def test_mean_and_its_gradient_match_released_code(name, loss_fn, beta, x64):
    def mean(z):
        return loss_fn(
            z,
            GOLDEN["labels"],
            class_counts=GOLDEN["class_counts"],
            beta=float(beta),
        ).mean()

    value, grad = jax.jit(jax.value_and_grad(mean))(jnp.asarray(GOLDEN["logits"]))
    key = f"cb_{name}_beta{beta}"
    np.testing.assert_allclose(value, GOLDEN[f"{key}_loss"], rtol=1e-7)
    np.testing.assert_allclose(grad, GOLDEN[f"{key}_dlogits"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-7])
def test_weights_match_float64_and_have_mean_one(beta):
    counts = np.array([5000, 700, 31, 1])
    raw = (1 - beta) / (1 - beta ** counts.astype(np.float64))
    got = losses.class_balanced_weights(counts, beta=beta)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, raw / raw.mean(), rtol=2e-6)


def test_weights_run_from_equal_to_inverse_counts():
    counts = jnp.array([400, 20, 0])
    equal = losses.class_balanced_weights(counts, beta=0.0)
    np.testing.assert_array_equal(equal, np.ones(3))
    inverse = losses.class_balanced_weights(counts, beta=1 - 1e-9)
    want = 1 / np.array([400, 20, 1.0])  # an empty class counts as one example
    np.testing.assert_allclose(inverse, want / want.mean(), rtol=1e-5)


def test_without_focus_the_focal_losses_are_the_plain_ones():
    z, y = jax.random.normal(jax.random.key(0), (4, 3)), np.array([0, 1, 2, 0])
    counts = np.array([50, 5, 2])
    np.testing.assert_allclose(
        losses.focal(z, y, gamma=0.0),
        optax.softmax_cross_entropy_with_integer_labels(z, y),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        losses.class_balanced_focal(z, y, class_counts=counts, gamma=0.0),
        3 * losses.class_balanced_sigmoid(z, y, class_counts=counts),
        rtol=1e-6,
    )


@pytest.mark.parametrize("gamma", [0.3, 1.0, 5.0])
def test_focal_gradient_is_finite_where_one_minus_p_vanishes(gamma):
    """The power ``(1 - p)^gamma`` alone has an infinite slope there for gamma < 1."""
    z = jnp.array([[200.0, 0.0, 0.0]])
    grad = jax.grad(lambda z: losses.focal(z, jnp.array([0]), gamma=gamma).sum())(z)
    np.testing.assert_allclose(grad, np.zeros((1, 3)), atol=1e-20)


def test_weights_name_bad_input():
    with pytest.raises(ValueError, match=r"class_counts.*-1\.0 for class 1"):
        losses.class_balanced_weights(np.array([3, -1]), beta=0.9)
    with pytest.raises(ValueError, match=r"beta must be.*\[0\.0, 1\.0\), got 1"):
        losses.class_balanced_weights(np.array([3, 1]), beta=1)
    with pytest.raises(TypeError, match=r"class_counts must be an array, got list"):
        losses.class_balanced_weights([3, 1], beta=0.9)


def test_target_weights_multiply_any_loss(x64):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
    counts, labels = np.array([90, 10]), np.array([0, 1, 1])
    weights = losses.class_balanced_weights(counts, beta=0.99)
    got = losses.target_weights(labels, weights) * losses.focal(z, labels, gamma=0.0)
    expected = losses.class_balanced_cross_entropy(
        z, labels, class_counts=counts, beta=0.99
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    soft = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    np.testing.assert_allclose(
        jax.jit(losses.target_weights)(soft, weights), soft @ weights, rtol=1e-12
    )
    assert losses.target_weights(labels, np.array([1, 3])).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"class_weights .*-1\.0 for class 1"):
        losses.target_weights(labels, np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"labels .*\(any, 2\).*\(3, 3\)"):
        losses.target_weights(jnp.ones((3, 3)), weights)
