"""Limits of the label-distribution-aware margin."""

import jax
import numpy as np
import optax

from ltjax import losses

Z = jax.random.normal(jax.random.key(0), (3, 3))
Y = np.array([0, 1, 2])


def test_without_margin_and_scale_is_plain_cross_entropy():
    got = losses.ldam(Z, Y, class_counts=np.array([90, 9, 1]), max_margin=0, scale=1)
    want = optax.softmax_cross_entropy_with_integer_labels(Z, Y)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_rarest_class_has_the_largest_margin_and_rarity_counts_by_fourth_root():
    """Counts 10000, 16, 1: margins 0.05, 0.25 and 0.5 below the target's logit."""
    counts = np.array([10_000, 16, 1])
    got = losses.ldam(Z, Y, class_counts=counts, max_margin=0.5, scale=1.0)
    for i, margin in enumerate([0.05, 0.25, 0.5]):
        z = np.asarray(Z[i], np.float64)
        z[i] -= margin
        want = np.log(np.exp(z).sum()) - z[i]
        np.testing.assert_allclose(got[i], want, rtol=1e-5)


def test_an_empty_class_counts_as_one_example():
    got = losses.ldam(Z, Y, class_counts=np.array([90, 9, 0]))
    want = losses.ldam(Z, Y, class_counts=np.array([90, 9, 1]))
    np.testing.assert_array_equal(got, want)
