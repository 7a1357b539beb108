"""Scores of wrong labels against loops, scikit-learn and cleanlab."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from ltjax import metrics


def _ranked(seed, n=60, levels=7):
    rng = np.random.default_rng(seed)
    return rng.integers(levels, size=n).astype(float), rng.random(n) < 0.3


def _predicted(seed, n=80, classes=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    z = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    p = np.exp(z)
    return p / p.sum(axis=1, keepdims=True), labels


def test_auroc_is_the_loop_over_pairs_and_scikit_learns():
    s, wrong = _ranked(0)
    pairs = [(a > b) + 0.5 * (a == b) for a in s[wrong] for b in s[~wrong]]
    got = metrics.detection(s, wrong).auroc
    assert got == pytest.approx(np.mean(pairs), rel=1e-14)
    assert got == pytest.approx(oracle.roc_auc_score(wrong, s), rel=1e-14)


def test_precision_is_the_mean_over_orders_of_equal_scores():
    s, wrong = _ranked(1)
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        order = np.lexsort((rng.random(s.size), -s))
        found.append(wrong[order[: wrong.sum()]].mean())
    error = 4 * np.std(found) / len(found) ** 0.5
    assert metrics.detection(s, wrong).precision == pytest.approx(
        np.mean(found), abs=error
    )


def test_extremes_of_a_ranking():
    wrong = np.array([True, True, False, False])
    assert metrics.detection(wrong.astype(float), wrong) == (1.0, 1.0)
    assert metrics.detection(-wrong.astype(float), wrong) == (0.0, 0.0)
    assert metrics.detection(np.zeros(4), wrong) == (0.5, 0.5)
    assert metrics.detection([-np.inf, 1, 0, -np.inf], wrong).auroc == 0.625


@pytest.mark.parametrize("wrong", [np.zeros(4, bool), np.ones(4, bool)])
def test_labels_of_one_kind_cannot_be_ranked(wrong):
    with pytest.raises(ValueError, match=r"true of some .* got [04] of 4"):
        metrics.detection(np.arange(4.0), wrong)


def test_quality_is_the_loop():
    p, y = _predicted(2)
    t = [np.mean([p[i, c] for i in range(len(y)) if y[i] == c]) for c in range(5)]
    expected = []
    for i in range(len(y)):
        adjusted = [p[i, c] - t[c] + max(t) for c in range(5)]
        expected.append(adjusted[y[i]] / sum(adjusted))
    np.testing.assert_allclose(metrics.label_quality(p, y), expected, rtol=1e-12)


def test_quality_is_cleanlabs():
    rank = pytest.importorskip("cleanlab.rank", reason="extra bench")
    p, y = _predicted(3)
    expected = rank.get_label_quality_scores(
        y, p, method="self_confidence", adjust_pred_probs=True
    )
    np.testing.assert_allclose(metrics.label_quality(p, y), expected, rtol=1e-6)


def test_quality_forgives_a_class_that_is_hard_as_a_whole():
    # Both labels have probability 0.6; this is usual in class 1 and low in class 0.
    p = np.array([[0.6, 0.4], [0.95, 0.05], [0.4, 0.6], [0.45, 0.55]])
    quality = metrics.label_quality(p, [0, 0, 1, 1])
    assert quality[0] < quality[2]


def test_quality_of_a_class_without_examples_is_finite():
    got = metrics.label_quality([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], [0, 1])
    assert np.isfinite(got).all()
    assert ((got >= 0) & (got <= 1)).all()
