"""Bad input to losses, heads, data and metrics is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bad_input import (
    COUNTS,
    FEATURES,
    HD,
    KEY,
    LABELS,
    PRIORS,
    C,
    Case,
    D,
    H,
    L,
    M,
    Y,
    Z,
    rng,
)

CASES = {
    # Losses.
    "logits rank": Case(
        lambda: L.focal(jnp.zeros(3), Y), ValueError, r"logits .*2 dimensions.*\(3,\)"
    ),
    "logits integers": Case(
        lambda: L.focal(Z.astype(int), Y), TypeError, "logits .*floating"
    ),
    "labels length": Case(
        lambda: L.focal(Z, Y[:3]), ValueError, r"labels .*\(4,\).*\(3,\)"
    ),
    "labels one-hot of other classes": Case(
        lambda: L.focal(Z, jax.nn.one_hot(Y, C + 1)),
        ValueError,
        r"labels .*\(4, 3\).*\(4, 4\)",
    ),
    "labels one-hot for pairs": Case(
        lambda: L.elm(Z, H, jax.nn.one_hot(Y, C), class_priors=PRIORS),
        ValueError,
        r"labels .*\(4,\).*\(4, 3\)",
    ),
    "labels one-hot integers": Case(
        lambda: L.focal(Z, jax.nn.one_hot(Y, C, dtype=int)),
        TypeError,
        "labels .*floating",
    ),
    "labels floating": Case(
        lambda: L.focal(Z, Y.astype(float)), TypeError, "labels .*integer"
    ),
    "one class": Case(
        lambda: L.focal(Z[:, :1], Y), ValueError, r"at least 2 classes.*\(4, 1\)"
    ),
    "priors length": Case(
        lambda: L.logit_adjusted_cross_entropy(Z, Y, class_priors=jnp.ones(2)),
        ValueError,
        r"class_priors .*\(3,\).*\(2,\)",
    ),
    "priors empty class": Case(
        lambda: L.logit_adjusted_cross_entropy(
            Z, Y, class_priors=jnp.array([0.5, 0.5, 0.0])
        ),
        ValueError,
        "class_priors .*positive.*class 2",
    ),
    "priors nan": Case(
        lambda: L.elm(Z, H, Y, class_priors=jnp.array([0.5, jnp.nan, 0.2])),
        ValueError,
        "class_priors .*finite.*nan.*class 1",
    ),
    "counts negative": Case(
        lambda: L.ldam(Z, Y, class_counts=jnp.array([3, -1, 2])),
        ValueError,
        "class_counts .*-1.*class 1",
    ),
    "beta": Case(
        lambda: L.class_balanced_cross_entropy(Z, Y, class_counts=COUNTS, beta=1.0),
        ValueError,
        "beta .*1.0",
    ),
    "focal gamma": Case(lambda: L.focal(Z, Y, gamma=-1.0), ValueError, "gamma .*-1.0"),
    "gce q": Case(
        lambda: L.generalized_cross_entropy(Z, Y, q=0.0), ValueError, "q .*0.0"
    ),
    "elm kind": Case(
        lambda: L.elm(Z, H, Y, class_priors=PRIORS, kind="triplet"),
        ValueError,
        "kind .*'triplet'",
    ),
    "elm margin": Case(
        lambda: L.elm(Z, H, Y, class_priors=PRIORS, margin="big"),
        ValueError,
        "margin .*'big'",
    ),
    "elm embeddings": Case(
        lambda: L.elm(Z, H[:2], Y, class_priors=PRIORS),
        ValueError,
        r"embeddings .*\(2, 5\)",
    ),
    "elm centers": Case(
        lambda: L.elm(Z, H, Y, class_priors=PRIORS, kind="center"),
        (TypeError, ValueError),
        "centers",
    ),
    # Heads.
    "etf more classes than dimensions": Case(
        lambda: HD.simplex_etf(KEY, 10, 4), ValueError, "(?s)10.*4"
    ),
    "etf key": Case(lambda: HD.simplex_etf(0, 3, 4), TypeError, "key must be a typed"),
    "adjust mode": Case(
        lambda: HD.adjust_logits(Z, PRIORS, tau=1.0, mode="power"),
        ValueError,
        "mode .*'power'",
    ),
    "adjust priors": Case(
        lambda: HD.adjust_logits(Z, PRIORS[:2], tau=1.0),
        ValueError,
        r"class_priors .*\(3,\).*\(2,\)",
    ),
    # Data.
    "factor zero": Case(
        lambda: D.exponential_counts(10, 100, 0.0), ValueError, "factor .*0"
    ),
    "factor above one": Case(
        lambda: D.step_counts(10, 100, 1.5), ValueError, "factor .*1.5"
    ),
    "counts too large": Case(
        lambda: D.subsample(LABELS, [5, 1, 1], rng()), ValueError, r"counts .*5"
    ),
    "labels negative": Case(
        lambda: D.class_counts([-1, 0, 1], 2), ValueError, "labels .*-1"
    ),
    "label too large": Case(
        lambda: D.class_counts([0, 1, 2], 2), ValueError, "labels .*2"
    ),
    "noise rate": Case(
        lambda: D.uniform_noise(10, 1.2, include_self=True), ValueError, "rate .*1.2"
    ),
    "noise matrix": Case(
        lambda: D.corrupt_labels(LABELS, np.ones((3, 3)), rng()),
        ValueError,
        "transition",
    ),
    "noise generator": Case(
        lambda: D.corrupt_labels(LABELS, np.eye(3), 0), TypeError, "rng .*Generator"
    ),
    "meta set too large": Case(
        lambda: D.meta_split(LABELS, 9, rng()), ValueError, "size .*9"
    ),
    "priors of nothing": Case(
        lambda: D.class_priors([0, 0, 0]), ValueError, "class_counts"
    ),
    # Metrics.
    "predictions length": Case(
        lambda: M.balanced_accuracy(LABELS[:2], LABELS, 3),
        ValueError,
        r"predictions|labels",
    ),
    "no examples": Case(
        lambda: M.balanced_accuracy([], [], 3),
        (TypeError, ValueError),
        "predictions|labels",
    ),
    "shots order": Case(
        lambda: M.shot_accuracy(LABELS, LABELS, [9, 5, 1], many=1, few=5),
        ValueError,
        "many|few",
    ),
    "features rank": Case(
        lambda: M.fisher_discriminant_ratio(FEATURES[0], LABELS, 3),
        ValueError,
        "features",
    ),
    "features nan": Case(
        lambda: M.tightness(np.full((6, 3), np.nan), LABELS, 3), ValueError, "features"
    ),
    "probabilities": Case(
        lambda: M.expected_calibration_error(np.full((6, 3), 2.0), LABELS),
        ValueError,
        "probabilities",
    ),
    "bins": Case(
        lambda: M.expected_calibration_error(
            np.full((6, 3), 1 / 3), LABELS, num_bins=0
        ),
        ValueError,
        "num_bins .*0",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_refused_by_name(case):
    case.check()
