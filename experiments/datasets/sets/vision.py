"""CIFAR-10, CIFAR-100, MNIST, and the labels that people gave CIFAR-10."""

import functools
from pathlib import Path

import numpy as np

from experiments.datasets import lookup
from experiments.datasets.config import DataConfig
from experiments.datasets.readers import archives
from experiments.datasets.sets import prepared
from experiments.datasets.source import Labelled, Source

_IDX = "train-images-idx3-ubyte"
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def cifar10(config: DataConfig) -> Source:
    names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    unpacked = "cifar-10-batches-py", "cifar-10-batches-bin"
    return Source(_cifar(config, names, *unpacked), 10, CIFAR10_CLASSES)


def cifar100(config: DataConfig) -> Source:
    names = {"train": ["train"], "test": ["test"]}
    return Source(_cifar(config, names, "cifar-100-python", "cifar-100-binary"), 100)


def _cifar(
    config: DataConfig, names: dict[str, list[str]], python: str, binary: str
) -> dict[str, Labelled]:
    """The parts of either CIFAR set from the first of its four forms found."""
    stem = config.name.replace("cifar", "cifar-")
    zipped = f"{names['test'][0]}.zip"
    if place := lookup.find(config, python, f"{stem}-python.tar.gz"):
        read = functools.partial(_from_pickles, place)
    elif place := lookup.find(config, binary, f"{stem}-binary.tar.gz"):
        label_bytes = 2 if config.name == "cifar100" else 1
        read = functools.partial(_from_records, place, label_bytes)
    elif place := lookup.find(config, f"{config.name}/{zipped}", zipped):
        read = functools.partial(_from_zips, place.parent)
    elif place := lookup.find_tfds(config, config.name):
        return prepared.from_tfds(place).parts
    else:
        raise lookup.missing(
            config,
            f"{stem}-python.tar.gz or {stem}-binary.tar.gz (packed or unpacked), "
            f"{config.name}/*.zip, or a tensorflow-datasets directory "
            f"{config.name}/VERSION",
            f"curl -LO https://www.cs.toronto.edu/~kriz/{stem}-python.tar.gz",
        )
    return {part: read(own) for part, own in names.items()}


def _from_pickles(place: Path, names: list[str]) -> Labelled:
    return archives.cifar_pickles(archives.members(place, names))


def _from_records(place: Path, label_bytes: int, names: list[str]) -> Labelled:
    files = archives.members(place, [f"{name}.bin" for name in names])
    return archives.cifar_records(files, label_bytes=label_bytes)


def _from_zips(folder: Path, names: list[str]) -> Labelled:
    """CIFAR-100's training part may be a long-tailed piece, with more to its name."""
    return archives.webp_strips(sorted(folder.glob(f"{n}*.zip"))[0] for n in names)


def mnist(config: DataConfig) -> Source:
    classes = tuple(map(str, range(10)))
    names = [f"{d}{_IDX}{e}" for d in ("", "mnist/", "MNIST/raw/") for e in (".gz", "")]
    if place := lookup.find(config, *names):
        own = {"train": "train", "test": "t10k"}
        return Source({k: _from_idx(place, v) for k, v in own.items()}, 10, classes)
    if place := lookup.find_tfds(config, "mnist"):
        return prepared.from_tfds(place)
    raise lookup.missing(
        config,
        "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz, or a tensorflow-datasets "
        "directory mnist/VERSION",
        "for f in train-images-idx3 train-labels-idx1 t10k-images-idx3 "
        "t10k-labels-idx1; do curl -LO "
        "https://storage.googleapis.com/cvdf-datasets/mnist/$f-ubyte.gz; done",
    )


def _from_idx(place: Path, name: str) -> Labelled:
    images, labels = (
        archives.idx(place.with_name(place.name.replace(_IDX, f"{name}-{kind}")))
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return Labelled(images, labels)


def human_labels(config: DataConfig, name: str, clean: np.ndarray) -> np.ndarray:
    """CIFAR-10N's labels of the training images, which must be in original order."""
    place = lookup.find(config, "cifar_n/cifar10n_human.npz", "cifar10n_human.npz")
    if place is None:
        raise lookup.missing(
            config,
            "cifar_n/cifar10n_human.npz with the arrays clean_label, aggre_label, "
            "worse_label, random_label1, random_label2 and random_label3",
            "CIFAR-10_human.pt of https://github.com/UCSC-REAL/cifar-10-100n, saved "
            "with numpy.savez('cifar10n_human.npz', **torch.load(...))",
        )
    with np.load(place, allow_pickle=False) as file:
        expected, labels = file["clean_label"], file[f"{name}_label"]
    if not np.array_equal(expected, clean):
        raise ValueError(
            f"The labels read differ from clean_label in {place}: human noise needs "
            "the training images in their original order."
        )
    return labels.astype(np.int32)
