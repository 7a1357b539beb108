"""Every named set and its reader."""

from collections.abc import Callable

from experiments.datasets.config import DataConfig
from experiments.datasets.sets import bundled, large, own, tabular, vision
from experiments.datasets.source import Source

READERS: dict[str, Callable[[DataConfig], Source]] = {
    "digits": bundled.digits,
    "synthetic": bundled.synthetic,
    "diabetes": bundled.diabetes,
    "cifar10": vision.cifar10,
    "cifar100": vision.cifar100,
    "mnist": vision.mnist,
    "imagenet_lt": large.imagenet_lt,
    "inaturalist2018": large.inaturalist2018,
    "places_lt": large.places_lt,
    "clothing1m": large.clothing1m,
    "california": tabular.california,
    "abalone": tabular.abalone,
    "bike": tabular.bike,
    "adult": tabular.adult,
    "arrays": own.arrays,
    "csv": own.csv,
    "folder": own.folder,
    "lists": own.lists,
    "tfds": own.tfds,
}
