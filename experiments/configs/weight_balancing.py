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

Two stages: the second starts from the best weights of the run with weight decay::

    python -m experiments.train wb-wd-cifar100-lt100
    python -m experiments.train wb-two-stage-cifar100-lt100 \\
        --init-from runs/wb-wd-cifar100-lt100/best.npz
"""

import dataclasses
from typing import Literal

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
    *,
    wd: bool = False,
    fr: bool = False,
    etf: bool = False,
    adjustment: Literal["none", "additive", "multiplicative"] = "none",
) -> TrainConfig:
    """A cell of the factorial."""
    return TrainConfig(
        data=DataConfig(name=name, recipe="weight_balancing", factor=0.01),
        model=ModelConfig(name="resnet34", head="etf" if etf else "linear"),
        method=MethodConfig(feature_penalty=1e-2 if fr else 0.0, post_hoc=adjustment),
        optimizer=OptimizerConfig(
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=5e-3 if wd else 0.0,
            schedule="cosine",
        ),
        epochs=320,
        batch_size=64,
        crop=4,
        flip=True,
    )


def _second_stage(name: _CIFAR) -> TrainConfig:
    """The classifier alone, trained again."""
    first = _one_stage(name, wd=True)
    return dataclasses.replace(
        first,
        method=MethodConfig(loss=ClassBalanced(beta=0.9999), max_norm=0.1),
        optimizer=dataclasses.replace(first.optimizer, weight_decay=0.1),
        epochs=10,
        trained="classifier",
    )


PRESETS: dict[str, Preset] = {
    "wb-naive-cifar10-lt100": Preset(
        _one_stage("cifar10"),
        "weight balancing, none of them",
    ),
    "wb-naive-add-cifar10-lt100": Preset(
        _one_stage("cifar10", adjustment="additive"),
        "weight balancing, none of them, additive adjustment",
    ),
    "wb-naive-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", adjustment="multiplicative"),
        "weight balancing, none of them, multiplicative adjustment",
    ),
    "wb-etf-cifar10-lt100": Preset(
        _one_stage("cifar10", etf=True),
        "weight balancing, ETF",
    ),
    "wb-etf-add-cifar10-lt100": Preset(
        _one_stage("cifar10", etf=True, adjustment="additive"),
        "weight balancing, ETF, additive adjustment",
    ),
    "wb-etf-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", etf=True, adjustment="multiplicative"),
        "weight balancing, ETF, multiplicative adjustment",
    ),
    "wb-fr-cifar10-lt100": Preset(
        _one_stage("cifar10", fr=True),
        "weight balancing, FR",
    ),
    "wb-fr-add-cifar10-lt100": Preset(
        _one_stage("cifar10", fr=True, adjustment="additive"),
        "weight balancing, FR, additive adjustment",
    ),
    "wb-fr-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", fr=True, adjustment="multiplicative"),
        "weight balancing, FR, multiplicative adjustment",
    ),
    "wb-fr-etf-cifar10-lt100": Preset(
        _one_stage("cifar10", fr=True, etf=True),
        "weight balancing, FR+ETF",
    ),
    "wb-fr-etf-add-cifar10-lt100": Preset(
        _one_stage("cifar10", fr=True, etf=True, adjustment="additive"),
        "weight balancing, FR+ETF, additive adjustment",
    ),
    "wb-fr-etf-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", fr=True, etf=True, adjustment="multiplicative"),
        "weight balancing, FR+ETF, multiplicative adjustment",
    ),
    "wb-wd-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True),
        "weight balancing, WD",
    ),
    "wb-wd-add-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, adjustment="additive"),
        "weight balancing, WD, additive adjustment",
    ),
    "wb-wd-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, adjustment="multiplicative"),
        "weight balancing, WD, multiplicative adjustment",
    ),
    "wb-wd-etf-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, etf=True),
        "weight balancing, WD+ETF",
    ),
    "wb-wd-etf-add-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, etf=True, adjustment="additive"),
        "weight balancing, WD+ETF, additive adjustment",
    ),
    "wb-wd-etf-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, etf=True, adjustment="multiplicative"),
        "weight balancing, WD+ETF, multiplicative adjustment",
    ),
    "wb-wd-fr-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, fr=True),
        "weight balancing, WD+FR",
    ),
    "wb-wd-fr-add-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, fr=True, adjustment="additive"),
        "weight balancing, WD+FR, additive adjustment",
    ),
    "wb-wd-fr-mult-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, fr=True, adjustment="multiplicative"),
        "weight balancing, WD+FR, multiplicative adjustment",
    ),
    "wb-wd-fr-etf-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, fr=True, etf=True),
        "weight balancing, WD+FR+ETF",
    ),
    "wb-wd-fr-etf-add-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, fr=True, etf=True, adjustment="additive"),
        "weight balancing, WD+FR+ETF, additive adjustment",
    ),
    "wb-one-stage-cifar10-lt100": Preset(
        _one_stage("cifar10", wd=True, fr=True, etf=True, adjustment="multiplicative"),
        "weight balancing, WD+FR+ETF, multiplicative adjustment",
    ),
    "wb-two-stage-cifar10-lt100": Preset(
        _second_stage("cifar10"),
        "weight balancing, the second stage; needs --init-from",
    ),
    "wb-naive-cifar100-lt100": Preset(
        _one_stage("cifar100"),
        "weight balancing, none of them",
        Published(39.62, "ResNet-34", _ON_VALIDATION, _SOURCE),
    ),
    "wb-naive-add-cifar100-lt100": Preset(
        _one_stage("cifar100", adjustment="additive"),
        "weight balancing, none of them, additive adjustment",
    ),
    "wb-naive-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", adjustment="multiplicative"),
        "weight balancing, none of them, multiplicative adjustment",
    ),
    "wb-etf-cifar100-lt100": Preset(
        _one_stage("cifar100", etf=True),
        "weight balancing, ETF",
    ),
    "wb-etf-add-cifar100-lt100": Preset(
        _one_stage("cifar100", etf=True, adjustment="additive"),
        "weight balancing, ETF, additive adjustment",
    ),
    "wb-etf-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", etf=True, adjustment="multiplicative"),
        "weight balancing, ETF, multiplicative adjustment",
    ),
    "wb-fr-cifar100-lt100": Preset(
        _one_stage("cifar100", fr=True),
        "weight balancing, FR",
    ),
    "wb-fr-add-cifar100-lt100": Preset(
        _one_stage("cifar100", fr=True, adjustment="additive"),
        "weight balancing, FR, additive adjustment",
    ),
    "wb-fr-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", fr=True, adjustment="multiplicative"),
        "weight balancing, FR, multiplicative adjustment",
    ),
    "wb-fr-etf-cifar100-lt100": Preset(
        _one_stage("cifar100", fr=True, etf=True),
        "weight balancing, FR+ETF",
    ),
    "wb-fr-etf-add-cifar100-lt100": Preset(
        _one_stage("cifar100", fr=True, etf=True, adjustment="additive"),
        "weight balancing, FR+ETF, additive adjustment",
    ),
    "wb-fr-etf-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", fr=True, etf=True, adjustment="multiplicative"),
        "weight balancing, FR+ETF, multiplicative adjustment",
    ),
    "wb-wd-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True),
        "weight balancing, WD",
        Published(47.18, "ResNet-34", _ON_VALIDATION, _SOURCE),
    ),
    "wb-wd-add-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, adjustment="additive"),
        "weight balancing, WD, additive adjustment",
    ),
    "wb-wd-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, adjustment="multiplicative"),
        "weight balancing, WD, multiplicative adjustment",
    ),
    "wb-wd-etf-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, etf=True),
        "weight balancing, WD+ETF",
    ),
    "wb-wd-etf-add-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, etf=True, adjustment="additive"),
        "weight balancing, WD+ETF, additive adjustment",
    ),
    "wb-wd-etf-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, etf=True, adjustment="multiplicative"),
        "weight balancing, WD+ETF, multiplicative adjustment",
    ),
    "wb-wd-fr-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, fr=True),
        "weight balancing, WD+FR",
    ),
    "wb-wd-fr-add-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, fr=True, adjustment="additive"),
        "weight balancing, WD+FR, additive adjustment",
    ),
    "wb-wd-fr-mult-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, fr=True, adjustment="multiplicative"),
        "weight balancing, WD+FR, multiplicative adjustment",
    ),
    "wb-wd-fr-etf-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, fr=True, etf=True),
        "weight balancing, WD+FR+ETF",
    ),
    "wb-wd-fr-etf-add-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, fr=True, etf=True, adjustment="additive"),
        "weight balancing, WD+FR+ETF, additive adjustment",
    ),
    "wb-one-stage-cifar100-lt100": Preset(
        _one_stage("cifar100", wd=True, fr=True, etf=True, adjustment="multiplicative"),
        "weight balancing, WD+FR+ETF, multiplicative adjustment",
    ),
    "wb-two-stage-cifar100-lt100": Preset(
        _second_stage("cifar100"),
        "weight balancing, the second stage; needs --init-from",
        Published(51.98, "ResNet-34", _ON_VALIDATION, _SOURCE),
    ),
}
