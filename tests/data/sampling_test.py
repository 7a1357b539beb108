"""Samplers: class frequencies, no early repeats, resuming."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import data

COUNTS = np.array([60, 20, 0, 7, 1])


def _labels():
    return np.random.default_rng(2).permutation(np.repeat(np.arange(5), COUNTS))


def _rng(*seed):
    return np.random.default_rng(seed or 0)


PROBABILITIES = {
    "by example": data.sampling_probabilities(COUNTS, power=1),
    "square root": data.sampling_probabilities(COUNTS, power=0.5),
    "balanced": data.sampling_probabilities(COUNTS, power=0),
    "progressive": data.progressive_probabilities(COUNTS, progress=0.3),
}


def test_probabilities_are_the_formulas():
    by_example = COUNTS / 88
    np.testing.assert_allclose(PROBABILITIES["by example"], by_example)
    roots = [n**0.5 for n in COUNTS]
    np.testing.assert_allclose(PROBABILITIES["square root"], roots / np.sum(roots))
    balanced = np.array([0.25, 0.25, 0, 0.25, 0.25])
    np.testing.assert_allclose(PROBABILITIES["balanced"], balanced)
    np.testing.assert_allclose(
        PROBABILITIES["progressive"], 0.7 * by_example + 0.3 * balanced
    )


def test_progress_ends_at_the_two_plain_samplers():
    for progress, power in ((0, 1), (1, 0)):
        np.testing.assert_allclose(
            data.progressive_probabilities(COUNTS, progress=progress),
            data.sampling_probabilities(COUNTS, power=power),
        )


def test_probabilities_of_extreme_counts_are_finite():
    got = data.sampling_probabilities([1e300, 1e-300, 0], power=0.5)
    np.testing.assert_allclose(got, [1, 1e-300, 0], rtol=1e-12)


@pytest.mark.parametrize("size", [0, 1, 88, 501])
@pytest.mark.parametrize("kind", PROBABILITIES)
def test_an_epoch_has_the_stated_class_frequencies(kind, size):
    p, labels = PROBABILITIES[kind], _labels()
    epochs = [
        data.epoch_indices(labels, p, _rng(size, e), size=size) for e in range(200)
    ]
    drawn = np.array([np.bincount(labels[i], minlength=5) for i in epochs])
    assert (drawn.sum(axis=1) == size).all()
    # Each epoch to within one draw; on average without bias: the standard deviation of
    # the mean is at most 0.5 / sqrt(200) = 0.035, four of them.
    assert (np.abs(drawn - size * p) < 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), size * p, atol=0.142)


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_no_example_returns_before_its_class_is_exhausted(kind):
    labels = _labels()
    indices = data.epoch_indices(labels, PROBABILITIES[kind], _rng(), size=700)
    for c in np.flatnonzero(COUNTS):
        own = indices[labels[indices] == c]
        members = set(np.flatnonzero(labels == c))
        for start in range(0, len(own), COUNTS[c]):
            lap = own[start : start + COUNTS[c]].tolist()
            assert len(set(lap)) == len(lap)
            assert set(lap) <= members
            assert len(lap) == COUNTS[c] or start + COUNTS[c] > len(own)


def test_sampling_by_example_is_a_shuffle():
    for epoch in range(20):
        indices = data.epoch_indices(
            _labels(), PROBABILITIES["by example"], _rng(0, epoch)
        )
        np.testing.assert_array_equal(np.sort(indices), np.arange(88))
        assert not np.array_equal(indices, np.arange(88))


def test_balanced_epochs_show_every_example_in_time():
    labels, p = _labels(), PROBABILITIES["balanced"]
    shown = [data.epoch_indices(labels, p, _rng(0, e)) for e in range(30)]
    counts = np.bincount(np.concatenate(shown), minlength=88)
    # 22 of 60 in each epoch: an example misses 30 of them with probability 1e-6.
    assert (counts > 0).all()


def test_classes_are_spread_over_the_epoch():
    labels, p = _labels(), PROBABILITIES["balanced"]
    indices = data.epoch_indices(labels, p, _rng(), size=40_000)
    by_quarter = np.stack(
        [np.bincount(labels[q], minlength=5) for q in np.split(indices, 4)]
    )
    # Hypergeometric with standard deviation 37: five of them around 2,500.
    np.testing.assert_allclose(by_quarter[:, p > 0], 2500, atol=185)


def test_any_epoch_is_made_again_from_seed_and_epoch():
    labels, p = _labels(), PROBABILITIES["square root"]
    epochs = [data.epoch_indices(labels, p, _rng(7, e)) for e in range(3)]
    assert [len(e) for e in epochs] == [88] * 3
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(epochs[2], data.epoch_indices(labels, p, _rng(7, 2)))


def test_device_arrays_are_accepted():
    labels = jnp.array([0, 1, 1])
    got = data.epoch_indices(labels, jnp.array([0.5, 0.5]), _rng(), size=4)
    np.testing.assert_array_equal(np.bincount(np.asarray(labels)[got]), [2, 2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: data.sampling_probabilities([0, 0], power=0),
            ValueError,
            "class_counts.*zeros",
        ),
        (
            lambda: data.sampling_probabilities([1, -1], power=0),
            ValueError,
            "class_counts.*-1.*class 1",
        ),
        (
            lambda: data.sampling_probabilities([1], power=2),
            ValueError,
            r"power.*\[0, 1\].*2",
        ),
        (
            lambda: data.progressive_probabilities([1], progress=1.1),
            ValueError,
            "progress.*1.1",
        ),
        (
            lambda: data.epoch_indices([0], [0.5, 0.5], _rng()),
            ValueError,
            "class_probabilities.*0.5 for class 1",
        ),
        (
            lambda: data.epoch_indices([0], [0.9], _rng()),
            ValueError,
            "class_probabilities.*sum to 1.*0.9",
        ),
        (
            lambda: data.epoch_indices([0], [-1.0], _rng()),
            ValueError,
            "class_probabilities.*-1.*class 0",
        ),
        (
            lambda: data.epoch_indices([1], [1.0], _rng()),
            ValueError,
            r"labels.*\[0, 1\).*1",
        ),
        (
            lambda: data.epoch_indices([0], [1.0], _rng(), size=-1),
            ValueError,
            "size.*at least 0.*-1",
        ),
        (
            lambda: data.epoch_indices([0], [1.0], _rng(), size=1.0),
            TypeError,
            "size.*integer.*1.0",
        ),
        (lambda: data.epoch_indices([0], [1.0], 3), TypeError, "rng.*Generator.*3"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
