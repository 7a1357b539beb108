"""Prepared tensorflow-datasets directories, read without TensorFlow."""

import functools
from concurrent import futures
from pathlib import Path

import numpy as np

from experiments.datasets.images import LazyImages
from experiments.datasets.source import Labelled


def splits(directory: Path) -> tuple[list[str], list[str]]:
    """Names of the splits and of the classes of a prepared version directory."""
    builder = _builder(directory)
    label = builder.info.features["label"]
    names = [label.int2str(i) for i in range(label.num_classes)]
    return list(builder.info.splits), names


def images(directory: Path, split: str) -> Labelled:
    """One split; sorted by id if it has one, which undoes CIFAR's shuffling."""
    from tensorflow_datasets import decode

    builder = _builder(directory)
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


def _builder(directory: Path):
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
