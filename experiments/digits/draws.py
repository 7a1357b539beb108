"""Splits of scikit-learn's 1,797 handwritten digits, one for every seed."""

from typing import Literal, NamedTuple

import numpy as np

from experiments.datasets.config import DataConfig
from experiments.datasets.sets import bundled
from ltjax import data

NUM_CLASSES = 10
TEST, VAL, META, TRAIN = 40, 20, 10, 100  # examples per class
FACTOR, NOISE_RATE = 0.02, 0.4

Scenario = Literal["long-tail", "noise"]


class Draw(NamedTuple):
    """What one seed sees: indices into the images, and their labels."""

    labels: np.ndarray  # [N], classes numbered in an order of the seed's own
    given: np.ndarray  # [N], as used in training: partly wrong where there is noise
    train: np.ndarray
    val: np.ndarray
    meta: np.ndarray
    test: np.ndarray  # the same images for every seed


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """Images ``[N, 64]`` in [0, 1] and classes ``[N]``."""
    images, classes = bundled.digits(DataConfig(name="digits")).parts["train"]
    pixels = np.asarray(images)
    levels = np.round(pixels.reshape(len(pixels), -1) * (16 / 255))  # 17 of them
    return (levels / 16).astype(np.float32), classes.astype(np.int64)


def draw(classes: np.ndarray, scenario: Scenario, seed: int) -> Draw:
    """Splits for a seed: the test images stay the same, all others change."""
    pool, test = data.meta_split(classes, NUM_CLASSES * TEST, np.random.default_rng(0))
    rng = np.random.default_rng([seed, 1])
    # Other digits are frequent for every seed: class 0 is the most frequent one.
    labels = rng.permutation(NUM_CLASSES)[classes]
    parts = {}
    for name, size in (("val", VAL), ("meta", META)):
        rest, own = data.meta_split(labels[pool], NUM_CLASSES * size, rng)
        pool, parts[name] = pool[rest], pool[own]
    counts = np.full(NUM_CLASSES, TRAIN)
    if scenario == "long-tail":
        counts = long_tail_counts()
    train = pool[data.subsample(labels[pool], counts, rng)]
    given = labels.copy()
    if scenario == "noise":
        transition = data.uniform_noise(NUM_CLASSES, NOISE_RATE, include_self=False)
        given[train], _ = data.corrupt_labels(
            labels[train], transition, rng, exact="total"
        )
    return Draw(labels, given, train=train, test=test, **parts)


def long_tail_counts() -> np.ndarray:
    """``[C]`` training examples of each class in the long tail."""
    return data.exponential_counts(NUM_CLASSES, TRAIN, FACTOR)
