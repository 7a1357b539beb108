"""ELM: margins between logits, and between embeddings; no settings were published.

200 epochs of our own schedule (`experiments.configs.tails`); ``-long`` has that
of `experiments.configs.logit_adjustment`, whose loss is ELM's without embeddings.

    python -m experiments.train elm-cifar10-lt100
"""

import dataclasses

from experiments.configs import logit_adjustment
from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import long_tailed
from experiments.methods import Elm, MethodConfig

_CONTRASTIVE = MethodConfig(loss=Elm(kind="contrastive")), "ELM, contrastive"
_SPREAD = MethodConfig(loss=Elm(kind="spread")), "ELM, spread"
_CENTER = MethodConfig(loss=Elm(kind="center")), "ELM, running class centres"


def _like(preset: str) -> tuple[TrainConfig, str]:
    """A run of logit adjustment with ELM's loss."""
    base = logit_adjustment.PRESETS[preset].config
    method, about = _CONTRASTIVE
    config = dataclasses.replace(base, method=method)
    return config, f"{about}, the long schedule of logit adjustment"


PRESETS: dict[str, Preset] = {
    "elm-cifar10-lt100-long": Preset(*_like("la-cifar10-lt100-long")),
    "elm-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _CONTRASTIVE)),
    "elm-spread-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _SPREAD)),
    "elm-center-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _CENTER)),
    "elm-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _CONTRASTIVE)),
    "elm-spread-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _SPREAD)),
    "elm-center-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _CENTER)),
    "elm-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _CONTRASTIVE)),
    "elm-spread-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _SPREAD)),
    "elm-center-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _CENTER)),
    "elm-cifar100-lt100-long": Preset(*_like("la-cifar100-lt100-long")),
    "elm-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _CONTRASTIVE)),
    "elm-spread-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _SPREAD)),
    "elm-center-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _CENTER)),
    "elm-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _CONTRASTIVE)),
    "elm-spread-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _SPREAD)),
    "elm-center-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _CENTER)),
    "elm-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _CONTRASTIVE)),
    "elm-spread-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _SPREAD)),
    "elm-center-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _CENTER)),
}
