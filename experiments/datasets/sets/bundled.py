"""Sets that come with a package, or are made up."""

import numpy as np

from experiments.datasets.config import DataConfig
from experiments.datasets.source import Labelled, Source


def digits(_: DataConfig) -> Source:
    """1,797 grey images of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    names = tuple(map(str, range(10)))
    return Source({"train": Labelled(pixels, found.target)}, 10, names)


def synthetic(_: DataConfig) -> Source:
    """Ten classes of noisy 32 x 32 colour patterns; for smoke tests."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(64, 192, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)

    def part(per_class):
        labels = np.tile(np.arange(10), per_class)
        noise = rng.normal(0, 32, (len(labels), 32, 32, 3))
        images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
        return Labelled(images, labels)

    return Source({"train": part(64), "test": part(16)}, 10)


def diabetes(_: DataConfig) -> Source:
    """Regression on 442 rows of 10 features."""
    from sklearn.datasets import load_diabetes

    return Source({"train": Labelled(*load_diabetes(return_X_y=True))})
