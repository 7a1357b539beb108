"""A data set as its files have it, before splits, long tails and noise."""

from typing import NamedTuple

import numpy as np

from experiments.datasets.images import LazyImages
from experiments.datasets.readers.tables import Table

PARTS = ("train", "val", "test", "meta")


class Labelled(NamedTuple):
    """Images or features, and their targets."""

    inputs: np.ndarray | LazyImages
    labels: np.ndarray


class Source(NamedTuple):
    """A data set as its files have it."""

    parts: dict[str, Labelled]  # "train"; "val", "test", "meta" where it has them
    num_classes: int | None = None  # None: regression
    class_names: tuple[str, ...] | None = None


def from_arrays(parts: dict[str, Labelled]) -> Source:
    """Integer targets are classes 0 to C - 1, floating targets are regression."""
    for name, part in parts.items():
        if len(part.inputs) != len(part.labels) or np.ndim(part.labels) != 1:
            raise ValueError(
                f"{name} targets must have shape ({len(part.inputs)},), "
                f"got {np.shape(part.labels)}."
            )
    if np.issubdtype(parts["train"].labels.dtype, np.floating):
        return Source(parts)
    if not np.issubdtype(parts["train"].labels.dtype, np.integer):
        raise TypeError(
            "targets must be integers (classes) or floating (regression), "
            f"got {parts['train'].labels.dtype}."
        )
    return Source(parts, count_classes(parts))


def from_table(table: Table, task: str | None) -> Source:
    """Regression if the target is numbers, unless ``task`` says otherwise."""
    try:
        target = table.target.astype(np.float64)
    except ValueError:
        target = None
    if task == "regression" and target is None:
        raise ValueError("the target has text in it: task must be classification.")
    if target is not None and task != "classification":
        return Source({"train": Labelled(table.features, target)})
    levels, labels = np.unique(
        table.target if target is None else target, return_inverse=True
    )
    names = tuple(str(v) if target is None else f"{v:g}" for v in levels)
    return Source({"train": Labelled(table.features, labels)}, len(names), names)


def count_classes(parts: dict[str, Labelled]) -> int:
    """One more than the largest label of any part."""
    labels = np.concatenate([p.labels for p in parts.values()])
    if labels.min() < 0:
        raise ValueError(f"labels must be 0 or more, got {labels.min()}.")
    return int(labels.max()) + 1
