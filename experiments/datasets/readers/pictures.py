"""Image files: in lists, or in a folder per class."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.datasets.images import LazyImages
from experiments.datasets.source import Labelled

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def image_list(path: Path, root: Path) -> Labelled:
    """A list with a line ``relative/path class-number`` for every image."""
    names, labels = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal():
            raise ValueError(
                f"{path}, line {number}: expected 'image path class-number', "
                f"got {line!r}."
            )
        names.append(name)
        labels.append(int(label))
    return Labelled(files(root, names), np.asarray(labels, np.int32))


def key_list(keys: Path, values: Path, root: Path) -> Labelled:
    """A list of image paths, and a file that has the labels of (more) paths."""
    names = keys.read_text().split()
    labels = dict(line.split() for line in values.read_text().splitlines())
    return Labelled(
        files(root, names), np.asarray([labels[n] for n in names], np.int32)
    )


def image_folder(root: Path, class_names: Sequence[str]) -> Labelled:
    """A folder with one sub-folder of images per class, at any depth."""
    names: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(class_names):
        found = (
            str(p.relative_to(root))
            for p in (root / class_name).rglob("*")
            if p.suffix.lower() in _SUFFIXES
        )
        names += sorted(found)
        labels += [label] * (len(names) - len(labels))
    return Labelled(files(root, names), np.asarray(labels, np.int32))


def files(root: Path, names: Sequence[str]) -> LazyImages:
    """Images in files below a folder."""
    read = functools.partial(_read_file, str(root), list(names))
    return LazyImages(read, np.arange(len(names)), list(names))


def _read_file(root: str, names: list[str], i: int) -> bytes:
    return Path(root, names[i]).read_bytes()
