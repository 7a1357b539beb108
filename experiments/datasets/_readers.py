"""File formats: one function each, paths in and arrays out.

Nothing here knows about splits, noise or seeds, and nothing here downloads.
"""

import csv
import functools
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.datasets._images import LazyImages, decode

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Labelled(NamedTuple):
    """Images or features, and what is to be predicted from them."""

    inputs: np.ndarray | LazyImages
    labels: np.ndarray


class Table(NamedTuple):
    """Columns of numbers made from a table of text."""

    features: np.ndarray  # [N, F] float64, NaN where a number is missing
    target: np.ndarray  # [N] text


# Archives of CIFAR-10 and CIFAR-100


def members(place: Path, names: Sequence[str]) -> list[bytes]:
    """The named files of an unpacked folder or of a ``.tar.gz``."""
    if place.is_dir():
        return [(place / name).read_bytes() for name in names]
    with tarfile.open(place) as archive:
        found = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(f"{place} has no {', '.join(missing)}.")
        return [archive.extractfile(found[name]).read() for name in names]


def cifar_pickles(files: Iterable[bytes]) -> Labelled:
    """The python version: pickled dictionaries of pixels and lists of labels."""
    batches = [_CifarUnpickler(io.BytesIO(f), encoding="bytes").load() for f in files]
    pixels = np.concatenate([b[b"data"] for b in batches])
    fine = b"fine_labels" if b"fine_labels" in batches[0] else b"labels"
    labels = np.concatenate([np.asarray(b[fine], np.int32) for b in batches])
    return Labelled(_from_planes(pixels), labels)


def cifar_records(files: Iterable[bytes], *, label_bytes: int) -> Labelled:
    """The binary version: one or two labels, the last one fine, and the pixels."""
    records = np.concatenate(
        [np.frombuffer(f, np.uint8).reshape(-1, label_bytes + 3072) for f in files]
    )
    pixels = _from_planes(records[:, label_bytes:])
    return Labelled(pixels, records[:, label_bytes - 1].astype(np.int32))


def webp_strips(paths: Iterable[Path]) -> Labelled:
    """Zips of lossless WebP strips (images stacked downwards) and ``.npy`` labels."""
    with futures.ThreadPoolExecutor() as pool:
        images, labels = zip(*pool.map(_webp_zip, paths), strict=True)
    return Labelled(np.concatenate(images), np.concatenate(labels).astype(np.int32))


def _webp_zip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
        fine = "fine_labels.npy" if "fine_labels.npy" in names else "labels.npy"
        strips = [archive.read(name) for name in names if name.endswith(".webp")]
        labels = np.load(io.BytesIO(archive.read(fine)))
    pixels = np.concatenate([np.asarray(decode(strip)) for strip in strips])
    return pixels.reshape(-1, pixels.shape[1], *pixels.shape[1:]), labels


def _from_planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _CifarUnpickler(pickle.Unpickler):
    """Loads arrays and plain containers only: an archive must not run code."""

    def find_class(self, module, name):
        if name == "_reconstruct" and module.startswith("numpy."):
            return np._core.multiarray._reconstruct
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return lambda kind, align, copy: np.dtype(kind, bool(align), bool(copy))
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an archive.")


# Other images


def idx(path: Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes, gzipped or not."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    zeros, kind, ndim = struct.unpack(">HBB", data[:4])
    if (zeros, kind) != (0, 8):
        raise ValueError(f"{path} is not an idx file of unsigned bytes.")
    shape = struct.unpack(f">{ndim}I", data[4 : 4 + 4 * ndim])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


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
    names, labels = [], []
    for label, class_name in enumerate(class_names):
        found = (
            str(p.relative_to(root))
            for p in (root / class_name).rglob("*")
            if p.suffix.lower() in IMAGE_SUFFIXES
        )
        names += sorted(found)
        labels += [label] * (len(names) - len(labels))
    return Labelled(files(root, names), np.asarray(labels, np.int32))


def files(root: Path, names: Sequence[str]) -> LazyImages:
    """Images in files below a folder."""
    read = functools.partial(_read_file, str(root), list(names))
    return LazyImages(read, np.arange(len(names)))


def _read_file(root: str, names: list[str], i: int) -> bytes:
    return Path(root, names[i]).read_bytes()


# Prepared tensorflow-datasets directories, read without TensorFlow


def tfds_splits(directory: Path) -> tuple[list[str], list[str] | None]:
    """Names of the splits and of the classes of a prepared version directory."""
    builder = _tfds_builder(directory)
    label = builder.info.features["label"]
    names = [label.int2str(i) for i in range(label.num_classes)]
    return list(builder.info.splits), names


def tfds_images(directory: Path, split: str) -> Labelled:
    """One split; sorted by id if it has one, which undoes CIFAR's shuffling."""
    from tensorflow_datasets import decode

    builder = _tfds_builder(directory)
    source = builder.as_data_source(
        split=split, decoders={"image": decode.SkipDecoding()}
    )
    columns = [c for c in ("label", "id") if c in source[0]]

    def scan(start):
        chunk = source.__getitems__(list(range(start, min(start + 256, len(source)))))
        return [tuple(example[c] for c in columns) for example in chunk]

    with futures.ThreadPoolExecutor() as pool:
        rows = [row for c in pool.map(scan, range(0, len(source), 256)) for row in c]
    table = dict(zip(columns, zip(*rows, strict=True), strict=True))
    order = np.arange(len(source))
    if "id" in table:
        order = np.argsort(np.asarray(table["id"]), kind="stable")
    return Labelled(
        LazyImages(functools.partial(_read_record, source), order),
        np.asarray(table["label"], np.int32)[order],
    )


def _tfds_builder(directory: Path):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    if builder.info.file_format.value != "array_record":
        raise ValueError(
            f"{directory} holds {builder.info.file_format.value} files; reading "
            "without TensorFlow needs array_record: prepare it again with "
            f"'tfds build {builder.name} --file_format=array_record'."
        )
    return builder


def _read_record(source, i: int) -> bytes:
    return source[i]["image"]


# Tables


def rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file as stripped text, blank lines left out."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [[v.strip() for v in row] for row in csv.reader(file) if row]


def encode(
    table: Sequence[Sequence[str]],
    names: Sequence[str],
    target: str,
    *,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> Table:
    """Numbers from text: one column per number, one per level of a category.

    A column with any text in it is a category, as is one named in ``categorical``.
    A missing number is NaN; a missing category has none of the levels.
    """
    unknown = [name for name in (target, *drop) if name not in names]
    if unknown:
        raise ValueError(f"No column {unknown[0]!r} among {', '.join(names)}.")
    for i, row in enumerate(table, 1):
        if len(row) != len(names):
            raise ValueError(
                f"row {i} has {len(row)} values, expected {len(names)} "
                f"({', '.join(names)})."
            )
    features = []
    for name, column in zip(names, zip(*table, strict=True), strict=True):
        if name == target or name in drop:
            continue
        numbers = None if name in categorical else _numbers(column)
        if numbers is not None:
            features.append(numbers)
            continue
        levels = sorted(set(column) - _MISSING)
        if len(levels) > _MOST_LEVELS:
            raise ValueError(
                f"Column {name!r} has {len(levels)} different texts, too many for "
                "categories: drop it."
            )
        features += [np.asarray([v == lv for v in column], float) for lv in levels]
    targets = np.asarray([row[list(names).index(target)] for row in table])
    unknown = np.flatnonzero(np.isin(targets, list(_MISSING)))
    if unknown.size:
        raise ValueError(
            f"row {unknown[0] + 1} has no {target!r}, which is the target."
        )
    if not features:
        raise ValueError(f"There is no column beside the target {target!r}.")
    return Table(np.stack(features, 1), targets)


_MOST_LEVELS = 100
_MISSING = {"", "?", "NA", "N/A", "NaN", "nan"}


def _numbers(column: Sequence[str]) -> np.ndarray | None:
    """The column as float64, NaN where missing; None if it has text or nothing."""
    if _MISSING.issuperset(column):
        return None
    try:
        return np.asarray([np.nan if v in _MISSING else float(v) for v in column])
    except ValueError:
        return None
