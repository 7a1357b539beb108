"""Geometry of features against loops, limiting cases and values of released code."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import metrics

# Values of the code released with arXiv 2305.16573, computed in float64.
RELEASED = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "metrics.npz")


def _clusters(seed=0, counts=(30, 12, 5, 1), dim=7, spread=1.0):
    """Features around random centres, classes of different size."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = 2 * rng.normal(size=(len(counts), dim))
    return centres[labels] + spread * rng.normal(size=(labels.size, dim)), labels


def _simplex(num_classes):
    """Centred one-hot rows: a simplex equiangular tight frame up to scale."""
    return np.eye(num_classes) - 1 / num_classes


def _rotation(dim, seed=3):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def _cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


# Fisher's discriminant ratio


def test_released_fisher_ratio():
    got = metrics.fisher_discriminant_ratio(RELEASED["features"], RELEASED["labels"], 5)
    np.testing.assert_allclose(got, RELEASED["fdr"], rtol=1e-12)


def test_fisher_ratio_is_the_loop():
    h, labels = _clusters()
    within, between = np.zeros((7, 7)), np.zeros((7, 7))
    for c in range(4):
        mean = h[labels == c].mean(axis=0)
        for x in h[labels == c]:
            within += np.outer(x - mean, x - mean)
            between += np.outer(mean - h.mean(axis=0), mean - h.mean(axis=0))
    expected = np.trace(np.linalg.solve(within, between))
    got = metrics.fisher_discriminant_ratio(h, labels, 6)  # two empty classes
    assert got == pytest.approx(expected, rel=1e-12)


def test_fisher_ratio_ignores_scale_rotation_shift_and_constant_dimensions():
    h, labels = _clusters()
    expected = metrics.fisher_discriminant_ratio(h, labels, 4)
    scaled = h * np.logspace(-100, 100, 7)
    padded = np.concatenate([h, np.full((len(h), 3), 0.1)], axis=1)
    for same in (scaled, h @ _rotation(7) + 100.0, padded, padded[:, ::-1]):
        got = metrics.fisher_discriminant_ratio(same, labels, 4)
        assert got == pytest.approx(expected, rel=1e-9)


def test_fisher_ratio_with_fewer_examples_than_dimensions():
    # 12 examples of 3 classes in 50 dimensions: within-class scatter has rank 9.
    h, labels = _clusters(counts=(6, 4, 2), dim=50)
    x = (h - h.mean(axis=0)) / h.std(axis=0)
    means = np.stack([x[labels == c].mean(axis=0) for c in range(3)])
    residuals = x - means[labels]
    inverse = np.linalg.pinv(residuals.T @ residuals, rcond=1e-10)
    expected = np.trace(inverse @ means[labels].T @ means[labels])
    got = metrics.fisher_discriminant_ratio(h, labels, 3)
    assert got == pytest.approx(expected, rel=1e-8)


def test_fisher_ratio_grows_with_separation():
    ratios = [
        metrics.fisher_discriminant_ratio(*_clusters(spread=s), 4) for s in (2, 1, 0.5)
    ]
    assert ratios[0] < ratios[1] < ratios[2]


def test_collapsed_classes_have_no_fisher_ratio():
    # The means of seven equal vectors are off by rounding, which must not count.
    h = np.repeat(np.random.default_rng(0).normal(size=(3, 5)), 7, axis=0)
    labels = np.repeat(np.arange(3), 7)
    assert metrics.fisher_discriminant_ratio(h, labels, 3) == 0.0


# Cosines


def _pairs(h, labels, keep):
    n = len(h)
    return [
        _cosine(h[i], h[j])
        for i in range(n)
        for j in range(n)
        if i != j and keep(labels[i], labels[j])
    ]


def test_cosine_statistics_are_the_loop():
    h, labels = _clusters()
    got = metrics.cosine_statistics(h, labels, 5)
    everything = _pairs(h, labels, lambda a, b: True)
    assert got.overall == pytest.approx(np.mean(everything), abs=1e-13)
    within = _pairs(h, labels, lambda a, b: a == b)
    assert got.within == pytest.approx(np.mean(within), abs=1e-13)
    between = _pairs(h, labels, lambda a, b: a != b)
    assert got.between == pytest.approx(np.mean(between), abs=1e-13)
    for c in range(5):
        for d in range(5):
            pairs = _pairs(h, labels, lambda a, b, c=c, d=d: (a, b) == (c, d))
            expected = np.mean(pairs) if pairs else 0.0  # one example, or none
            assert got.by_class[c, d] == pytest.approx(expected, abs=1e-13)


def test_released_cosines():
    # Every example its own class: the matrix by class is that of the examples.
    matrix = RELEASED["cosine_matrix_first20"]
    got = metrics.cosine_statistics(RELEASED["features"][:20], np.arange(20), 20)
    off_diagonal = ~np.eye(20, dtype=bool)
    np.testing.assert_allclose(
        got.by_class[off_diagonal], matrix[off_diagonal], rtol=0, atol=1e-12
    )
    assert got.overall == pytest.approx(matrix[off_diagonal].mean(), abs=1e-12)


def test_a_cone_has_cosine_one_and_zero_vectors_have_cosine_zero():
    cone = np.outer(np.arange(1.0, 7.0), [1.0, 2.0, 3.0])
    assert metrics.cosine_statistics(cone, [0, 0, 0, 1, 1, 1], 2)[:3] == pytest.approx(
        (1, 1, 1)
    )
    got = metrics.cosine_statistics(np.zeros((4, 3)), [0, 0, 1, 1], 2)
    assert got[:3] == (0.0, 0.0, 0.0)


def test_cosines_of_extreme_lengths():
    h, labels = _clusters()
    lengths = np.logspace(-200, 200, len(h))[:, None]
    got = metrics.cosine_statistics(h * lengths, labels, 4)
    np.testing.assert_allclose(
        got[:3], metrics.cosine_statistics(h, labels, 4)[:3], atol=1e-13
    )


# Hoyer sparsity


def test_released_hoyer_sparsity():
    got = metrics.hoyer_sparsity(RELEASED["features"])
    np.testing.assert_allclose(got, RELEASED["hoyer"], rtol=0, atol=1e-12)


def test_hoyer_sparsity_of_known_vectors():
    x = np.array([[[0, 0, -5, 0], [1, 1, 1, 1]], [[0, 0, 0, 0], [1e200, 1e200, 0, 0]]])
    two_of_four = (2 - np.sqrt(2)) / (2 - 1)
    got = metrics.hoyer_sparsity(x)
    np.testing.assert_allclose(got, [[1, 0], [0, two_of_four]], atol=1e-14)


# Tightness


def test_tightness_is_the_loop():
    h, labels = _clusters()
    got = metrics.tightness(h, labels, 6)
    means = [h[labels == c].mean(axis=0) for c in range(4)]
    expected = []
    for c in range(4):
        squares = [np.sum((x - means[c]) ** 2) for x in h[labels == c]]
        spread = np.sqrt(sum(squares) / max(len(squares) - 1, 1))
        others = [np.linalg.norm(means[c] - means[d]) for d in range(4) if d != c]
        expected.append(spread / np.mean(others))
    # Class 3 has one example, 4 and 5 none.
    np.testing.assert_allclose(got.per_class, [*expected[:3], 0, 0, 0], rtol=1e-12)
    assert got.overall == pytest.approx(np.mean(expected[:3]), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_tightness_does_not_change_with_scale(scale):
    h, labels = _clusters()
    expected = metrics.tightness(h, labels, 4).per_class
    got = metrics.tightness(scale * h, labels, 4).per_class
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_tightness_is_smaller_for_tighter_classes():
    loose = metrics.tightness(*_clusters(spread=1.0), 4).per_class[:3]
    tight = metrics.tightness(*_clusters(spread=0.1), 4).per_class[:3]
    assert (tight < 0.2 * loose).all()


def test_tightness_where_centres_coincide_is_finite():
    got = metrics.tightness([[1.0], [-1.0], [2.0], [-2.0]], [0, 0, 1, 1], 2)
    assert np.isfinite(got.per_class).all()
    assert (got.per_class > 1e12).all()


# Neural collapse


def test_collapsed_classifier_is_at_zero():
    labels = np.repeat(np.arange(4), [5, 3, 2, 1])
    means = _simplex(4) @ _rotation(4)
    got = metrics.neural_collapse(3.0 * means[labels] + 1.0, labels, 7.0 * means)
    np.testing.assert_allclose(got, 0.0, atol=1e-12)


def test_neural_collapse_is_the_formula():
    h, labels = _clusters()
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(4, 7)), rng.normal(size=4)
    got = metrics.neural_collapse(h, labels, w, b)
    means = np.stack([h[labels == c].mean(axis=0) for c in range(4)])
    mu = means - means.mean(axis=0)
    within = np.mean(
        [np.cov(h[labels == c].T, bias=True) for c in range(3)] + [np.zeros((7, 7))],
        axis=0,
    )
    between = mu.T @ mu / 4
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 4
    assert got.nc1 == pytest.approx(nc1, rel=1e-9)
    lengths = np.linalg.norm(mu, axis=1)
    assert got.nc2_norm == pytest.approx(lengths.std() / lengths.mean(), rel=1e-9)
    angles = [
        abs(_cosine(mu[c], mu[d]) + 1 / 3) for c in range(4) for d in range(4) if c != d
    ]
    assert got.nc2_angle == pytest.approx(np.mean(angles), rel=1e-9)
    nc3 = np.linalg.norm(w / np.linalg.norm(w) - mu / np.linalg.norm(mu))
    assert got.nc3 == pytest.approx(nc3, rel=1e-9)
    differ = [
        np.argmax(w @ x + b) != np.argmin([np.linalg.norm(x - m) for m in means])
        for x in h
    ]
    assert got.nc4 == pytest.approx(np.mean(differ))


def test_classes_with_equal_means_are_far_from_collapse():
    x = np.random.default_rng(0).normal(size=(9, 4))
    shuffled = np.concatenate([x, x[::-1], np.roll(x, 4, axis=0)])
    got = metrics.neural_collapse(shuffled, np.repeat(np.arange(3), 9), np.eye(3, 4))
    assert 1e12 < got.nc1 < np.inf
    assert (got.nc2_norm, got.nc2_angle) == (0.0, 0.0)
    symmetric = [[1.0], [-1.0], [-1.0], [1.0]]  # means exactly 0
    assert metrics.neural_collapse(symmetric, [0, 0, 1, 1], [[1.0], [0.0]]).nc1 > 1e12


def test_empty_classes_are_left_out_of_the_geometry():
    h, labels = _clusters(counts=(9, 6, 4))
    w = np.random.default_rng(2).normal(size=(3, 7))
    expected = metrics.neural_collapse(h, labels, w)
    spread_out = np.array([0, 2, 3])[labels]
    more = np.zeros((5, 7))
    more[[0, 2, 3]] = w
    bias = [0.0, -1e9, 0.0, 0.0, -1e9]
    got = metrics.neural_collapse(h, spread_out, more, bias)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


# All of them


def _all(h, labels, num_classes):
    """Every number the geometry has to say."""
    collapse = metrics.neural_collapse(h, labels, np.ones((num_classes, h.shape[1])))
    return [
        metrics.fisher_discriminant_ratio(h, labels, num_classes),
        *metrics.cosine_statistics(h, labels, num_classes)[:3],
        *metrics.tightness(h, labels, num_classes).per_class,
        *collapse,
        *metrics.hoyer_sparsity(h),
    ]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.full((6, 3), 0.1), [0, 0, 1, 1, 2, 2]),  # all constant
        (np.zeros((6, 3)), [0, 0, 1, 1, 2, 2]),
        (np.eye(3), [0, 1, 2]),  # one example a class
        (np.eye(3), [1, 1, 1]),  # one class
        (np.ones((1, 3)), [0]),  # one example
        (np.repeat(np.eye(3), 2, axis=0) / 3, [0, 0, 1, 1, 2, 2]),  # collapsed
        (np.eye(3) * 1e-310, [0, 0, 1]),  # subnormal
    ],
)
def test_degenerate_features_give_finite_numbers(features, labels):
    assert np.isfinite(_all(features, labels, 4)).all()


def test_constant_features_have_no_geometry():
    # As above, the means are off by rounding.
    h = np.tile(np.random.default_rng(0).normal(size=5), (21, 1))
    labels = np.repeat(np.arange(3), 7)
    assert metrics.fisher_discriminant_ratio(h, labels, 3) == 0.0
    assert metrics.tightness(h, labels, 3).overall == 0.0
    assert metrics.neural_collapse(h, labels, np.eye(3, 5))[:3] == (0, 0, 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_jax_arrays_are_computed_in_float64(dtype):
    h, labels = _clusters()
    rounded = jnp.asarray(h, dtype)
    got = _all(rounded, jnp.asarray(labels), 4)
    expected = _all(np.asarray(rounded).astype(np.float64), labels, 4)
    np.testing.assert_array_equal(got, expected)


WITH_CLASSES = [
    metrics.fisher_discriminant_ratio,
    metrics.cosine_statistics,
    metrics.tightness,
    lambda h, y, c: metrics.neural_collapse(h, y, np.zeros((c, 2))),
]


@pytest.mark.parametrize("function", WITH_CLASSES)
@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (np.zeros(4), [0] * 4, ValueError, r"features.*\(any, any\).*\(4,\)"),
        (np.zeros((4, 2)), [0] * 3, ValueError, r"labels.*\(4,\).*\(3,\)"),
        (np.zeros((2, 2)), [0, 3], ValueError, r"labels.*\[0, 3\).*3 at position 1"),
        (np.zeros((2, 2)), [0.0, 1.0], TypeError, "labels.*integer.*float64"),
        (np.zeros((0, 2)), np.zeros(0, int), ValueError, "features.*at least one"),
        (np.array([[0, np.inf]]), [0], ValueError, r"features.*finite.*inf.*\(0, 1\)"),
        (np.array([["a", "b"]]), [0], TypeError, "features.*number"),
        (np.zeros((1, 2), complex), [0], TypeError, "features.*real.*complex"),
    ],
)
def test_bad_input_is_named(function, features, labels, error, message):
    with pytest.raises(error, match=message):
        function(features, labels, 3)


def test_bad_classifiers_and_vectors_are_named():
    h, labels = _clusters()
    with pytest.raises(ValueError, match=r"weights.*\(any, 7\).*\(4, 6\)"):
        metrics.neural_collapse(h, labels, np.zeros((4, 6)))
    with pytest.raises(ValueError, match=r"bias.*\(4,\).*\(5,\)"):
        metrics.neural_collapse(h, labels, np.zeros((4, 7)), np.zeros(5))
    with pytest.raises(ValueError, match=r"vectors.*at least 2.*\(3, 1\)"):
        metrics.hoyer_sparsity(np.zeros((3, 1)))
