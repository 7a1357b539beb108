"""The examples' data: scikit-learn's handwritten digits with a long tail."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn import datasets

from ltjax import data, metrics

NUM_CLASSES = 10


class Digits(NamedTuple):
    """Images ``[N, 64]`` in [0, 1] and labels ``[N]``; `test` and `clean` balanced."""

    train: tuple[np.ndarray, np.ndarray]  # from 128 examples of a class down to 6
    clean: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load() -> Digits:
    x, y = datasets.load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32), y.astype(np.int32)
    rng = np.random.default_rng(0)
    rest, test = data.meta_split(y, 400, rng)
    pool, clean = data.meta_split(y[rest], 50, rng)
    train = data.exponential_split(y[rest[pool]], 0.05, rng).train
    parts = rest[pool[train]], rest[clean], test
    return Digits(*((x[part], y[part]) for part in parts))


def batches(
    part: tuple[np.ndarray, np.ndarray], *, steps: int = 200, size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    x, y = part
    rng = np.random.default_rng(1)
    for _ in range(steps):
        chosen = rng.integers(len(y), size=size)
        yield x[chosen], y[chosen]


def report(logits: np.ndarray, labels: np.ndarray) -> float:
    """Prints and returns the balanced accuracy."""
    predictions = np.argmax(logits, axis=1)
    accuracy = metrics.balanced_accuracy(predictions, labels, NUM_CLASSES)
    print(f"balanced accuracy: {accuracy:.1%}")
    return accuracy
