"""ABSGD (Qi et al., TMLR 2023): long tails, and wrong labels.

Settings are those of the authors' code, figures those of their tutorial and logs. The
tutorial at ratio 100 and the logs with noise report the best epoch on the test set. The
state of the weighting starts uncorrected, as released. A noise run adds a plain mean to
the weighted one.

Differences: 1,000 images are for validation (``--data.val-size 0`` gives their counts).
The tutorial does not say how it augments; padding by 4 and mirroring are taken from the
ResNet-32 runs. Its text has a learning rate of 0.05 at ratio 100, as here, its code
0.1. The CIFAR-10 noise runs have a weight decay of 0.01 on the first dense layer in
place of 0.005. Settings with asymmetric noise are those with symmetric noise. The SCE
run on CIFAR-100 has the loss weights of its publication (Wang et al., ICCV 2019).

    python -m experiments.train absgd-cifar10-lt10
    python -m experiments.train absgd-cifar10-sym40
"""

import dataclasses
import functools
from typing import Any, Literal

from experiments.configs.presets import Preset, Published
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import exponential
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    ClassBalanced,
    MethodConfig,
    NoWeighting,
    OptimizerConfig,
    SymmetricCrossEntropy,
    TruncatedGeneralizedCrossEntropy,
    Weighting,
)
from experiments.models import ModelConfig

_TUTORIAL = "arXiv 2012.06951, tutorial of the authors' package"
_LOGS = "arXiv 2012.06951, authors' logs"
_ON_TEST = "best on test"


def _absgd(temperature: float, gamma: float, alpha: float, **more: Any) -> Absgd:
    """The weighting with the released, uncorrected start."""
    return Absgd(
        temperature=temperature,
        gamma=gamma,
        alpha=alpha,
        bias_correction=False,
        **more,
    )


# Long tails


def _tail(
    recipe: Literal["exponential", "step"],
    ratio: int,
    *,
    name: Literal["cifar10", "cifar100"],
    weighting: Absgd,
    batch_size: int,
    dropout: float,
) -> TrainConfig:
    """ResNet-32: weighting and class weights begin as the learning rate falls."""
    return TrainConfig(
        data=DataConfig(name=name, recipe=recipe, factor=1 / ratio, val_size=1000),
        model=ModelConfig(name="resnet32", dropout=dropout),
        method=MethodConfig(loss=ClassBalanced(start_epoch=160), weighting=weighting),
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            weight_decay=2e-4,
            schedule="step",
            milestones=(160,),
            factor=0.01,
            warmup_epochs=5,
        ),
        epochs=200,
        batch_size=batch_size,
        crop=4,
        flip=True,
    )


_cifar10_tail = functools.partial(
    _tail,
    name="cifar10",
    weighting=_absgd(5.0, 0.7, 0.5, start_epoch=160),
    batch_size=100,
    dropout=0.2,
)
_cifar100_tail = functools.partial(
    _tail,
    name="cifar100",
    weighting=_absgd(3.0, 0.45, 0.3, start_epoch=160),
    batch_size=128,
    dropout=0.0,
)


def _tutorial_ratio10(weighting: Weighting) -> TrainConfig:
    """ResNet-18 with the 7x7 stem of large images, weighted from the start."""
    return TrainConfig(
        data=exponential("cifar10", 10),
        model=ModelConfig(name="resnet18_7x7"),
        method=MethodConfig(weighting=weighting),
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            weight_decay=0.0,
            schedule="step",
            milestones=(160, 230),
            factor=0.05,
        ),
        epochs=300,
        batch_size=128,
        crop=4,
        flip=True,
    )


def _tutorial_ratio100(weighting: Weighting) -> TrainConfig:
    """The same network, weighted from epoch 60."""
    return TrainConfig(
        data=exponential("cifar10", 100),
        model=ModelConfig(name="resnet18_7x7"),
        method=MethodConfig(weighting=weighting),
        optimizer=OptimizerConfig(
            learning_rate=0.05,
            weight_decay=1e-3,
            schedule="step",
            milestones=(60,),
            factor=0.01,
        ),
        epochs=100,
        batch_size=128,
        crop=4,
        flip=True,
    )


# Wrong labels


_SYM20 = DataConfig(noise="uniform_other", noise_rate=0.2), "20% symmetric noise"
_SYM40 = DataConfig(noise="uniform_other", noise_rate=0.4), "40% symmetric noise"
_ASYM20 = DataConfig(noise="asymmetric", noise_rate=0.2), "20% asymmetric noise"
_ASYM40 = DataConfig(noise="asymmetric", noise_rate=0.4), "40% asymmetric noise"


def _cifar10(
    data: tuple[DataConfig, str], method: tuple[MethodConfig, str]
) -> tuple[TrainConfig, str]:
    """Six convolutions, clipped gradients; and what the run is."""
    config = TrainConfig(
        data=dataclasses.replace(data[0], name="cifar10", val_size=1000),
        model=ModelConfig(name="conv6"),
        method=method[0],
        optimizer=OptimizerConfig(
            learning_rate=0.01,
            weight_decay=5e-3,
            clip_norm=5.0,
            schedule="step",
            milestones=(40, 80),
            factor=0.1,
        ),
        epochs=120,
        batch_size=128,
        crop=4,
        flip=True,
    )
    return config, f"{method[1]}, {data[1]}"


def _cifar100(
    data: tuple[DataConfig, str],
    method: tuple[MethodConfig, str],
    *,
    normalize_logits: float | None = None,
) -> tuple[TrainConfig, str]:
    """ResNet-34, rotations too; the rest is as on CIFAR-10."""
    base, about = _cifar10(data, method)
    config = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, name="cifar100"),
        model=ModelConfig(name="resnet34", normalize_logits=normalize_logits),
        optimizer=dataclasses.replace(base.optimizer, weight_decay=1e-2),
        rotate=20.0,
    )
    return config, about


def _sce(alpha: float, beta: float) -> MethodConfig:
    return MethodConfig(loss=SymmetricCrossEntropy(alpha=alpha, beta=beta))


_CE = MethodConfig(), "plain training"
_CE_NORMALIZED = MethodConfig(), "plain training, normalised logits"
_CIFAR10_SCE = _sce(0.2, 2.0), "symmetric cross-entropy"
_CIFAR100_SCE = _sce(6.0, 0.1), "symmetric cross-entropy"
_CIFAR10_ABSGD = (
    dataclasses.replace(
        _sce(0.1, 2.0),
        weighting=_absgd(-0.5, 0.9, 0.5, erm_weight=1.0, start_epoch=80),
    ),
    "ABSGD on symmetric cross-entropy",
)
_CIFAR100_ABSGD = (
    dataclasses.replace(
        _sce(2.0, 0.0),
        weighting=_absgd(-5.0, 0.5, 0.5, erm_weight=1.0, start_epoch=80),
    ),
    "ABSGD on symmetric cross-entropy, normalised logits",
)
_TRUNCATED = (
    MethodConfig(loss=TruncatedGeneralizedCrossEntropy(start_epoch=80)),
    "generalised cross-entropy, truncated from epoch 80",
)

PRESETS: dict[str, Preset] = {
    "absgd-cifar10-lt10": Preset(
        _cifar10_tail("exponential", 10), "ABSGD, exponential tail of ratio 10"
    ),
    "absgd-cifar10-lt100": Preset(
        _cifar10_tail("exponential", 100),
        "ABSGD, exponential tail of ratio 100; settings of ratio 10",
    ),
    "absgd-cifar100-step100": Preset(
        _cifar100_tail("step", 100), "ABSGD, step-shaped tail of ratio 100"
    ),
    "absgd-cifar100-lt100": Preset(
        _cifar100_tail("exponential", 100),
        "ABSGD, exponential tail of ratio 100; settings of the step-shaped one",
    ),
    "ce-cifar10-lt10-resnet18": Preset(
        _tutorial_ratio10(NoWeighting()),
        "plain training, exponential tail of ratio 10, ResNet-18",
        Published(77.45, "ResNet-18", "", _TUTORIAL),
    ),
    "absgd-cifar10-lt10-resnet18": Preset(
        _tutorial_ratio10(_absgd(0.5, 0.9, 1.0)),
        "ABSGD, exponential tail of ratio 10, ResNet-18",
        Published(77.98, "ResNet-18", "", _TUTORIAL),
    ),
    "ce-cifar10-lt100-resnet18": Preset(
        _tutorial_ratio100(NoWeighting()),
        "plain training, exponential tail of ratio 100, ResNet-18",
        Published(61.89, "ResNet-18", _ON_TEST, _TUTORIAL),
    ),
    "absgd-cifar10-lt100-resnet18": Preset(
        _tutorial_ratio100(_absgd(2.0, 0.9, 1.0, start_epoch=60)),
        "ABSGD, exponential tail of ratio 100, ResNet-18",
        Published(62.84, "ResNet-18", _ON_TEST, _TUTORIAL),
    ),
    "ce-cifar10-sym20": Preset(*_cifar10(_SYM20, _CE)),
    "sce-cifar10-sym20": Preset(*_cifar10(_SYM20, _CIFAR10_SCE)),
    "absgd-cifar10-sym20": Preset(*_cifar10(_SYM20, _CIFAR10_ABSGD)),
    "ce-cifar10-sym40": Preset(*_cifar10(_SYM40, _CE)),
    "sce-cifar10-sym40": Preset(*_cifar10(_SYM40, _CIFAR10_SCE)),
    "absgd-cifar10-sym40": Preset(*_cifar10(_SYM40, _CIFAR10_ABSGD)),
    "ce-cifar10-asym20": Preset(*_cifar10(_ASYM20, _CE)),
    "sce-cifar10-asym20": Preset(*_cifar10(_ASYM20, _CIFAR10_SCE)),
    "absgd-cifar10-asym20": Preset(*_cifar10(_ASYM20, _CIFAR10_ABSGD)),
    "ce-cifar10-asym40": Preset(*_cifar10(_ASYM40, _CE)),
    "sce-cifar10-asym40": Preset(*_cifar10(_ASYM40, _CIFAR10_SCE)),
    "absgd-cifar10-asym40": Preset(*_cifar10(_ASYM40, _CIFAR10_ABSGD)),
    "ce-cifar100-sym20": Preset(
        *_cifar100(_SYM20, _CE),
        Published(68.21, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "ce-normalized-cifar100-sym20": Preset(
        *_cifar100(_SYM20, _CE_NORMALIZED, normalize_logits=1.0),
        Published(72.13, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "absgd-cifar100-sym20": Preset(
        *_cifar100(_SYM20, _CIFAR100_ABSGD, normalize_logits=1.0),
        Published(72.21, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "sce-cifar100-sym20": Preset(*_cifar100(_SYM20, _CIFAR100_SCE)),
    "truncated-gce-cifar100-sym20": Preset(*_cifar100(_SYM20, _TRUNCATED)),
    "ce-cifar100-sym40": Preset(
        *_cifar100(_SYM40, _CE),
        Published(56.29, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "ce-normalized-cifar100-sym40": Preset(
        *_cifar100(_SYM40, _CE_NORMALIZED, normalize_logits=1.0),
        Published(67.02, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "absgd-cifar100-sym40": Preset(
        *_cifar100(_SYM40, _CIFAR100_ABSGD, normalize_logits=1.0),
        Published(67.59, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "sce-cifar100-sym40": Preset(*_cifar100(_SYM40, _CIFAR100_SCE)),
    "truncated-gce-cifar100-sym40": Preset(*_cifar100(_SYM40, _TRUNCATED)),
}
