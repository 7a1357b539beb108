"""Calibration against loops and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import calibration as oracle

from ltjax import metrics


def _random(seed=0, n=300, num_classes=4):
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, num_classes))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return p, rng.integers(num_classes, size=n)


def _loop(p, labels, num_bins):
    bins = [[] for _ in range(num_bins)]
    for row, y in zip(p, labels, strict=True):
        b = max(int(np.ceil(max(row) * num_bins)) - 1, 0)
        bins[b].append((max(row), int(np.argmax(row) == y)))
    gaps = (abs(sum(c - a for c, a in b)) for b in bins)
    return sum(gaps) / len(labels)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_error_is_the_loop(num_bins):
    p, labels = _random()
    got = metrics.expected_calibration_error(p, labels, num_bins=num_bins)
    assert got == pytest.approx(_loop(p, labels, num_bins), abs=1e-14)


def test_bins_are_scikit_learns():
    p, labels = _random(1)
    bins = metrics.reliability_bins(p, labels, num_bins=10)
    right, confidence = p.argmax(axis=1) == labels, p.max(axis=1)
    accuracy, mean = oracle.calibration_curve(right, confidence, n_bins=10)
    filled = bins.counts > 0
    np.testing.assert_allclose(bins.accuracy[filled], accuracy, rtol=1e-14)
    np.testing.assert_allclose(bins.confidence[filled], mean, rtol=1e-14)
    assert bins.counts.sum() == len(labels)
    np.testing.assert_allclose(bins.edges, np.arange(11) / 10)


def test_edges_belong_to_the_bin_below():
    bins = metrics.reliability_bins([[0.5, 0.5], [1.0, 0.0]], [0, 0], num_bins=2)
    np.testing.assert_array_equal(bins.counts, [1, 1])


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    p = np.eye(3)
    assert metrics.expected_calibration_error(p, [0, 1, 2]) == 0.0
    assert metrics.expected_calibration_error(p, [1, 2, 0]) == 1.0


def test_bfloat16_softmax_is_accepted():
    z = jax.random.normal(jax.random.key(0), (64, 100), jnp.bfloat16)
    got = metrics.expected_calibration_error(jax.nn.softmax(z), np.zeros(64, int))
    assert 0.0 <= got <= 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f([[2.0, -1.0]], [0]), "probabilities.*row 0.*minimum -1"),
        (
            lambda f: f([[0.5, 0.5], [0.2, 0.2]], [0, 0]),
            "probabilities.*row 1.*sum 0.4",
        ),
        (lambda f: f([[0.5, np.nan]], [0]), r"probabilities.*finite.*\(0, 1\)"),
        (lambda f: f([0.5, 0.5], [0]), r"probabilities.*\(any, any\).*\(2,\)"),
        (lambda f: f([[0.5, 0.5]], [2]), r"labels.*\[0, 2\)"),
        (lambda f: f([[0.5, 0.5]], [0, 1]), r"labels.*\(1,\).*\(2,\)"),
        (lambda f: f([[0.5, 0.5]], [0], num_bins=0), "num_bins.*at least 1.*0"),
        (
            lambda f: f(np.zeros((0, 2)), np.zeros(0, int)),
            "probabilities.*at least one",
        ),
    ],
)
@pytest.mark.parametrize(
    "function", [metrics.reliability_bins, metrics.expected_calibration_error]
)
def test_bad_input_is_named(function, call, message):
    with pytest.raises(ValueError, match=message):
        call(function)
