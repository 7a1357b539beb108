"""Regression errors and shot regions against loops."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import metrics


def _random(n=50):
    rng = np.random.default_rng(0)
    return rng.normal(size=n), rng.normal(size=n)


def test_errors_are_the_loop():
    predictions, targets = _random()
    e = [abs(p - t) for p, t in zip(predictions, targets, strict=True)]
    got = metrics.regression_errors(predictions, targets)
    product = 1.0
    for x in e:
        product *= x ** (1 / len(e))
    expected = (sum(e) / 50, (sum(x * x for x in e) / 50) ** 0.5, product, 50)
    assert got == pytest.approx(expected, rel=1e-12)


def test_where_selects_examples():
    predictions, targets = _random()
    where = targets > 0
    got = metrics.regression_errors(predictions, targets, where=where)
    assert got == metrics.regression_errors(predictions[where], targets[where])


def test_extreme_errors_stay_finite():
    got = metrics.regression_errors([1e200, 0.0], [0.0, 0.0])
    assert got[:3] == pytest.approx((5e199, 1e200 / np.sqrt(2), 1e94), rel=1e-12)
    assert metrics.regression_errors([1.0], [1.0]) == (
        0.0,
        0.0,
        pytest.approx(1e-12),
        1,
    )
    assert metrics.regression_errors([1.0], [1.0], where=[False]) == (0, 0, 0, 0)


def test_float32_device_arrays_are_accepted():
    got = metrics.regression_errors(jnp.ones(3), jnp.zeros(3, jnp.bfloat16))
    assert got == (1.0, 1.0, 1.0, 3)


def test_class_shots_cover_every_class_once():
    counts = np.array([200, 101, 100, 50, 20, 19, 0])
    got = metrics.class_shots(counts, many=100, few=20)
    np.testing.assert_array_equal(got.many, counts > 100)
    np.testing.assert_array_equal(got.few, counts < 20)
    np.testing.assert_array_equal(np.sum(got, axis=0), 1)


def test_target_shots_are_the_loop():
    rng = np.random.default_rng(1)
    train, targets = rng.exponential(size=300), rng.exponential(size=80) * 2 - 0.5
    edges = np.linspace(0, 4, 9)
    got = metrics.target_shots(targets, train, bins=edges, many=40, few=10)
    for i, t in enumerate(targets):
        count = 0
        for low, high in itertools.pairwise(edges):
            if low <= t < high:
                count = sum(low <= x < high for x in train)
        expected = (count > 40, 10 <= count <= 40, count < 10)
        assert tuple(mask[i] for mask in got) == expected


def test_target_shots_with_a_number_of_bins():
    train = [0.0, 0.1, 0.2, 1.0]  # two bins over [0, 1], the last one closed
    got = metrics.target_shots([0.4, 1.0, 1.1, -0.1], train, bins=2, many=2, few=1)
    np.testing.assert_array_equal(got.many, [True, False, False, False])
    np.testing.assert_array_equal(got.medium, [False, True, False, False])
    np.testing.assert_array_equal(got.few, [False, False, True, True])


def test_an_edge_belongs_to_the_bin_above():
    train = [0.5, 1.0, 1.5]  # one in [0, 1), two in [1, 2]
    got = metrics.target_shots([0.0, 1.0, 2.0], train, bins=[0, 1, 2], many=1, few=1)
    np.testing.assert_array_equal(got.many, [False, True, True])


def test_target_shots_of_nothing_and_of_equal_targets():
    empty = metrics.target_shots([], [1.0], bins=3, many=1, few=1)
    assert [mask.shape for mask in empty] == [(0,)] * 3
    got = metrics.target_shots([2.0], [2.0, 2.0], bins=3, many=1, few=1)
    assert got.many[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metrics.regression_errors([1.0], [1.0, 2.0]),
            ValueError,
            r"predictions.*\(2,\).*\(1,\)",
        ),
        (
            lambda: metrics.regression_errors([np.nan], [1.0]),
            ValueError,
            r"predictions.*finite.*nan",
        ),
        (
            lambda: metrics.regression_errors([[1.0]], [[1.0]]),
            ValueError,
            r"targets.*\(1, 1\)",
        ),
        (
            lambda: metrics.regression_errors([1.0], [1.0], where=[1]),
            TypeError,
            "where.*bool.*int64",
        ),
        (
            lambda: metrics.regression_errors([1.0], [1.0], where=[True, True]),
            ValueError,
            r"where.*\(1,\).*\(2,\)",
        ),
        (lambda: metrics.class_shots([1], many=1, few=2), ValueError, "few=2.*many=1"),
        (
            lambda: metrics.class_shots([1], many=np.inf, few=1),
            ValueError,
            "many.*finite.*inf",
        ),
        (
            lambda: metrics.target_shots([1.0], [], bins=2, many=1, few=1),
            ValueError,
            "train_targets.*at least one",
        ),
        (
            lambda: metrics.target_shots([1.0], [1.0], bins=0, many=1, few=1),
            ValueError,
            "bins.*at least 1.*0",
        ),
        (
            lambda: metrics.target_shots([1.0], [1.0], bins=[1, 1], many=1, few=1),
            ValueError,
            "bins.*increasing",
        ),
        (
            lambda: metrics.target_shots([1.0], [1.0], bins=2.5, many=1, few=1),
            TypeError,
            "bins.*integer.*2.5",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
