"""Data sets: read, split, made long-tailed and noisy, and described.

``load(DataConfig(name="cifar10", recipe="exponential", factor=0.01))`` gives
``Splits``. The order of events is always the same: hold out what is to stay clean
and untouched (test, validation, meta), make the rest long-tailed, make its labels
noisy, and take the statistics of what is left. See docs/data.md.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from experiments.datasets import _catalogue
from experiments.datasets._catalogue import DataNotFoundError as DataNotFoundError
from experiments.datasets._catalogue import Source
from experiments.datasets._images import LazyImages, materialise
from experiments.datasets._readers import Labelled
from ltjax import data

Name = Literal[
    "digits",
    "synthetic",
    "diabetes",
    "cifar10",
    "cifar100",
    "mnist",
    "imagenet_lt",
    "inaturalist2018",
    "places_lt",
    "clothing1m",
    "california",
    "abalone",
    "bike",
    "adult",
    "arrays",
    "csv",
    "folder",
    "lists",
    "tfds",
]
Recipe = Literal["none", "exponential", "gdw", "weight_balancing", "step"]
Noise = Literal[
    "none",
    "uniform",
    "uniform_other",
    "pair",
    "asymmetric",
    "block",
    "human_aggre",
    "human_worse",
    "human_random1",
    "human_random2",
    "human_random3",
]

_LARGE = ("imagenet_lt", "inaturalist2018", "places_lt", "clothing1m")
_IMAGENET_MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.asarray([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, and what is done to it."""

    name: Name = "digits"
    """The data set."""
    path: str | None = None
    """Its folder or file. Default: LTJAX_DATA, then the tensorflow-datasets folder."""
    images: str | None = None
    """Folder that image lists are relative to. Default: that of the lists."""
    target: str | None = None
    """csv: the target column. Default: the last."""
    drop: tuple[str, ...] = ()
    """csv: columns to leave out."""
    task: Literal["classification", "regression"] | None = None
    """csv: what to make of the target. Default: by whether it is numbers."""
    image_size: int | None = None
    """Height and width of images from files. Default: their own, 224 if streamed."""
    stream: bool | None = None
    """Read images while training. Default: for the large sets only."""
    recipe: Recipe = "none"
    """How the training part is made long-tailed."""
    factor: float = 1.0
    """Smallest class over largest class: 0.01 is "ratio 100"."""
    noise: Noise = "none"
    """How training labels are corrupted."""
    noise_rate: float = 0.0
    """Probability that a label is drawn anew (uniform) or changed (all others)."""
    val_size: int | None = None
    """Validation examples to take from the training part, as many of each class; 0 for
    none. Default: the set's own validation part, else a tenth of each class."""
    meta_size: int = 0
    """Clean examples, as many of each class, kept apart for methods that learn
    from a small trusted set."""
    shots: tuple[int, int] | None = None
    """Classes with more examples are "many", with fewer than the second "few"."""
    seed: int = 0
    """Of splits, long tail and noise."""


class Arrays(NamedTuple):
    """Part of a set; ``inputs`` are ``LazyImages`` where images are streamed."""

    inputs: np.ndarray | LazyImages  # [N, H, W, C] uint8 or [N, F] float32
    targets: np.ndarray  # [N] int32 labels or [N] float32


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
    target_mean: float = 0.0
    target_std: float = 1.0
    """Regression targets are standardised; these undo it."""

    @property
    def streaming(self) -> bool:
        """Whether images are read while training, by ``streaming.stream``."""
        return isinstance(self.train.inputs, LazyImages)


def load(config: DataConfig) -> Splits:
    """Reads a set and makes the splits of a configuration.

    Raises:
      DataNotFoundError: if the set is not on this machine.
      ValueError: if the configuration does not fit the set.
    """
    return _assemble(_catalogue.READERS[config.name](config), config)


def from_arrays(inputs: np.ndarray, targets: np.ndarray, config: DataConfig) -> Splits:
    """The same from arrays: images or features, integer labels or real targets."""
    part = Labelled(np.asarray(inputs), np.asarray(targets))
    return _assemble(_catalogue.from_arrays({"train": part}), config)


def describe(splits: Splits) -> str:
    """Sizes, examples per class and noise rate, in a few lines."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    parts |= {"meta": splits.meta} if splits.meta else {}
    sizes = ", ".join(f"{len(p.targets):,} {name}" for name, p in parts.items())
    shape = " x ".join(map(str, splits.input_shape))
    lines = [f"{sizes}; inputs {shape}; digest {splits.digest[:12]}"]
    if splits.num_classes is None:
        raw = splits.train.targets * splits.target_std + splits.target_mean
        low, middle, high, top = np.quantile(raw, [0, 0.5, 0.99, 1])
        lines.append(
            f"target: min {low:.4g}, median {middle:.4g}, 99 % below {high:.4g}, "
            f"max {top:.4g}"
        )
        return "\n".join(lines)
    order = np.argsort(-splits.class_counts, kind="stable")
    names = splits.class_names or tuple(map(str, range(splits.num_classes)))
    named = [f"{names[c]} {splits.class_counts[c]:,}" for c in order]
    if len(named) > 20:
        named[10:-10] = ["..."]
    changed = np.mean(splits.train.targets != splits.clean_targets)
    many, few = splits.shots
    lines += [
        f"{splits.num_classes} classes: {', '.join(named)}",
        f"many-shot (> {many}) {np.sum(splits.class_counts > many)}, "
        f"few-shot (< {few}) {np.sum(splits.class_counts < few)} classes; "
        f"{changed:.1%} of training labels changed",
    ]
    return "\n".join(lines)


# How splits are made


def _assemble(source: Source, config: DataConfig) -> Splits:
    """Holds out, subsamples, corrupts, standardises: in this order."""
    _check(source, config)
    parts = {name: _part(part, source) for name, part in source.parts.items()}
    labels = parts["train"].targets
    chosen: dict[str, tuple[str, np.ndarray]] = {}  # split: part, indices into it
    pool = np.arange(len(labels))  # what is left of the training part
    for split, size in _held_out(source, config).items():
        rng = _rng(config, split)
        if split == "meta" and "meta" in parts:
            drawn = _draw(parts["meta"].targets, size, source, rng)
            chosen["meta"] = "meta", drawn
        elif split in parts and not (split == "val" and config.val_size is not None):
            chosen[split] = split, np.arange(len(parts[split].targets))
        else:
            drawn = _draw(labels[pool], size, source, rng)
            chosen[split] = "train", pool[drawn]
            pool = np.delete(pool, drawn)
    if config.recipe == "weight_balancing":
        train, val = _in_file_order(labels[pool], source, config)
        chosen["val"] = "train", pool[val]
        pool = pool[train]
    elif config.recipe != "none":
        pool = pool[_long_tail(labels[pool], source, config)]
    chosen["train"] = "train", pool

    splits = {
        split: Arrays(parts[part].inputs[i], parts[part].targets[i])
        for split, (part, i) in chosen.items()
    }
    clean = splits["train"].targets
    noisy = _corrupt(labels, pool, source, config)
    splits["train"] = splits["train"]._replace(targets=noisy)
    indices = {split: i.astype(np.int64) for split, (_, i) in chosen.items()}
    return _finish(splits, clean, indices, source, config)


def _held_out(source: Source, config: DataConfig) -> dict[str, int | float]:
    """Size of each split to set apart: a number, or a share of each class."""
    sizes = {"test": 0.2}
    if config.recipe != "weight_balancing":
        sizes["val"] = 0.1 if config.val_size is None else config.val_size
    if config.meta_size:
        sizes["meta"] = config.meta_size
    return sizes


def _draw(
    labels: np.ndarray, size: int | float, source: Source, rng: np.random.Generator
) -> np.ndarray:
    """Indices of a random part: balanced if a number, in proportion if a share."""
    if source.num_classes is None:
        count = size if isinstance(size, int) else round(size * len(labels))
        return np.sort(rng.choice(len(labels), count, replace=False))
    if isinstance(size, int):
        return data.meta_split(labels, size, rng, num_classes=source.num_classes)[1]
    available = data.class_counts(labels, source.num_classes)
    counts = np.maximum(np.round(size * available).astype(np.int64), 1)
    return data.subsample(labels, np.where(available < 3, 0, counts), rng)


def _long_tail(labels: np.ndarray, source: Source, config: DataConfig) -> np.ndarray:
    """Indices of the longest tail of this shape that the examples allow."""
    profile = data.step_counts if config.recipe == "step" else data.exponential_counts
    available = data.class_counts(labels, source.num_classes)
    counts = _largest(lambda n: profile(len(available), n, config.factor), available)
    return data.subsample(labels, counts, _rng(config, "recipe"))


def _in_file_order(
    labels: np.ndarray, source: Source, config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The first of each class for training and the next for validation."""
    classes = source.num_classes
    per_class = 20 if config.val_size is None else config.val_size // classes
    counts = _largest(
        lambda n: data.exponential_counts(
            classes, n, config.factor, rounding="nearest"
        ),
        data.class_counts(labels, classes) - per_class,
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


def _corrupt(
    labels: np.ndarray, train: np.ndarray, source: Source, config: DataConfig
) -> np.ndarray:
    """Training labels as they are seen in training."""
    if config.noise == "none":
        return labels[train]
    if config.noise.startswith("human_"):
        name = config.noise.removeprefix("human_")
        return _catalogue.human_labels(config, name, labels)[train]
    noisy, _ = data.corrupt_labels(
        labels[train],
        _transition(config, source.num_classes),
        _rng(config, "noise"),
        exact=config.noise == "uniform_other",
    )
    return noisy.astype(labels.dtype)


def _transition(config: DataConfig, num_classes: int) -> np.ndarray:
    """Probabilities ``[C, C]`` of every label given the true class."""
    rate = config.noise_rate
    match config.noise:
        case "uniform":
            return data.uniform_noise(num_classes, rate, include_self=True)
        case "uniform_other":
            return data.uniform_noise(num_classes, rate, include_self=False)
        case "pair":
            return data.pair_noise(num_classes, rate)
        case "asymmetric":
            return data.cifar10_asymmetric_noise(rate)
        case "block":
            return data.block_noise(data.CIFAR100_SUPERCLASSES, rate)


def _finish(
    splits: dict[str, Arrays],
    clean: np.ndarray,
    indices: dict[str, np.ndarray],
    source: Source,
    config: DataConfig,
) -> Splits:
    """Brings inputs and targets into their final form and takes statistics."""
    inputs = {split: arrays.inputs for split, arrays in splits.items()}
    targets = {split: arrays.targets for split, arrays in splits.items()}
    extra = {}
    if isinstance(inputs["train"], LazyImages) and not _streamed(config):
        inputs = {k: materialise(x, config.image_size) for k, x in inputs.items()}
    if isinstance(inputs["train"], LazyImages):
        size = config.image_size or 224
        shape, mean, std = (size, size, 3), _IMAGENET_MEAN, _IMAGENET_STD
    elif inputs["train"].dtype == np.uint8:
        shape = inputs["train"].shape[1:]
        mean, std = _channel_statistics(inputs["train"])
    else:
        inputs = _standardise(inputs)
        shape = inputs["train"].shape[1:]
        mean, std = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    if source.num_classes is None:
        centre, scale = float(clean.mean()), float(clean.std()) or 1.0
        targets = {
            k: ((t - centre) / scale).astype(np.float32) for k, t in targets.items()
        }
        clean = targets["train"]
        extra = {"target_mean": centre, "target_std": scale}
    splits = {k: Arrays(inputs[k], targets[k]) for k in splits}
    return Splits(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        meta=splits.get("meta"),
        num_classes=source.num_classes,
        class_names=source.class_names,
        class_counts=None
        if source.num_classes is None
        else data.class_counts(targets["train"], source.num_classes),
        clean_targets=clean,
        indices=indices,
        digest=_digest(indices, targets),
        mean=mean,
        std=std,
        shots=None if source.num_classes is None else _shots(config),
        input_shape=shape,
        **extra,
    )


def _part(part: Labelled, source: Source) -> Arrays:
    """Images as NHWC, anything else as rows of float64 features."""
    inputs = part.inputs
    if not isinstance(inputs, LazyImages):
        if inputs.dtype == np.uint8 and inputs.ndim in (3, 4):
            inputs = inputs[..., None] if inputs.ndim == 3 else inputs
        elif inputs.ndim == 2 and np.issubdtype(inputs.dtype, np.number):
            inputs = inputs.astype(np.float64)
        else:
            raise ValueError(
                "inputs must be uint8 images [N, H, W] or [N, H, W, C], or numbers "
                f"[N, F], got shape {inputs.shape} and dtype {inputs.dtype}."
            )
    kind = np.float64 if source.num_classes is None else np.int32
    return Arrays(inputs, np.asarray(part.labels, kind))


def _channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by channel of images scaled to [0, 1]."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256)
        share = share / share.sum()
        mean.append(share @ levels)
        std.append(np.sqrt(share @ (levels - mean[-1]) ** 2) or 1.0)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def _standardise(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Missing values to the median, then mean 0 and variance 1, as in training."""
    median = np.nanmedian(inputs["train"], axis=0)
    filled = {k: np.where(np.isnan(x), median, x) for k, x in inputs.items()}
    mean, std = filled["train"].mean(0), filled["train"].std(0)
    std[std == 0] = 1.0
    return {k: ((x - mean) / std).astype(np.float32) for k, x in filled.items()}


def _digest(indices: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> str:
    """Names a selection of examples with its labels."""
    sha = hashlib.sha256()
    for split in sorted(indices):
        sha.update(split.encode() + indices[split].tobytes() + targets[split].tobytes())
    return sha.hexdigest()


def _rng(config: DataConfig, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that one does not shift another."""
    purposes = ("test", "val", "meta", "recipe", "noise")
    return np.random.default_rng([config.seed, purposes.index(purpose)])


def _streamed(config: DataConfig) -> bool:
    return config.name in _LARGE if config.stream is None else config.stream


def _shots(config: DataConfig) -> tuple[int, int]:
    """Many and few: ten times the usual where a class has thousands of images."""
    large = config.name in ("cifar10", "mnist")
    return config.shots or ((1000, 200) if large else (100, 20))


def _check(source: Source, config: DataConfig) -> None:
    """Refuses a configuration that contradicts itself or the set."""
    long_tailed, noisy = config.recipe != "none", config.noise != "none"
    human = config.noise.startswith("human_")
    lazy = isinstance(source.parts["train"].inputs, LazyImages)
    classes = source.num_classes
    problems = {
        f"recipe={config.recipe!r} needs classes, {config.name!r} is regression": (
            long_tailed and classes is None
        ),
        f"noise={config.noise!r} needs classes, {config.name!r} is regression": (
            noisy and classes is None
        ),
        f"factor={config.factor} needs a recipe": (
            config.factor != 1 and not long_tailed
        ),
        f"noise_rate={config.noise_rate} does nothing with noise={config.noise!r}": (
            config.noise_rate != 0 and (not noisy or human)
        ),
        f"noise={config.noise!r} is that of cifar10, not of {config.name!r}": (
            (human or config.noise == "asymmetric") and config.name != "cifar10"
        ),
        f"noise='block' is that of cifar100, not of {config.name!r}": (
            config.noise == "block" and config.name != "cifar100"
        ),
        "recipe='gdw' needs a meta set, got meta_size=0": (
            config.recipe == "gdw" and not config.meta_size
        ),
        f"recipe='weight_balancing' needs val_size to be a multiple of {classes}, "
        f"got {config.val_size}": (
            config.recipe == "weight_balancing"
            and bool((config.val_size or 0) % classes)
        ),
        f"stream=True needs image files, {config.name!r} is in memory": (
            bool(config.stream) and not lazy
        ),
    }
    for problem, occurs in problems.items():
        if occurs:
            raise ValueError(f"{problem}.")


if __name__ == "__main__":
    import tyro

    print(describe(load(tyro.cli(DataConfig, description="Describes a data set."))))
