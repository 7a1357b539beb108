"""Label noise: matrices entry by entry, and the labels they produce."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltjax import data

MATRICES = {
    "uniform with self": data.uniform_noise(10, 0.4, include_self=True),
    "uniform without self": data.uniform_noise(10, 0.4, include_self=False),
    "pair": data.pair_noise(10, 0.45),
    "block": data.block_noise(np.arange(10) // 5, 0.3),
    "flip": data.flip_noise(10, 0.4, np.random.default_rng(0)),
    "flip2": data.flip_noise(10, 0.4, np.random.default_rng(0), targets=2),
    "asymmetric": data.cifar10_asymmetric_noise(0.4),
    "no noise": np.eye(10),
    "all wrong": data.pair_noise(10, 1.0),
}
# Share of balanced labels that change.
CHANGED = {
    "uniform with self": 0.36,
    "uniform without self": 0.4,
    "pair": 0.45,
    "block": 0.3,
    "flip": 0.4,
    "flip2": 0.4,
    "asymmetric": 0.2,
    "no noise": 0.0,
    "all wrong": 1.0,
}


def _labels(size=20_000):
    return np.random.default_rng(5).permutation(np.arange(size) % 10)


def _rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("exact", [False, True, "total", "class"])
@pytest.mark.parametrize("kind", MATRICES)
def test_labels_follow_the_matrix(kind, exact):
    labels, transition = _labels(), MATRICES[kind]
    noisy, changed = data.corrupt_labels(labels, transition, _rng(), exact=exact)
    np.testing.assert_array_equal(changed, noisy != labels)
    seen = data.confusion_noise(labels, noisy, 10)
    # 2,000 labels a class: standard deviation at most 0.0112, five of them.
    np.testing.assert_allclose(seen, transition, atol=0.056)
    np.testing.assert_array_equal(seen[transition == 0], 0)
    if exact:
        assert changed.sum() == round(CHANGED[kind] * labels.size)
    else:
        assert changed.mean() == pytest.approx(CHANGED[kind], abs=0.018)


def test_the_number_of_changes_varies_unless_exact():
    labels, transition = _labels(1000), MATRICES["uniform without self"]
    for exact in (False, True):
        numbers = {
            int(data.corrupt_labels(labels, transition, _rng(s), exact=exact)[1].sum())
            for s in range(8)
        }
        assert (numbers == {400}) == exact


def test_noise_may_be_exact_in_every_class():
    """As in ABSGD's released code; in total says nothing of a single class."""
    transition = data.uniform_noise(3, 0.4, include_self=False)
    sizes = np.array([500, 50, 5])
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(3), sizes))

    def numbers(exact):
        drawn = [
            data.corrupt_labels(labels, transition, _rng(s), exact=exact)[1]
            for s in range(20)
        ]
        return np.array([np.bincount(labels[c], minlength=3) for c in drawn])

    np.testing.assert_array_equal(numbers("class"), np.tile([200, 20, 2], (20, 1)))
    np.testing.assert_array_equal(numbers("total").sum(1), 222)
    assert (numbers("total").std(0) > 0.5).all()


def test_rounding_in_every_class_keeps_the_total():
    labels, transition = np.repeat([0, 1, 2], 5), data.pair_noise(3, 0.3)
    changes = [
        data.corrupt_labels(labels, transition, _rng(s), exact="class")[1]
        for s in range(2000)
    ]
    numbers = np.array([np.bincount(labels[c], minlength=3) for c in changes])
    assert set(numbers.ravel()) == {1, 2}  # 1.5, up or down
    assert set(numbers.sum(1)) == {4, 5}  # 4.5
    # Standard deviation 0.0103: five of them.
    np.testing.assert_allclose(np.mean(changes, axis=0), 0.3, atol=0.052)


@pytest.mark.parametrize("exact", ["classes", 1, None])
def test_an_unknown_exactness_is_named(exact):
    with pytest.raises(ValueError, match=r"exact must be one of 'total', 'class'"):
        data.corrupt_labels([0, 1], np.eye(2), _rng(), exact=exact)


@pytest.mark.parametrize("exact", [True, "total", "class"])
def test_exact_noise_keeps_each_examples_probability(exact):
    # Classes that change with probability 0.9, 0.2 and never.
    transition = np.array([[0.1, 0.9, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 1.0]])
    labels = np.array([0, 0, 1, 1, 1, 2])
    rng = _rng()
    changes = [
        data.corrupt_labels(labels, transition, rng, exact=exact)[1]
        for _ in range(4000)
    ]
    assert {int(c.sum()) for c in changes} == {2, 3}  # 2.4, up or down
    # Standard deviation at most 0.0064: five of them.
    shares = np.mean(changes, axis=0)
    np.testing.assert_allclose(shares, [0.9, 0.9, 0.2, 0.2, 0.2, 0], atol=0.032)


def test_exact_noise_has_no_pattern():
    labels, transition = np.zeros(4000, np.int64), data.pair_noise(2, 0.5)
    changed = data.corrupt_labels(labels, transition, _rng(), exact=True)[1]
    both = np.mean(changed[1:] & changed[:-1])
    # Independent neighbours: 0.25 with a standard deviation of 0.007, five of them.
    assert both == pytest.approx(0.25, abs=0.035)


def test_noise_follows_its_generator():
    labels, transition = _labels(1000), MATRICES["pair"]
    first = data.corrupt_labels(labels, transition, _rng(1))[0]
    again = data.corrupt_labels(jnp.asarray(labels), jnp.asarray(transition), _rng(1))
    np.testing.assert_array_equal(first, again[0])
    assert not np.array_equal(
        first, data.corrupt_labels(labels, transition, _rng(2))[0]
    )


def test_no_labels_are_no_trouble():
    nothing = np.zeros(0, np.int64)
    for exact in (False, True):
        noisy, changed = data.corrupt_labels(nothing, np.eye(3), _rng(), exact=exact)
        assert noisy.shape == changed.shape == (0,)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_uniform_noise_is_the_formula(rate):
    own = data.uniform_noise(4, rate, include_self=True)
    others = data.uniform_noise(4, rate, include_self=False)
    for c in range(4):
        for d in range(4):
            expected = (1 - rate) * (c == d) + rate / 4
            assert own[c, d] == pytest.approx(expected)
            assert others[c, d] == pytest.approx(1 - rate if c == d else rate / 3)


def test_pair_and_block_noise_go_to_the_next_class():
    transition = data.pair_noise(3, 0.25)
    np.testing.assert_allclose(
        transition, [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]]
    )
    # Groups {0, 2, 3}, {1, 4} and {5}: 0 > 2 > 3 > 0, 1 > 4 > 1.
    got = data.block_noise([7, 3, 7, 7, 3, 0], 1.0).argmax(axis=1)
    np.testing.assert_array_equal(got, [2, 4, 3, 0, 1, 5])


@pytest.mark.parametrize("targets", [1, 2, 9])
def test_flip_noise_goes_to_a_few_other_classes(targets):
    transition = data.flip_noise(10, 0.3, _rng(), targets=targets)
    np.testing.assert_allclose(np.diag(transition), 0.7)
    others = transition[~np.eye(10, dtype=bool)].reshape(10, 9)
    np.testing.assert_allclose(np.sort(others)[:, -targets:], 0.3 / targets)
    assert (np.count_nonzero(others, axis=1) == targets).all()


def test_flip_noise_draws_every_class_equally_often():
    rng = _rng()
    mean = np.mean([data.flip_noise(4, 1.0, rng) for _ in range(3000)], axis=0)
    # Standard deviation 0.0086: five of them.
    np.testing.assert_allclose(mean, (1 - np.eye(4)) / 3, atol=0.043)


def test_asymmetric_noise_confuses_the_right_classes():
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    names += ["dog", "frog", "horse", "ship", "truck"]
    transition = data.cifar10_asymmetric_noise(0.4)
    confused = {
        names[c]: names[d]
        for c, d in np.argwhere((transition > 0) & (transition < 0.5))
    }
    assert confused == {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }
    np.testing.assert_allclose(transition.sum(axis=1), 1.0)


def test_cifar100_has_twenty_superclasses_of_five():
    groups = np.array(data.CIFAR100_SUPERCLASSES)
    np.testing.assert_array_equal(np.bincount(groups), [5] * 20)
    # Aquatic mammals: beaver, dolphin, otter, seal, whale.
    assert np.flatnonzero(groups == 0).tolist() == [4, 30, 55, 72, 95]
    following = data.block_noise(groups, 1.0).argmax(axis=1)
    np.testing.assert_array_equal(groups[following], groups)
    assert (following != np.arange(100)).all()


def test_confusion_is_the_loop_and_can_be_drawn_from():
    rng = _rng(3)
    labels, human = rng.integers(4, size=500), rng.integers(4, size=500)
    transition = data.confusion_noise(labels, human, 5)
    for c in range(4):
        for d in range(5):
            pairs = sum((y, h) == (c, d) for y, h in zip(labels, human, strict=True))
            assert transition[c, d] == pytest.approx(pairs / sum(labels == c))
    np.testing.assert_array_equal(transition[4], [0, 0, 0, 0, 1])
    noisy, _ = data.corrupt_labels([4, 4, 0], transition, rng)
    assert noisy[:2].tolist() == [4, 4]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: data.uniform_noise(1, 0.4, include_self=True),
            ValueError,
            "num_classes.*at least 2.*1",
        ),
        (
            lambda: data.uniform_noise(3, 1.4, include_self=True),
            ValueError,
            r"rate.*\[0, 1\].*1.4",
        ),
        (
            lambda: data.uniform_noise(3, 40, include_self=False),
            ValueError,
            r"rate.*\[0, 1\].*40",
        ),
        (lambda: data.pair_noise(1, 0.4), ValueError, "num_classes.*at least 2"),
        (lambda: data.pair_noise(3, "0.4"), TypeError, "rate.*number.*'0.4'"),
        (lambda: data.flip_noise(3, 0.4, 0), TypeError, "rng.*Generator.*int 0"),
        (lambda: data.flip_noise(3, 1.4, _rng()), ValueError, r"rate.*\[0, 1\].*1.4"),
        (
            lambda: data.flip_noise(3, 0.4, _rng(), targets=3),
            ValueError,
            "targets.*3 classes.*3",
        ),
        (lambda: data.block_noise([0.0, 1.0], 0.4), TypeError, "groups.*integer"),
        (lambda: data.cifar10_asymmetric_noise(-0.1), ValueError, "rate.*-0.1"),
        (
            lambda: data.confusion_noise([0, 1], [0], 2),
            ValueError,
            r"noisy_labels.*\(2,\).*\(1,\)",
        ),
        (
            lambda: data.confusion_noise([0], [2], 2),
            ValueError,
            r"noisy_labels.*\[0, 2\).*2",
        ),
        (
            lambda: data.corrupt_labels([0], np.ones((2, 3)), _rng()),
            ValueError,
            r"transition.*square.*\(2, 3\)",
        ),
        (
            lambda: data.corrupt_labels([0], 0.4, _rng()),
            ValueError,
            r"transition.*\(any, any\)",
        ),
        (
            lambda: data.corrupt_labels([0], [[1.5, -0.5], [0, 1]], _rng()),
            ValueError,
            "transition.*row 0.*minimum -0.5",
        ),
        (
            lambda: data.corrupt_labels([0], [[1, 0], [0, 0]], _rng()),
            ValueError,
            "transition.*row 1.*sum 0",
        ),
        (
            lambda: data.corrupt_labels([2], np.eye(2), _rng()),
            ValueError,
            r"labels.*\[0, 2\).*2",
        ),
        (
            lambda: data.corrupt_labels([0], np.eye(2), 0),
            TypeError,
            "rng.*Generator.*0",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
