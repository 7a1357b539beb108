"""Splits: sizes, disjointness, uniform draws and file order."""

import numpy as np
import pytest

from ltjax import data


def _labels(num_classes, size=50_000):
    """Balanced labels in random order, the size of CIFAR."""
    return np.random.default_rng(9).permutation(np.arange(size) % num_classes)


def _rng(seed=0):
    return np.random.default_rng(seed)


RECIPES = {
    "exponential": lambda y: data.exponential_split(y, 0.01, _rng()),
    "gdw": lambda y: data.gdw_split(y, 0.01, _rng()),
    "weight_balancing": lambda y: data.weight_balancing_split(y, 0.01),
    "step": lambda y: data.step_split(y, 0.01, _rng()),
}


@pytest.mark.parametrize(
    ("recipe", "num_classes", "train", "validation", "meta"),
    [
        ("exponential", 10, 12_406, 0, 0),
        ("exponential", 100, 10_847, 0, 0),
        ("gdw", 10, 12_156, 0, 1000),
        ("gdw", 100, 10_626, 0, 1000),
        ("weight_balancing", 10, 12_360, 200, 0),
        ("weight_balancing", 100, 10_457, 2000, 0),
        ("step", 10, 5 * 5000 + 5 * 50, 0, 0),
        ("step", 100, 50 * 500 + 50 * 5, 0, 0),
    ],
)
def test_recipe_has_the_published_size(recipe, num_classes, train, validation, meta):
    labels = _labels(num_classes)
    split = RECIPES[recipe](labels)
    assert [len(part) for part in split] == [train, validation, meta]
    together = np.concatenate(split)
    assert len(np.unique(together)) == len(together)  # disjoint, nothing twice
    counts = np.bincount(labels[split.train])
    assert (np.diff(counts) <= 0).all()
    for part in (split.validation, split.meta):
        assert len(set(np.bincount(labels[part], minlength=num_classes))) == 1


def test_random_recipes_follow_their_generator():
    labels = _labels(10, 1000)
    first, again = (data.exponential_split(labels, 0.1, _rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first.train, again.train)
    other = data.exponential_split(labels, 0.1, _rng(2))
    assert not np.array_equal(first.train, other.train)


def test_weight_balancing_split_is_the_loop_in_file_order():
    labels = _labels(4, 400)
    split = data.weight_balancing_split(labels, 0.1)
    train, validation = [], []
    for c in range(4):
        own = [i for i, y in enumerate(labels) if y == c]
        n = round(80 * 0.1 ** (c / 3))
        train += own[:n]
        validation += own[n : n + 20]
    assert split.train.tolist() == sorted(train)
    assert split.validation.tolist() == sorted(validation)


def test_gdw_split_at_factor_one_keeps_everything():
    split = data.gdw_split(_labels(10, 1000), 1.0, _rng(), meta_size=100)
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(1000))


def test_recipes_fit_the_smallest_class():
    labels = np.repeat(np.arange(3), [60, 50, 55])
    counts = np.bincount(labels[data.exponential_split(labels, 0.1, _rng()).train])
    np.testing.assert_array_equal(counts, [50, 15, 5])


def test_subsample_takes_the_first_of_each_class_in_file_order():
    labels = [2, 0, 0, 1, 0, 2, 1]
    got = data.subsample(labels, np.array([2, 0, 1]), None)
    assert got.tolist() == [0, 1, 2]


def test_subsample_draws_every_example_equally_often():
    labels = np.array([0] * 6 + [1] * 4)
    rng = _rng()
    draws = [data.subsample(labels, [3, 1], rng) for _ in range(4000)]
    assert all(np.array_equal(np.bincount(labels[d]), [3, 1]) for d in draws)
    shares = np.bincount(np.concatenate(draws), minlength=10) / 4000
    # Standard deviation at most 0.008: four of them.
    np.testing.assert_allclose(shares, [0.5] * 6 + [0.25] * 4, atol=0.032)


@pytest.mark.parametrize("size", [0, 4, 30, 32])
def test_meta_split_is_balanced_disjoint_and_complete(size):
    labels = np.repeat(np.arange(4), [100, 30, 10, 8])
    rest, meta = data.meta_split(labels, size, _rng())
    np.testing.assert_array_equal(np.sort(np.r_[rest, meta]), np.arange(148))
    counts = np.bincount(labels[meta], minlength=4)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: data.subsample([0, 0, 1], [2, 2], None),
            ValueError,
            "counts.*2 for class 1, which has 1",
        ),
        (
            lambda: data.subsample([0, 2], [1, 1], None),
            ValueError,
            r"labels.*\[0, 2\).*2",
        ),
        (
            lambda: data.subsample([0, 1], [1, -1], None),
            ValueError,
            r"counts.*-1\.0 for class 1",
        ),
        (
            lambda: data.subsample([0, 1], [1.0, 1.0], None),
            TypeError,
            "counts.*integer.*float64",
        ),
        (lambda: data.subsample([0, 1], [1, 1], 0), TypeError, "rng.*Generator.*int 0"),
        (
            lambda: data.meta_split([0, 0, 0, 1], 4, _rng()),
            ValueError,
            "size.*4.*2 examples of class 1, which has 1",
        ),
        (
            lambda: data.meta_split([1, 2], 3, _rng()),
            ValueError,
            "size.*class 0, which has 0",
        ),
        (
            lambda: data.meta_split([0, 1], -1, _rng()),
            ValueError,
            "size.*at least 0.*-1",
        ),
        (lambda: data.meta_split([0, 1], 1.5, _rng()), TypeError, "size.*integer.*1.5"),
        (lambda: data.meta_split([0, 1], 2, 42), TypeError, "rng.*Generator.*42"),
        (
            lambda: data.meta_split(np.zeros(0, int), 0, _rng()),
            ValueError,
            "labels.*empty.*num_classes",
        ),
        (
            lambda: data.exponential_split([1, 2, 3], 0.1, _rng()),
            ValueError,
            "labels.*none of class 0",
        ),
        (
            lambda: data.exponential_split([0, 1, 3], 0.1, _rng()),
            ValueError,
            "labels.*0 to 3.*none of class 2",
        ),
        (
            lambda: data.exponential_split([0, 1], 1.1, _rng()),
            ValueError,
            r"factor.*\(0, 1\].*1.1",
        ),
        (
            lambda: data.exponential_split([0, 1], 0.1, None),
            TypeError,
            "rng.*Generator.*None",
        ),
        (
            lambda: data.step_split([0, 1], 0.1, np.random),
            TypeError,
            "rng.*Generator.*module",
        ),
        (
            lambda: data.gdw_split(_labels(10, 100), 0.1, _rng(), meta_size=15),
            ValueError,
            "meta_size.*10 classes.*15",
        ),
        (
            lambda: data.gdw_split(_labels(10, 100), 0.1, _rng(), meta_size=100),
            ValueError,
            "meta_size.*10 a class.*has 10",
        ),
        (
            lambda: data.weight_balancing_split(_labels(10, 100), 0.1),
            ValueError,
            "validation_per_class.*20.*has 10",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
