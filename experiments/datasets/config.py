"""Which data, and what is done to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Name = Literal[
    "digits",
    "synthetic",
    "diabetes",
    "cifar10",
    "cifar100",
    "mnist",
    "scenes",
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
    "flip",
    "flip2",
    "asymmetric",
    "block",
    "human_aggre",
    "human_worse",
    "human_random1",
    "human_random2",
    "human_random3",
]


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
    """Height and width of images from files, and of scenes. Default: their own, 224 if
    streamed."""
    stream: bool | None = None
    """Read images while training. Default: for the large sets only."""
    stream_crop: Literal["area", "place"] = "area"
    """What is cut from a streamed training image. area: 8 to 100% of it, resized.
    place: a square of the size at a random place, after the shorter side was brought to
    8/7 of the size."""
    recipe: Recipe = "none"
    """How the training part is made long-tailed."""
    factor: float = 1.0
    """Smallest class over largest class: 0.01 is "ratio 100"."""
    noise: Noise = "none"
    """How training labels are corrupted."""
    noise_rate: float = 0.0
    """Probability that a label is redrawn (uniform) or changed (all others)."""
    val_size: int | None = None
    """Validation examples to take from the training part, equally many of each class;
    0 for none. Default: the set's own validation part, else a tenth of each class."""
    train_size: int | None = None
    """Keep this many of the remaining training examples, equally many of each class;
    needs recipe "none". Default: all."""
    meta_size: int = 0
    """Clean examples, equally many of each class, held out for methods that learn
    from a small trusted set."""
    train_on_meta: bool = False
    """Train on these as well, with their clean labels: what other methods can do with
    the same trusted set."""
    shots: tuple[int, int] | None = None
    """Classes with more examples are "many", with fewer than the second "few"."""
    seed: int = 0
    """Of splits, long tail and noise."""

    @staticmethod
    def of_record(settings: Mapping[str, Any]) -> "DataConfig":
        """That of a run's record; settings that this version lacks are left out."""
        known = {field.name for field in dataclasses.fields(DataConfig)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
            if name in known
        }
        return DataConfig(**values)

    def generator(self, purpose: str) -> np.random.Generator:
        """A separate one for each purpose, so that none shifts another."""
        purposes = ("test", "val", "meta", "recipe", "noise", "train")
        return np.random.default_rng([self.seed, purposes.index(purpose)])
