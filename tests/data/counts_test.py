"""Class profiles, counts and priors."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import data


@pytest.mark.parametrize(
    ("num_classes", "max_count", "rounding", "total"),
    [
        (10, 5000, "floor", 12406),
        (100, 500, "floor", 10847),
        (10, 4900, "floor", 12156),
        (100, 490, "floor", 10626),
        (10, 4980, "nearest", 12360),
        (100, 480, "nearest", 10457),
    ],
)
def test_published_totals_at_ratio_100(num_classes, max_count, rounding, total):
    counts = data.exponential_counts(num_classes, max_count, 0.01, rounding=rounding)
    assert counts.sum() == total
    assert counts[0] == max_count
    assert (np.diff(counts) <= 0).all()
    whole = int if rounding == "floor" else round
    expected = [
        whole(max_count * 0.01 ** (c / (num_classes - 1))) for c in range(num_classes)
    ]
    np.testing.assert_array_equal(counts, expected)


def test_factor_one_is_balanced_and_one_class_is_whole():
    np.testing.assert_array_equal(data.exponential_counts(5, 7, 1.0), [7] * 5)
    np.testing.assert_array_equal(data.exponential_counts(1, 7, 0.1), [7])


@pytest.mark.parametrize(
    ("num_classes", "expected"), [(4, [500, 500, 5, 5]), (5, [500, 500, 5, 5, 5])]
)
def test_step_counts(num_classes, expected):
    np.testing.assert_array_equal(data.step_counts(num_classes, 500, 0.01), expected)


def test_class_counts_are_the_loop():
    labels = np.random.default_rng(0).integers(5, size=100)
    expected = [sum(int(y == c) for y in labels) for c in range(8)]
    np.testing.assert_array_equal(data.class_counts(jnp.asarray(labels), 8), expected)


def test_class_priors_are_the_formula():
    counts = np.array([6.0, 2.0, 0.0])
    np.testing.assert_allclose(data.class_priors(counts), counts / 8)
    smoothed = data.class_priors(counts, smoothing=0.5)
    np.testing.assert_allclose(smoothed, [6.5 / 9.5, 2.5 / 9.5, 0.5 / 9.5])
    uniform = data.class_priors(counts, smoothing=1e12)
    np.testing.assert_allclose(uniform, 1 / 3, rtol=1e-11)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: data.exponential_counts(0, 10, 0.1),
            ValueError,
            "num_classes.*at least 1.*0",
        ),
        (
            lambda: data.exponential_counts(2.0, 10, 0.1),
            TypeError,
            "num_classes.*integer.*2.0",
        ),
        (
            lambda: data.exponential_counts(3, 10, 0.0),
            ValueError,
            r"factor.*\(0, 1\].*0.0",
        ),
        (
            lambda: data.exponential_counts(3, 10, 100),
            ValueError,
            r"factor.*\(0, 1\].*100",
        ),
        (lambda: data.exponential_counts(3, 0, 0.1), ValueError, "max_count.*got 0"),
        (
            lambda: data.exponential_counts(3, 5, 0.1, rounding="up"),
            ValueError,
            "rounding.*'floor', 'nearest'.*'up'",
        ),
        (lambda: data.step_counts(3, 10, -1), ValueError, "factor.*-1"),
        (
            lambda: data.class_counts([1, 2, 3], 3),
            ValueError,
            r"labels.*\[0, 3\).*3 at position 2",
        ),
        (lambda: data.class_counts([[1, 2]], 3), ValueError, r"labels.*\(1, 2\)"),
        (lambda: data.class_counts([True], 3), TypeError, "labels.*integer.*bool"),
        (
            lambda: data.class_priors([0, 0]),
            ValueError,
            "class_counts.*positive.*zeros",
        ),
        (lambda: data.class_priors([]), ValueError, "class_counts.*positive"),
        (
            lambda: data.class_priors([1, np.nan]),
            ValueError,
            "class_counts.*nan for class 1",
        ),
        (lambda: data.class_priors([1], smoothing=-1), ValueError, "smoothing.*-1"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
