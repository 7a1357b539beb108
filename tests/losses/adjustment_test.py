"""Limits and identities of the adjusted cross-entropies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ltjax import losses

COUNTS = np.array([900, 80, 0, 20])
Z = jax.random.normal(jax.random.key(0), (5, 4))
Y = np.array([0, 1, 2, 3, 0])
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels(Z, Y)


def test_uniform_priors_or_zero_strength_are_plain_cross_entropy():
    for priors, tau in [(np.full(4, 0.25), 1.7), (np.array([4.0, 3, 2, 1]), 0.0)]:
        got = losses.logit_adjusted_cross_entropy(Z, Y, class_priors=priors, tau=tau)
        np.testing.assert_allclose(got, CROSS_ENTROPY, rtol=1e-5)
    got = losses.balanced_softmax(Z, Y, class_counts=np.full(4, 7))
    np.testing.assert_allclose(got, CROSS_ENTROPY, rtol=1e-5)


def test_balanced_softmax_counts_an_empty_class_as_one_example():
    got = losses.balanced_softmax(Z, Y, class_counts=COUNTS)
    priors = np.maximum(COUNTS, 1) / np.maximum(COUNTS, 1).sum()
    want = losses.logit_adjusted_cross_entropy(Z, Y, class_priors=priors)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_gradient_of_logits_is_prediction_under_the_priors_minus_target():
    priors = np.array([0.7, 0.1, 0.1, 0.1], np.float32)
    got = jax.grad(
        lambda z: losses.logit_adjusted_cross_entropy(z, Y, class_priors=priors).sum()
    )(Z)
    odds = jnp.exp(Z) * priors[None, :]
    want = odds / odds.sum(axis=1, keepdims=True) - jax.nn.one_hot(Y, 4)
    np.testing.assert_allclose(got, want, atol=1e-6)
