"""What training reads: the parts of a data set, and their statistics."""

import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.datasets.images import LazyImages


class Arrays(NamedTuple):
    """Part of a set; ``inputs`` are ``LazyImages`` where images are streamed."""

    inputs: np.ndarray | LazyImages  # [N, H, W, C] uint8 or [N, F] float32
    targets: np.ndarray  # [N] int32 labels (dense: [N, H, W]) or [N] float32


class Classes(NamedTuple):
    """What is known of the classes of a set."""

    counts: np.ndarray  # [C], of the labels seen in training
    shots: tuple[int, int]  # more examples are "many", fewer than the second "few"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """A set ready for training."""

    train: Arrays
    val: Arrays
    test: Arrays
    meta: Arrays | None
    num_classes: int | None
    """None for regression."""
    class_names: tuple[str, ...] | None
    class_counts: np.ndarray | None
    """``[C]`` of the labels seen in training, noisy ones where there is noise."""
    clean_targets: np.ndarray
    """``[N_train]`` before corruption."""
    indices: dict[str, np.ndarray]
    """Where each example of a split stands in the part it was taken from."""
    digest: str
    """sha256 over indices and targets."""
    mean: np.ndarray
    std: np.ndarray
    """Of the training images in [0, 1] by channel; features come standardised."""
    shots: tuple[int, int] | None
    input_shape: tuple[int, ...]
    crop: str = "area"
    """What is cut from streamed training images, `DataConfig.stream_crop`."""
    files: list[str] | None = None
    """Of the training images, where they come from files of their own."""
    target_mean: float = 0.0
    target_std: float = 1.0
    """Regression targets are standardised; these undo it."""

    @property
    def dense(self) -> bool:
        """Whether every pixel has a label of its own."""
        return np.ndim(self.train.targets) > 1

    @property
    def classes(self) -> Classes:
        """The classes; a ValueError where targets are numbers."""
        if self.class_counts is None or self.shots is None:
            raise ValueError("targets must be classes here, got numbers.")
        return Classes(self.class_counts, self.shots)

    @property
    def streaming(self) -> bool:
        """Whether images are read while training, by ``streaming.stream``."""
        return isinstance(self.train.inputs, LazyImages)


def describe(splits: Splits) -> str:
    """Sizes, examples per class and noise rate, in a few lines."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    parts |= {"meta": splits.meta} if splits.meta else {}
    sizes = ", ".join(f"{len(p.targets):,} {name}" for name, p in parts.items())
    shape = " x ".join(map(str, splits.input_shape))
    head = f"{sizes}; inputs {shape}; digest {splits.digest[:12]}"
    about = _about_numbers if splits.class_counts is None else _about_classes
    return "\n".join([head, *about(splits)])


def _about_numbers(splits: Splits) -> list[str]:
    raw = splits.train.targets * splits.target_std + splits.target_mean
    low, middle, high, top = np.quantile(raw, [0, 0.5, 0.99, 1])
    return [
        f"target: min {low:.4g}, median {middle:.4g}, 99 % below {high:.4g}, "
        f"max {top:.4g}"
    ]


def _about_classes(splits: Splits) -> list[str]:
    counts = np.asarray(splits.class_counts)
    names = splits.class_names or tuple(map(str, range(len(counts))))
    order = np.argsort(-counts, kind="stable")
    named = [f"{names[c]} {counts[c]:,}" for c in order]
    if len(named) > 20:
        named[10:-10] = ["..."]
    lines = [f"{len(counts)} classes: {', '.join(named)}"]
    changed = np.mean(splits.train.targets != splits.clean_targets)
    if splits.shots is not None:
        many, few = splits.shots
        lines.append(
            f"many-shot (> {many}) {np.sum(counts > many)}, "
            f"few-shot (< {few}) {np.sum(counts < few)} classes; "
            f"{changed:.1%} of training labels changed"
        )
    return lines
