"""Own data: arrays, a CSV file, a folder of images, lists, a prepared directory."""

import numpy as np

from experiments.datasets import lookup
from experiments.datasets.config import DataConfig
from experiments.datasets.readers import pictures, tables
from experiments.datasets.sets import prepared
from experiments.datasets.source import (
    PARTS,
    Labelled,
    Source,
    from_arrays,
    from_table,
)


def lists(config: DataConfig) -> Source:
    """train.txt and, where they exist, val.txt, test.txt and meta.txt."""
    what = "a folder with train.txt, lines 'image path class-number'"
    paths = {part: lookup.own(config, what) / f"{part}.txt" for part in PARTS}
    paths = {k: p for k, p in paths.items() if p.exists() or k == "train"}
    return prepared.from_lists(config, paths, "write the lists for your own images")


def folder(config: DataConfig) -> Source:
    """A sub-folder per class, or train/, val/, test/, meta/ with these in each."""
    root = lookup.own(config, "a folder with one sub-folder of images per class")
    parts = {p: root / p for p in PARTS if (root / p).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    names = sorted(p.name for p in parts["train"].iterdir() if p.is_dir())
    if len(names) < 2:
        raise ValueError(
            f"{parts['train']} needs two or more sub-folders, one a class."
        )
    read = {part: pictures.image_folder(path, names) for part, path in parts.items()}
    return Source(read, len(names), tuple(names))


def tfds(config: DataConfig) -> Source:
    """A prepared version directory with the features image and label."""
    what = "a prepared tensorflow-datasets directory, NAME/VERSION"
    path = lookup.own(config, what)
    if not (path / "dataset_info.json").exists():
        raise lookup.DataNotFoundError(f"{path} has no dataset_info.json: not {what}.")
    return prepared.from_tfds(path)


def arrays(config: DataConfig) -> Source:
    """An npz file with inputs and targets, and test_inputs, test_targets, if any."""
    path = lookup.own(config, "an .npz file with the arrays inputs and targets")
    prefixes = {"train": "", **{p: f"{p}_" for p in PARTS[1:]}}
    with np.load(path, allow_pickle=False) as file:
        if not {"inputs", "targets"} <= set(file):
            raise ValueError(
                f"{path} must hold inputs and targets, got {', '.join(file)}."
            )
        parts = {
            part: Labelled(file[f"{prefix}inputs"], file[f"{prefix}targets"])
            for part, prefix in prefixes.items()
            if f"{prefix}inputs" in file
        }
    return from_arrays(parts)


def csv(config: DataConfig) -> Source:
    """A CSV file with a header; text in the target column makes it classes."""
    path = lookup.own(config, "a .csv file with a header")
    names, *rows = tables.rows(path)
    table = tables.encode(rows, names, config.target or names[-1], drop=config.drop)
    return from_table(table, config.task)
