"""Sets given by lists of images, or prepared by tensorflow-datasets."""

from pathlib import Path

from experiments.datasets import lookup
from experiments.datasets.config import DataConfig
from experiments.datasets.images import LazyImages
from experiments.datasets.readers import pictures, tfds
from experiments.datasets.source import Source, count_classes


def from_lists(config: DataConfig, paths: dict[str, Path], get: str) -> Source:
    root = lookup.image_root(config, paths["train"].parent)
    parts = {part: pictures.image_list(path, root) for part, path in paths.items()}
    return present(config, Source(parts, count_classes(parts)), root, get)


def present(config: DataConfig, source: Source, root: Path, get: str) -> Source:
    """The same source, if the first image of each part is there."""
    for part in source.parts.values():
        try:
            assert isinstance(part.inputs, LazyImages)
            part.inputs.read(0)
        except FileNotFoundError as error:
            needed = f"{error.filename} and the other images listed (data.images names "
            needed += f"the folder that the lists are relative to, now {root})"
            raise lookup.missing(config, needed, get) from None
    return source


def from_tfds(directory: Path, *, test: str = "test") -> Source:
    """The parts of a prepared directory; validation is the test part if alone."""
    splits, names = tfds.splits(directory)
    test = test if test in splits else "validation"
    own = {"train": "train", "val": "validation", "test": test}
    if test == "validation":
        del own["val"]
    parts = {
        part: tfds.images(directory, split)
        for part, split in own.items()
        if split in splits
    }
    return Source(parts, len(names), tuple(names))
