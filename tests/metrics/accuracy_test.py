"""Accuracies against loops, scikit-learn and values of released code."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as oracle

from ltjax import metrics

# Values of the code released with arXiv 2305.16573, computed in float64.
RELEASED = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "metrics.npz")


def _random(seed, n=200, num_classes=6):
    rng = np.random.default_rng(seed)
    return rng.integers(num_classes, size=n), rng.integers(num_classes, size=n)


def _loop(predictions, labels, num_classes):
    accuracy = []
    for c in range(num_classes):
        own = [p == y for p, y in zip(predictions, labels, strict=True) if y == c]
        accuracy.append(sum(own) / len(own) if own else 0.0)
    return accuracy


def test_released_per_class_accuracy():
    got = metrics.per_class_accuracy(RELEASED["preds"], RELEASED["labels"], 5)
    np.testing.assert_allclose(got, RELEASED["per_class_acc"], rtol=0, atol=1e-12)


def test_released_shot_accuracy():
    many, few = RELEASED["shot_thresholds"]
    got = metrics.shot_accuracy(
        RELEASED["preds"],
        RELEASED["labels"],
        RELEASED["class_counts"],
        many=many,
        few=few,
    )
    np.testing.assert_allclose(got, RELEASED["shot_acc"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, list])
def test_per_class_accuracy_is_the_loop(convert):
    predictions, labels = _random(0)
    got = metrics.per_class_accuracy(convert(predictions), convert(labels), 8)
    np.testing.assert_allclose(got, _loop(predictions, labels, 8), rtol=1e-15)
    assert got.dtype == np.float64


def test_a_class_of_one_example_counts_in_full():
    got = metrics.per_class_accuracy([0, 1], [0, 2], 3)
    np.testing.assert_array_equal(got, [1, 0, 0])


def test_iou_is_the_loop_and_scikit_learns():
    predictions, labels = (x.reshape(10, 4, 5) for x in _random(3))
    got = metrics.iou(predictions, labels, 8)
    for c in range(8):
        pairs = list(zip(predictions.ravel(), labels.ravel(), strict=True))
        both = sum(p == c and y == c for p, y in pairs)
        either = sum(c in pair for pair in pairs)
        assert got[c] == (both / either if either else 0)
    expected = oracle.jaccard_score(labels.ravel(), predictions.ravel(), average=None)
    np.testing.assert_allclose(got[:6], expected, rtol=1e-15)
    with pytest.raises(ValueError, match=r"predictions.*\(2, 2\).*\(4,\)"):
        metrics.iou(np.zeros(4, int), np.zeros((2, 2), int), 2)


def test_balanced_accuracy_is_scikit_learns():
    predictions, labels = _random(1, num_classes=5)
    expected = oracle.balanced_accuracy_score(labels, predictions)
    assert metrics.balanced_accuracy(predictions, labels, 5) == pytest.approx(expected)
    # Classes without examples change nothing.
    assert metrics.balanced_accuracy(predictions, labels, 9) == pytest.approx(expected)


def test_balanced_accuracy_of_balanced_labels_is_accuracy():
    labels = np.repeat(np.arange(4), 25)
    predictions = np.random.default_rng(2).integers(4, size=100)
    got = metrics.balanced_accuracy(predictions, labels, 4)
    assert got == pytest.approx(np.mean(predictions == labels))


def test_shot_accuracy_is_the_mean_of_per_class_accuracies():
    predictions, labels = _random(3)
    counts = np.array([500, 101, 100, 20, 19, 1])  # both thresholds are medium
    a = _loop(predictions, labels, 6)
    got = metrics.shot_accuracy(predictions, labels, counts, many=100, few=20)
    expected = (np.mean(a[:2]), np.mean(a[2:4]), np.mean(a[4:]))
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_shot_accuracy_leaves_out_what_is_not_there():
    # Class 1 is many-shot but has no test example; no class is medium.
    got = metrics.shot_accuracy([0, 0, 2], [0, 2, 2], [500, 300, 0], many=100, few=20)
    assert got == (1.0, 0.0, 0.5)


@pytest.mark.parametrize("k", [1, 2, 6])
def test_top_k_accuracy_is_scikit_learns(k):
    rng = np.random.default_rng(4)
    scores, labels = rng.normal(size=(100, 6)), rng.integers(6, size=100)
    expected = np.mean(
        [y in np.argsort(-z)[:k] for z, y in zip(scores, labels, strict=True)]
    )
    got = metrics.top_k_accuracy(jnp.asarray(scores, jnp.float32), labels, k=k)
    assert got == pytest.approx(expected)
    if 1 < k < 6:
        expected = oracle.top_k_accuracy_score(labels, scores, k=k)
        assert got == pytest.approx(expected)


def test_top_1_breaks_ties_as_argmax():
    scores = np.random.default_rng(5).integers(3, size=(200, 4)).astype(np.float32)
    labels = np.arange(200) % 4
    got = metrics.top_k_accuracy(scores, labels, k=1)
    assert got == pytest.approx(np.mean(scores.argmax(axis=1) == labels))


def test_top_k_accuracy_takes_infinite_logits():
    assert metrics.top_k_accuracy([[-np.inf, np.inf]], [1], k=1) == 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metrics.per_class_accuracy([0.0], [0], 2),
            TypeError,
            "predictions.*integer.*float64",
        ),
        (
            lambda: metrics.per_class_accuracy([0], [2], 2),
            ValueError,
            r"labels.*\[0, 2\).*2 at position 0",
        ),
        (
            lambda: metrics.per_class_accuracy([0], [-1], 2),
            ValueError,
            r"labels.*-1 at position 0",
        ),
        (
            lambda: metrics.per_class_accuracy([7], [1], 2),
            ValueError,
            r"predictions.*\[0, 2\).*7",
        ),
        (
            lambda: metrics.balanced_accuracy([0, 1], [1], 2),
            ValueError,
            r"predictions.*\(1,\).*\(2,\)",
        ),
        (
            lambda: metrics.balanced_accuracy(np.zeros(0, int), np.zeros(0, int), 2),
            ValueError,
            "labels.*at least one",
        ),
        (
            lambda: metrics.balanced_accuracy([0], [0], 0),
            ValueError,
            "num_classes.*at least 1.*0",
        ),
        (
            lambda: metrics.shot_accuracy([0], [0], [5], many=10, few=20),
            ValueError,
            "few=20.*many=10",
        ),
        (
            lambda: metrics.shot_accuracy([0], [0], [-5], many=10, few=2),
            ValueError,
            "class_counts.*-5.*class 0",
        ),
        (
            lambda: metrics.shot_accuracy([0], [1], [5], many=10, few=2),
            ValueError,
            r"labels.*\[0, 1\)",
        ),
        (
            lambda: metrics.top_k_accuracy(np.zeros((2, 3)), [0, 1], k=4),
            ValueError,
            "k must be at most the 3.*4",
        ),
        (
            lambda: metrics.top_k_accuracy(np.zeros((2, 3)), [0], k=1),
            ValueError,
            r"labels.*\(2,\).*\(1,\)",
        ),
        (
            lambda: metrics.top_k_accuracy([[0.0, np.nan]], [0], k=1),
            ValueError,
            r"scores.*NaN.*\(0, 1\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
