"""Refuses configurations that contradict themselves or the set."""

from collections.abc import Iterator

from experiments.datasets.config import DataConfig
from experiments.datasets.images import LazyImages
from experiments.datasets.source import Source


def check(source: Source, config: DataConfig) -> None:
    """Raises the first contradiction as a ValueError."""
    for problem in _problems(source, config):
        raise ValueError(f"{problem}.")


def _problems(source: Source, config: DataConfig) -> Iterator[str]:
    """The contradictions; each is looked for only if there are none before it."""
    name, recipe, noise = config.name, config.recipe, config.noise
    human = noise.startswith("human_")
    classes = source.num_classes
    if classes is None and recipe != "none":
        yield f"recipe={recipe!r} needs classes, {name!r} is regression"
    if classes is None and noise != "none":
        yield f"noise={noise!r} needs classes, {name!r} is regression"
    if config.factor != 1 and recipe == "none":
        yield f"factor={config.factor} needs a recipe"
    if config.noise_rate != 0 and (noise == "none" or human):
        yield f"noise_rate={config.noise_rate} does nothing with noise={noise!r}"
    if (human or noise == "asymmetric") and name != "cifar10":
        yield f"noise={noise!r} is that of cifar10, not of {name!r}"
    if noise == "block" and name != "cifar100":
        yield f"noise='block' is that of cifar100, not of {name!r}"
    if recipe == "gdw" and not config.meta_size:
        yield "recipe='gdw' needs a meta set, got meta_size=0"
    if config.train_on_meta and not config.meta_size:
        yield "train_on_meta needs a meta set, got meta_size=0"
    if config.train_on_meta and "meta" in source.parts:
        yield f"train_on_meta needs meta examples of the training part of {name!r}"
    if recipe == "weight_balancing" and (config.val_size or 0) % (classes or 1):
        yield (
            f"recipe='weight_balancing' needs val_size to be a multiple of {classes}, "
            f"got {config.val_size}"
        )
    if config.train_size is not None and recipe != "none":
        yield f"train_size={config.train_size} needs recipe='none', got {recipe!r}"
    if config.stream and not isinstance(source.parts["train"].inputs, LazyImages):
        yield f"stream=True needs image files, {name!r} is in memory"
