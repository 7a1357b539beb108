"""From a source to splits: selected, made noisy, standardised."""

import hashlib
from typing import Any

import numpy as np

from experiments.datasets import catalogue, scenes, source
from experiments.datasets.checks import check
from experiments.datasets.config import DataConfig
from experiments.datasets.images import LazyImages
from experiments.datasets.noise import corrupt
from experiments.datasets.scaling import prepare_inputs, standardise_targets
from experiments.datasets.selection import choose
from experiments.datasets.source import Labelled, Source
from experiments.datasets.splits import Arrays, Splits
from ltjax import data


def load(config: DataConfig) -> Splits:
    """Reads a set and makes the splits of a configuration.

    Raises:
      DataNotFoundError: if the set is not on this machine.
      ValueError: if the configuration does not fit the set.
    """
    if config.name == "scenes":
        return _scenes(config)
    return _assemble(catalogue.READERS[config.name](config), config)


def from_arrays(inputs: np.ndarray, targets: np.ndarray, config: DataConfig) -> Splits:
    """The same from arrays: images or features, integer labels or real targets."""
    part = Labelled(np.asarray(inputs), np.asarray(targets))
    return _assemble(source.from_arrays({"train": part}), config)


def _scenes(config: DataConfig) -> Splits:
    """Scenes are drawn as they are needed: nothing is left to split or to corrupt."""
    drawn = scenes.load_scenes(scenes.SceneConfig.of(config))
    parts = {name: Arrays(*part) for name, part in drawn._asdict().items()}
    inputs, shape, mean, std = prepare_inputs(
        {name: part.inputs for name, part in parts.items()}, config
    )
    targets = {name: part.targets for name, part in parts.items()}
    indices = {name: np.arange(len(labels)) for name, labels in targets.items()}
    return Splits(
        train=Arrays(inputs["train"], targets["train"]),
        val=Arrays(inputs["val"], targets["val"]),
        test=Arrays(inputs["test"], targets["test"]),
        meta=None,
        num_classes=len(drawn.class_counts),
        class_names=("background", *map(str, range(10))),
        class_counts=drawn.class_counts,
        clean_targets=targets["train"],
        indices=indices,
        digest=_digest(indices, targets),
        mean=mean,
        std=std,
        shots=_shots(config),
        input_shape=shape,
    )


def _assemble(found: Source, config: DataConfig) -> Splits:
    """Holds out, subsamples, corrupts, standardises: in this order."""
    check(found, config)
    parts = {name: _part(part, found) for name, part in found.parts.items()}
    labels = {name: part.targets for name, part in parts.items()}
    chosen = choose(labels, found.num_classes, config)
    noisy = corrupt(labels["train"], chosen["train"].indices, found.num_classes, config)
    if config.train_on_meta:
        meta = chosen["meta"].indices
        chosen["train"] = chosen["train"].joined(meta)
        noisy = np.concatenate([noisy, labels["train"][meta]])
    targets = {split: labels[c.part][c.indices] for split, c in chosen.items()}
    clean = targets["train"]
    targets["train"] = noisy
    extra: dict[str, Any] = {}
    images = parts[chosen["train"].part].inputs
    if isinstance(images, LazyImages):
        extra["files"] = images[chosen["train"].indices].files
    if found.num_classes is None:
        targets, extra["target_mean"], extra["target_std"] = standardise_targets(
            targets
        )
        clean = targets["train"]
    inputs, shape, mean, std = prepare_inputs(
        {split: parts[c.part].inputs[c.indices] for split, c in chosen.items()}, config
    )
    splits = {split: Arrays(inputs[split], targets[split]) for split in chosen}
    indices = {split: c.indices.astype(np.int64) for split, c in chosen.items()}
    counts = None
    if found.num_classes is not None:
        counts = data.class_counts(targets["train"], found.num_classes)
    return Splits(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        meta=splits.get("meta"),
        num_classes=found.num_classes,
        class_names=found.class_names,
        class_counts=counts,
        clean_targets=clean,
        indices=indices,
        digest=_digest(indices, targets),
        mean=mean,
        std=std,
        shots=None if found.num_classes is None else _shots(config),
        input_shape=shape,
        crop=config.stream_crop,
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


def _digest(indices: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> str:
    """Names a selection of examples with its labels."""
    sha = hashlib.sha256()
    for split in sorted(indices):
        sha.update(split.encode() + indices[split].tobytes() + targets[split].tobytes())
    return sha.hexdigest()


def _shots(config: DataConfig) -> tuple[int, int]:
    """Many and few: ten times the usual where a class has thousands of images."""
    large = config.name in ("cifar10", "mnist")
    return config.shots or ((1000, 200) if large else (100, 20))
