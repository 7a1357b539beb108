"""ELM: margins between logits, and between embeddings. No code or settings published.

200 epochs of our own schedule (`experiments.configs.tails`); ``-long`` has the one of
`experiments.configs.logit_adjustment`, whose loss is ELM's without the embeddings.

    python -m experiments.train elm-cifar10-lt100
"""

import dataclasses

from experiments.configs import logit_adjustment
from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import ours
from experiments.methods import Elm, MethodConfig

_CONTRASTIVE = MethodConfig(loss=Elm(kind="contrastive"))
_SPREAD = MethodConfig(loss=Elm(kind="spread"))
_CENTER = MethodConfig(loss=Elm(kind="center"))


def _like(preset: str) -> TrainConfig:
    """A run of logit adjustment with ELM's loss."""
    base = logit_adjustment.PRESETS[preset].config
    return dataclasses.replace(base, method=_CONTRASTIVE)


PRESETS: dict[str, Preset] = {
    "elm-cifar10-lt100-long": Preset(
        _like("la-cifar10-lt100-long"),
        "ELM, contrastive, the long schedule of logit adjustment",
    ),
    "elm-cifar10-lt100": Preset(
        ours("cifar10", 100, _CONTRASTIVE),
        "ELM, contrastive",
    ),
    "elm-spread-cifar10-lt100": Preset(
        ours("cifar10", 100, _SPREAD),
        "ELM, spread",
    ),
    "elm-center-cifar10-lt100": Preset(
        ours("cifar10", 100, _CENTER),
        "ELM, running class centres",
    ),
    "elm-cifar10-lt50": Preset(
        ours("cifar10", 50, _CONTRASTIVE),
        "ELM, contrastive",
    ),
    "elm-spread-cifar10-lt50": Preset(
        ours("cifar10", 50, _SPREAD),
        "ELM, spread",
    ),
    "elm-center-cifar10-lt50": Preset(
        ours("cifar10", 50, _CENTER),
        "ELM, running class centres",
    ),
    "elm-cifar10-lt10": Preset(
        ours("cifar10", 10, _CONTRASTIVE),
        "ELM, contrastive",
    ),
    "elm-spread-cifar10-lt10": Preset(
        ours("cifar10", 10, _SPREAD),
        "ELM, spread",
    ),
    "elm-center-cifar10-lt10": Preset(
        ours("cifar10", 10, _CENTER),
        "ELM, running class centres",
    ),
    "elm-cifar100-lt100-long": Preset(
        _like("la-cifar100-lt100-long"),
        "ELM, contrastive, the long schedule of logit adjustment",
    ),
    "elm-cifar100-lt100": Preset(
        ours("cifar100", 100, _CONTRASTIVE),
        "ELM, contrastive",
    ),
    "elm-spread-cifar100-lt100": Preset(
        ours("cifar100", 100, _SPREAD),
        "ELM, spread",
    ),
    "elm-center-cifar100-lt100": Preset(
        ours("cifar100", 100, _CENTER),
        "ELM, running class centres",
    ),
    "elm-cifar100-lt50": Preset(
        ours("cifar100", 50, _CONTRASTIVE),
        "ELM, contrastive",
    ),
    "elm-spread-cifar100-lt50": Preset(
        ours("cifar100", 50, _SPREAD),
        "ELM, spread",
    ),
    "elm-center-cifar100-lt50": Preset(
        ours("cifar100", 50, _CENTER),
        "ELM, running class centres",
    ),
    "elm-cifar100-lt10": Preset(
        ours("cifar100", 10, _CONTRASTIVE),
        "ELM, contrastive",
    ),
    "elm-spread-cifar100-lt10": Preset(
        ours("cifar100", 10, _SPREAD),
        "ELM, spread",
    ),
    "elm-center-cifar100-lt10": Preset(
        ours("cifar100", 10, _CENTER),
        "ELM, running class centres",
    ),
}
