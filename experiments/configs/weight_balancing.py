"""Weight balancing, in two stages and in one (Hasegawa and Sato, ICLR 2024).

ResNet-34 with a 3x3 stem, batch 64, SGD at 0.01 over 320 epochs, ratio 100, the next 20
images of each class for validation; the best epoch on validation is reported. Weight
decay is 5e-3, feature regularisation 1e-2. The published schedule is not known here; a
cosine stands in for it.

The factorial: weight decay (wd), feature regularisation (fr), a fixed ETF head (etf)
and an adjustment of the trained logits, additive (add) or multiplicative (mult), its
strength searched on validation. ``one-stage`` is all of them with the multiplicative
one. The adjustment leaves training as it is: the logits of a run without it serve for
both.

Two stages: the second starts from the best parameters of the run with weight decay::

    python -m experiments.train wb-wd-cifar100-lt100
    python -m experiments.train wb-two-stage-cifar100-lt100 \\
        --init-from runs/wb-wd-cifar100-lt100/best.npz
"""

import dataclasses
import functools
from typing import Final, Literal

from experiments.configs.presets import Preset, Published
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import ClassBalanced, MethodConfig, OptimizerConfig
from experiments.models import ModelConfig

_CIFAR = Literal["cifar10", "cifar100"]
_ON_VALIDATION = "best on validation"
_SOURCE = "arXiv 2305.16573, log of the authors' run"


def _one_stage(
    name: _CIFAR,
    adjustment: Literal["none", "additive", "multiplicative"],
    *parts: Literal["WD", "FR", "ETF"],
) -> tuple[TrainConfig, str]:
    """A cell of the factorial, and what it is."""
    config = TrainConfig(
        data=DataConfig(name=name, recipe="weight_balancing", factor=0.01),
        model=ModelConfig(name="resnet34", head="etf" if "ETF" in parts else "linear"),
        method=MethodConfig(
            feature_penalty=1e-2 if "FR" in parts else 0.0, post_hoc=adjustment
        ),
        optimizer=OptimizerConfig(
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=5e-3 if "WD" in parts else 0.0,
            schedule="cosine",
        ),
        epochs=320,
        batch_size=64,
        crop=4,
        flip=True,
    )
    about = f"weight balancing, {'+'.join(parts) or 'none of them'}"
    if adjustment != "none":
        about += f", {adjustment} adjustment"
    return config, about


def _second_stage(name: _CIFAR) -> tuple[TrainConfig, str]:
    """The classifier alone, trained again."""
    first, _ = _one_stage(name, "none", "WD")
    config = dataclasses.replace(
        first,
        method=MethodConfig(loss=ClassBalanced(beta=0.9999), max_norm=0.1),
        optimizer=dataclasses.replace(first.optimizer, weight_decay=0.1),
        epochs=10,
        trained="classifier",
    )
    return config, "weight balancing, the second stage; needs --init-from"


_cifar10 = functools.partial(_one_stage, "cifar10")
_cifar100 = functools.partial(_one_stage, "cifar100")
_NONE: Final = "none"
_ADD: Final = "additive"
_MULT: Final = "multiplicative"

PRESETS: dict[str, Preset] = {
    "wb-naive-cifar10-lt100": Preset(*_cifar10(_NONE)),
    "wb-naive-add-cifar10-lt100": Preset(*_cifar10(_ADD)),
    "wb-naive-mult-cifar10-lt100": Preset(*_cifar10(_MULT)),
    "wb-etf-cifar10-lt100": Preset(*_cifar10(_NONE, "ETF")),
    "wb-etf-add-cifar10-lt100": Preset(*_cifar10(_ADD, "ETF")),
    "wb-etf-mult-cifar10-lt100": Preset(*_cifar10(_MULT, "ETF")),
    "wb-fr-cifar10-lt100": Preset(*_cifar10(_NONE, "FR")),
    "wb-fr-add-cifar10-lt100": Preset(*_cifar10(_ADD, "FR")),
    "wb-fr-mult-cifar10-lt100": Preset(*_cifar10(_MULT, "FR")),
    "wb-fr-etf-cifar10-lt100": Preset(*_cifar10(_NONE, "FR", "ETF")),
    "wb-fr-etf-add-cifar10-lt100": Preset(*_cifar10(_ADD, "FR", "ETF")),
    "wb-fr-etf-mult-cifar10-lt100": Preset(*_cifar10(_MULT, "FR", "ETF")),
    "wb-wd-cifar10-lt100": Preset(*_cifar10(_NONE, "WD")),
    "wb-wd-add-cifar10-lt100": Preset(*_cifar10(_ADD, "WD")),
    "wb-wd-mult-cifar10-lt100": Preset(*_cifar10(_MULT, "WD")),
    "wb-wd-etf-cifar10-lt100": Preset(*_cifar10(_NONE, "WD", "ETF")),
    "wb-wd-etf-add-cifar10-lt100": Preset(*_cifar10(_ADD, "WD", "ETF")),
    "wb-wd-etf-mult-cifar10-lt100": Preset(*_cifar10(_MULT, "WD", "ETF")),
    "wb-wd-fr-cifar10-lt100": Preset(*_cifar10(_NONE, "WD", "FR")),
    "wb-wd-fr-add-cifar10-lt100": Preset(*_cifar10(_ADD, "WD", "FR")),
    "wb-wd-fr-mult-cifar10-lt100": Preset(*_cifar10(_MULT, "WD", "FR")),
    "wb-wd-fr-etf-cifar10-lt100": Preset(*_cifar10(_NONE, "WD", "FR", "ETF")),
    "wb-wd-fr-etf-add-cifar10-lt100": Preset(*_cifar10(_ADD, "WD", "FR", "ETF")),
    "wb-one-stage-cifar10-lt100": Preset(*_cifar10(_MULT, "WD", "FR", "ETF")),
    "wb-two-stage-cifar10-lt100": Preset(*_second_stage("cifar10")),
    "wb-naive-cifar100-lt100": Preset(
        *_cifar100(_NONE),
        Published(39.62, "ResNet-34", _ON_VALIDATION, _SOURCE),
    ),
    "wb-naive-add-cifar100-lt100": Preset(*_cifar100(_ADD)),
    "wb-naive-mult-cifar100-lt100": Preset(*_cifar100(_MULT)),
    "wb-etf-cifar100-lt100": Preset(*_cifar100(_NONE, "ETF")),
    "wb-etf-add-cifar100-lt100": Preset(*_cifar100(_ADD, "ETF")),
    "wb-etf-mult-cifar100-lt100": Preset(*_cifar100(_MULT, "ETF")),
    "wb-fr-cifar100-lt100": Preset(*_cifar100(_NONE, "FR")),
    "wb-fr-add-cifar100-lt100": Preset(*_cifar100(_ADD, "FR")),
    "wb-fr-mult-cifar100-lt100": Preset(*_cifar100(_MULT, "FR")),
    "wb-fr-etf-cifar100-lt100": Preset(*_cifar100(_NONE, "FR", "ETF")),
    "wb-fr-etf-add-cifar100-lt100": Preset(*_cifar100(_ADD, "FR", "ETF")),
    "wb-fr-etf-mult-cifar100-lt100": Preset(*_cifar100(_MULT, "FR", "ETF")),
    "wb-wd-cifar100-lt100": Preset(
        *_cifar100(_NONE, "WD"),
        Published(47.18, "ResNet-34", _ON_VALIDATION, _SOURCE),
    ),
    "wb-wd-add-cifar100-lt100": Preset(*_cifar100(_ADD, "WD")),
    "wb-wd-mult-cifar100-lt100": Preset(*_cifar100(_MULT, "WD")),
    "wb-wd-etf-cifar100-lt100": Preset(*_cifar100(_NONE, "WD", "ETF")),
    "wb-wd-etf-add-cifar100-lt100": Preset(*_cifar100(_ADD, "WD", "ETF")),
    "wb-wd-etf-mult-cifar100-lt100": Preset(*_cifar100(_MULT, "WD", "ETF")),
    "wb-wd-fr-cifar100-lt100": Preset(*_cifar100(_NONE, "WD", "FR")),
    "wb-wd-fr-add-cifar100-lt100": Preset(*_cifar100(_ADD, "WD", "FR")),
    "wb-wd-fr-mult-cifar100-lt100": Preset(*_cifar100(_MULT, "WD", "FR")),
    "wb-wd-fr-etf-cifar100-lt100": Preset(*_cifar100(_NONE, "WD", "FR", "ETF")),
    "wb-wd-fr-etf-add-cifar100-lt100": Preset(*_cifar100(_ADD, "WD", "FR", "ETF")),
    "wb-one-stage-cifar100-lt100": Preset(*_cifar100(_MULT, "WD", "FR", "ETF")),
    "wb-two-stage-cifar100-lt100": Preset(
        *_second_stage("cifar100"),
        Published(51.98, "ResNet-34", _ON_VALIDATION, _SOURCE),
    ),
}
