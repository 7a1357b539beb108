"""CIFAR-10, CIFAR-100, MNIST, and the labels that people gave CIFAR-10."""

import numpy as np

from experiments.datasets import lookup
from experiments.datasets.config import DataConfig
from experiments.datasets.readers import archives
from experiments.datasets.sets import prepared
from experiments.datasets.source import Labelled, Source

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def cifar10(config: DataConfig) -> Source:
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    parts = _cifar(config, files, ("cifar-10-batches-py", "cifar-10-batches-bin"))
    return Source(parts, 10, CIFAR10_CLASSES)


def cifar100(config: DataConfig) -> Source:
    files = {"train": ["train"], "test": ["test"]}
    return Source(_cifar(config, files, ("cifar-100-python", "cifar-100-binary")), 100)


def _cifar(config: DataConfig, files: dict[str, list[str]], unpacked: tuple[str, str]):
    """The parts of either CIFAR set from the first of its four forms found."""
    name, stem = config.name, config.name.replace("cifar", "cifar-")
    zipped = f"{files['test'][0]}.zip"
    if place := lookup.find(config, unpacked[0], f"{stem}-python.tar.gz"):

        def part(names, place=place):
            return archives.cifar_pickles(archives.members(place, names))

    elif place := lookup.find(config, unpacked[1], f"{stem}-binary.tar.gz"):

        def part(names, place=place):
            data = archives.members(place, [f"{n}.bin" for n in names])
            return archives.cifar_records(data, label_bytes=1 + (name == "cifar100"))

    elif place := lookup.find(config, f"{name}/{zipped}", zipped):

        def part(
            names, place=place
        ):  # CIFAR-100's training part may be a long-tailed piece
            paths = [sorted(place.parent.glob(f"{n}*.zip"))[0] for n in names]
            return archives.webp_strips(paths)

    elif place := lookup.find_tfds(config, name):
        return prepared.from_tfds(place).parts
    else:
        raise lookup.missing(
            config,
            f"{stem}-python.tar.gz or {stem}-binary.tar.gz (packed or unpacked), "
            f"{name}/*.zip, or a tensorflow-datasets directory {name}/VERSION",
            f"curl -LO https://www.cs.toronto.edu/~kriz/{stem}-python.tar.gz",
        )
    return {key: part(names) for key, names in files.items()}


def mnist(config: DataConfig) -> Source:
    classes = tuple(map(str, range(10)))
    stem = "train-images-idx3-ubyte"
    names = [f"{d}{stem}{e}" for d in ("", "mnist/", "MNIST/raw/") for e in (".gz", "")]
    if place := lookup.find(config, *names):

        def part(name, place=place):
            images, labels = (
                archives.idx(
                    place.with_name(place.name.replace(stem, f"{name}-{kind}"))
                )
                for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
            )
            return Labelled(images, labels)

        return Source({"train": part("train"), "test": part("t10k")}, 10, classes)
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
