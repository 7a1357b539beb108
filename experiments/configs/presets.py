"""What a preset is, and the small twin of one."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.configs.settings import TrainConfig
from experiments.methods import Absgd, ClassBalanced, Ldam
from experiments.methods import TruncatedGeneralizedCrossEntropy as TruncatedGce


class Published(NamedTuple):
    """A row of a publication: test accuracy in percent on a balanced test set."""

    accuracy: float
    network: str
    chosen: str  # which epoch the number is of; "" where that is not said
    source: str


class Preset(NamedTuple):
    """A named run."""

    config: TrainConfig
    about: str
    published: Published | None = None  # what the publication got with these settings


def needs(config: TrainConfig) -> str:
    """The data that a run reads, and from where."""
    if config.data.name in ("digits", "diabetes", "synthetic"):
        return "nothing"
    if config.data.name == "scenes":
        return "mnist in $LTJAX_DATA or --data.path"
    human = " with CIFAR-10N labels" if config.data.noise.startswith("human") else ""
    return f"{config.data.name}{human} in $LTJAX_DATA or --data.path"


def has_small_twin(preset: Preset) -> bool:
    """Not if it is small already, streamed, or published for a thousand epochs."""
    config = preset.config
    return config.model.name not in ("mlp", "unet", "patchify", "resnet50") and (
        config.epochs < 1000
    )


def small(preset: Preset) -> Preset:
    """The same on a small network, in minutes to an hour on a laptop's CPU."""
    config = preset.config
    epochs = min(config.epochs, 20 if config.data.recipe != "none" else 10)

    def scaled(epoch: int) -> int:
        return round(epoch * epochs / config.epochs)

    twin = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, name="patchify"),
        method=dataclasses.replace(
            config.method,
            loss=_delayed(config.method.loss, scaled),
            weighting=_delayed(config.method.weighting, scaled),
        ),
        optimizer=dataclasses.replace(
            config.optimizer,
            milestones=tuple(scaled(m) for m in config.optimizer.milestones),
            warmup_epochs=scaled(config.optimizer.warmup_epochs),
        ),
        epochs=epochs,
        eval_every=1,
    )
    return Preset(twin, f"{preset.about}; small")


def _delayed(part: Any, scaled: Callable[[int], int]) -> Any:
    """A loss or weighting with its first epoch scaled, if it has one."""
    if isinstance(part, (Absgd, ClassBalanced, Ldam, TruncatedGce)):
        return dataclasses.replace(part, start_epoch=scaled(part.start_epoch))
    return part
