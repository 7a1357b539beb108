"""Scenes of several MNIST digits on one canvas, with a label for every pixel.

A dense task with a long tail: digits 0, 1, ... become exponentially rarer in training
scenes and are equally frequent in validation and test scenes. Labels are 0 for the
background and 1 + digit where a digit has ink; a digit drawn later covers an earlier
one. Validation scenes are made of MNIST's last 10,000 training images, training scenes
of the others, so no digit is in two parts. Everything follows from the seed.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.datasets.config import DataConfig
from experiments.datasets.sets import vision
from experiments.datasets.source import Labelled
from ltjax import data

_HELD_OUT = 10_000  # images of MNIST's training part that are for validation
_INK = 128  # level from which a pixel belongs to its digit
_DIGITS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Which scenes."""

    path: str | None = None
    """Folder of MNIST. Default: as in `DataConfig`."""
    train: int = 4000
    """Training scenes."""
    val: int = 500
    test: int = 1000
    digits: int = 4
    """Digits in a scene."""
    canvas: int = 64
    """Height and width in pixels, at least a digit's 28."""
    factor: float = 0.01
    """How often the rarest digit comes over the most frequent one, in training."""
    seed: int = 0

    @classmethod
    def of(cls, config: DataConfig) -> "SceneConfig":
        """Those of a run's settings; ``train_size`` counts scenes.

        Raises:
          ValueError: if a setting does not apply to scenes.
        """
        if config.recipe != "exponential":
            raise ValueError(
                f"recipe must be 'exponential' for scenes, got {config.recipe!r}."
            )
        for name, none in (("noise", "none"), ("meta_size", 0)):
            if (found := getattr(config, name)) != none:
                raise ValueError(f"{name} must be {none!r} for scenes, got {found!r}.")
        sizes = {"train": config.train_size, "val": config.val_size}
        sizes |= {"test": config.val_size, "canvas": config.image_size}
        chosen = {name: size for name, size in sizes.items() if size is not None}
        return cls(path=config.path, factor=config.factor, seed=config.seed, **chosen)

    def __post_init__(self):
        if self.canvas < 28:
            raise ValueError(f"canvas must be at least 28, got {self.canvas}.")
        for name in ("train", "val", "test", "digits"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )


class Scenes(NamedTuple):
    """Images and what each of their pixels shows."""

    images: np.ndarray  # [N, H, W, 1] uint8
    labels: np.ndarray  # [N, H, W] int32, 0 to 10


class SceneSplits(NamedTuple):
    """Scenes for training, long-tailed, and for validation and test, balanced."""

    train: Scenes
    val: Scenes
    test: Scenes

    @property
    def class_counts(self) -> np.ndarray:
        """``[11]`` training pixels of each class."""
        return data.class_counts(self.train.labels.ravel(), 1 + _DIGITS)


def load_scenes(config: SceneConfig) -> SceneSplits:
    """Draws the scenes of a configuration.

    Raises:
      DataNotFoundError: if MNIST is not on this machine.
      ValueError: if ``factor`` is out of range or a digit has no image.
    """
    parts = vision.mnist(DataConfig(name="mnist", path=config.path)).parts
    images, labels = parts["train"]
    frequencies = data.class_priors(
        data.exponential_counts(_DIGITS, 1_000_000, config.factor)
    )
    balanced = np.full(_DIGITS, 1 / _DIGITS)
    held_out = min(_HELD_OUT, len(labels) // 2)
    sources = (
        (config.train, Labelled(images[:-held_out], labels[:-held_out]), frequencies),
        (config.val, Labelled(images[-held_out:], labels[-held_out:]), balanced),
        (config.test, parts["test"], balanced),
    )
    return SceneSplits(
        *(
            _scenes(
                count,
                digits,
                priors,
                config,
                np.random.default_rng([config.seed, part]),
            )
            for part, (count, digits, priors) in enumerate(sources)
        )
    )


def _scenes(
    count: int,
    digits: Labelled,
    priors: np.ndarray,
    config: SceneConfig,
    rng: np.random.Generator,
) -> Scenes:
    """Scenes of one part, digits of each class drawn with these frequencies."""
    size = config.canvas
    images = np.zeros((count, size, size, 1), np.uint8)
    labels = np.zeros((count, size, size), np.int32)
    classes = rng.choice(_DIGITS, (count, config.digits), p=priors)
    places = rng.integers(size - 28 + 1, size=(count, config.digits, 2))
    chosen = _draw(digits.labels, classes, rng)
    for scene, slot in np.ndindex(count, config.digits):
        top, left = places[scene, slot]
        window = (scene, slice(top, top + 28), slice(left, left + 28))
        ink = np.asarray(digits.inputs[chosen[scene, slot]])
        covered = ink >= _INK
        images[window][..., 0] = np.where(
            covered, ink, np.maximum(images[window][..., 0], ink)
        )
        labels[window][covered] = 1 + classes[scene, slot]
    return Scenes(images, labels)


def _draw(
    labels: np.ndarray, classes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A random example of each class asked for."""
    chosen = np.empty(classes.shape, np.int64)
    for digit in np.unique(classes):
        wanted = classes == digit
        available = np.flatnonzero(labels == digit)
        if not available.size:
            raise ValueError(f"MNIST has no image of digit {digit}.")
        chosen[wanted] = rng.choice(available, wanted.sum())
    return chosen
