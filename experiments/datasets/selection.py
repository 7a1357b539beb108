"""Which examples go where: test, validation and meta sets, then the training part."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from experiments.datasets.config import DataConfig
from ltjax import data


class Choice(NamedTuple):
    """The examples of a split."""

    part: str  # of the source
    indices: np.ndarray  # into that part

    def joined(self, indices: np.ndarray) -> "Choice":
        """With more examples of the same part."""
        return self._replace(indices=np.concatenate([self.indices, indices]))


def choose(
    labels: Mapping[str, np.ndarray], num_classes: int | None, config: DataConfig
) -> dict[str, Choice]:
    """The examples of every split.

    Args:
      labels: targets of each part of the source.
      num_classes: None in regression.
      config: what to hold out, and the shape of the long tail.
    """
    chosen = {}
    pool = np.arange(len(labels["train"]))  # what is left of the training part
    for split, size in _held_out(config).items():
        rng = config.generator(split)
        if split == "meta" and "meta" in labels:
            drawn = _draw(labels["meta"], size, num_classes, rng)
            chosen["meta"] = Choice("meta", drawn)
        elif split in labels and not (split == "val" and config.val_size is not None):
            chosen[split] = Choice(split, np.arange(len(labels[split])))
        else:
            drawn = _draw(labels["train"][pool], size, num_classes, rng)
            chosen[split] = Choice("train", pool[drawn])
            pool = np.delete(pool, drawn)
    left = labels["train"][pool]
    if config.train_size is not None:
        rng = config.generator("train")
        pool = pool[_draw(left, config.train_size, num_classes, rng)]
    elif config.recipe == "weight_balancing":
        train, val = _in_file_order(left, _classes(num_classes), config)
        chosen["val"] = Choice("train", pool[val])
        pool = pool[train]
    elif config.recipe != "none":
        pool = pool[_long_tail(left, _classes(num_classes), config)]
    return chosen | {"train": Choice("train", pool)}


def _held_out(config: DataConfig) -> dict[str, int | float]:
    """Size of each split to set apart: a number, or a share of each class."""
    sizes: dict[str, int | float] = {"test": 0.2}
    if config.recipe != "weight_balancing":
        sizes["val"] = 0.1 if config.val_size is None else config.val_size
    if config.meta_size:
        sizes["meta"] = config.meta_size
    return sizes


def _draw(
    labels: np.ndarray,
    size: int | float,
    num_classes: int | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Indices of a random part: balanced if a number, in proportion if a share."""
    if num_classes is None:
        count = size if isinstance(size, int) else round(size * len(labels))
        return np.sort(rng.choice(len(labels), count, replace=False))
    if isinstance(size, int):
        return data.meta_split(labels, size, rng, num_classes=num_classes)[1]
    available = data.class_counts(labels, num_classes)
    counts = np.maximum(np.round(size * available).astype(np.int64), 1)
    return data.subsample(labels, np.where(available < 3, 0, counts), rng)


def _long_tail(labels: np.ndarray, num_classes: int, config: DataConfig) -> np.ndarray:
    """Indices of the longest tail of this shape that the examples allow."""
    profile = data.step_counts if config.recipe == "step" else data.exponential_counts
    counts = _largest(
        lambda head: profile(num_classes, head, config.factor),
        data.class_counts(labels, num_classes),
    )
    return data.subsample(labels, counts, config.generator("recipe"))


def _in_file_order(
    labels: np.ndarray, num_classes: int, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The first of each class for training and the next for validation."""
    per_class = 20 if config.val_size is None else config.val_size // num_classes
    counts = _largest(
        lambda head: data.exponential_counts(
            num_classes, head, config.factor, rounding="nearest"
        ),
        data.class_counts(labels, num_classes) - per_class,
    )
    train = data.subsample(labels, counts, None)
    return train, np.setdiff1d(data.subsample(labels, counts + per_class, None), train)


def _largest(profile: Callable[[int], np.ndarray], available: np.ndarray) -> np.ndarray:
    """Class counts for the largest head for which no class runs short."""
    for head in range(available.max(), 0, -1):
        counts = profile(head)
        if (counts <= available).all():
            return counts
    raise ValueError(f"A class is left without examples: {available.tolist()}.")


def _classes(num_classes: int | None) -> int:
    """The number of classes, which `check` has made sure of."""
    assert num_classes is not None
    return num_classes
