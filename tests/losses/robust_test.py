"""Limits, bounds and released values of the noise-robust losses."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltjax import losses

# One step of released ABSGD code on this criterion, in float64 (float32 constants).
GOLDEN = np.load(Path(__file__).parents[1] / "fixtures" / "symmetric_cross_entropy.npz")
Z = 3 * jax.random.normal(jax.random.key(0), (6, 4))
Y = np.array([0, 1, 2, 3, 0, 1])
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels(Z, Y)


def test_symmetric_cross_entropy_matches_released_code(x64):
    """Through ABSGD's first step: ``u = gamma alpha mean exp(l/T)``, weights + 1/B."""
    z, temperature = jnp.asarray(GOLDEN["logits"]), float(GOLDEN["temperature"])

    def loss_fn(z):
        return losses.symmetric_cross_entropy(z, GOLDEN["labels"], alpha=0.1, beta=2.0)

    value, vjp = jax.vjp(jax.jit(loss_fn), z)
    u = float(GOLDEN["gamma"] * GOLDEN["alpha"]) * jnp.exp(value / temperature).mean()
    np.testing.assert_allclose(u, GOLDEN["u"], rtol=1e-7)
    weights = (jnp.exp(value / temperature) / u + 1) / len(z)
    np.testing.assert_allclose((weights * value).sum(), GOLDEN["loss"], rtol=1e-7)
    (grad,) = vjp(weights)
    np.testing.assert_allclose(grad, GOLDEN["dlogits"], rtol=2e-7, atol=1e-9)


def test_symmetric_cross_entropy_without_reverse_is_cross_entropy():
    got = losses.symmetric_cross_entropy(Z, Y, alpha=0.5, beta=0.0)
    np.testing.assert_allclose(got, 0.5 * CROSS_ENTROPY, rtol=1e-5, atol=1e-6)


def test_reverse_term_is_bounded():
    """A hopeless example costs ``-log 1e-4``, up to three clipped probabilities."""
    z = jnp.array([[-1e4, 0.0, 0.0, 1e4]])
    got = losses.symmetric_cross_entropy(z, jnp.array([0]), alpha=0.0, beta=1.0)
    np.testing.assert_allclose(got, [-math.log(1e-4) * (1 + 2e-7)], rtol=1e-6)


def test_generalized_runs_from_cross_entropy_to_absolute_error():
    near_zero = losses.generalized_cross_entropy(Z, Y, q=1e-6)
    np.testing.assert_allclose(near_zero, CROSS_ENTROPY, rtol=1e-4)
    one = losses.generalized_cross_entropy(Z, Y, q=1.0)
    p = jnp.take_along_axis(jax.nn.softmax(Z), Y[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(one, 1 - p, atol=1e-6)


def test_generalized_is_exact_for_a_fitted_example():
    """1 - p^q cancels in float32; at p = 1 - 1e-9 the loss is 1e-9 all the same."""
    z = jnp.array([[math.log(1e9), 0.0]])
    got = losses.generalized_cross_entropy(z, jnp.array([0]))
    np.testing.assert_allclose(got, [1e-9], rtol=1e-5)


def test_truncation_stops_the_gradient_of_contradicted_examples():
    z, y = jnp.array([[-2.0, 2.0], [2.0, -2.0]]), jnp.array([0, 0])

    def total(z):
        return losses.truncated_generalized_cross_entropy(z, y, q=0.7, k=0.5).sum()

    grad = jax.grad(total)(z)
    np.testing.assert_array_equal(grad[0], [0.0, 0.0])
    plain = jax.grad(lambda z: losses.generalized_cross_entropy(z, y, q=0.7).sum())(z)
    np.testing.assert_array_equal(grad[1], plain[1])


def test_truncation_may_start_later():
    """Untrained, every target is below ``k`` and nothing would be learned."""
    z, y = 0.1 * Z, Y

    @jax.jit
    def gradient(epoch):
        k = jnp.where(epoch < 80, 0.0, 0.5)
        return jax.grad(
            lambda z: losses.truncated_generalized_cross_entropy(z, y, k=k).sum()
        )(z)

    plain = jax.grad(lambda z: losses.generalized_cross_entropy(z, y).sum())(z)
    np.testing.assert_array_equal(gradient(79), plain)
    np.testing.assert_array_equal(gradient(80), 0)
    loss = losses.truncated_generalized_cross_entropy(z, y, k=0.0)
    np.testing.assert_array_equal(loss, losses.generalized_cross_entropy(z, y))
