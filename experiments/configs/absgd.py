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
run on CIFAR-100 has the weights of its own publication (Wang et al., ICCV 2019).

    python -m experiments.train absgd-cifar10-lt10
    python -m experiments.train absgd-cifar10-sym40
"""

from typing import Any, Literal

from experiments.configs.presets import Preset, Published
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    ClassBalanced,
    MethodConfig,
    OptimizerConfig,
    SymmetricCrossEntropy,
    TruncatedGeneralizedCrossEntropy,
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
    name: Literal["cifar10", "cifar100"],
    recipe: Literal["exponential", "step"],
    ratio: int,
    weighting: Absgd,
    *,
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


_CIFAR10_TAIL = _absgd(5.0, 0.7, 0.5, start_epoch=160)
_CIFAR100_TAIL = _absgd(3.0, 0.45, 0.3, start_epoch=160)


def _tutorial_ratio10(method: MethodConfig) -> TrainConfig:
    """ResNet-18 with the 7x7 stem of large images, weighted from the start."""
    return TrainConfig(
        data=DataConfig(
            name="cifar10", recipe="exponential", factor=0.1, val_size=1000
        ),
        model=ModelConfig(name="resnet18_7x7"),
        method=method,
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


def _tutorial_ratio100(method: MethodConfig) -> TrainConfig:
    """The same network, weighted from epoch 60."""
    return TrainConfig(
        data=DataConfig(
            name="cifar10", recipe="exponential", factor=0.01, val_size=1000
        ),
        model=ModelConfig(name="resnet18_7x7"),
        method=method,
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


def _cifar10_noise(
    noise: Literal["uniform_other", "asymmetric"], rate: float, method: MethodConfig
) -> TrainConfig:
    """Six convolutions, clipped gradients."""
    return TrainConfig(
        data=DataConfig(name="cifar10", noise=noise, noise_rate=rate, val_size=1000),
        model=ModelConfig(name="conv6"),
        method=method,
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


def _cifar100_noise(
    rate: float, method: MethodConfig, *, normalize_logits: float | None = None
) -> TrainConfig:
    """ResNet-34, rotations too, with or without normalised logits."""
    return TrainConfig(
        data=DataConfig(
            name="cifar100", noise="uniform_other", noise_rate=rate, val_size=1000
        ),
        model=ModelConfig(name="resnet34", normalize_logits=normalize_logits),
        method=method,
        optimizer=OptimizerConfig(
            learning_rate=0.01,
            weight_decay=1e-2,
            clip_norm=5.0,
            schedule="step",
            milestones=(40, 80),
            factor=0.1,
        ),
        epochs=120,
        batch_size=128,
        crop=4,
        flip=True,
        rotate=20.0,
    )


_CE = MethodConfig()
_SCE = MethodConfig(loss=SymmetricCrossEntropy(alpha=0.2, beta=2.0))
_CIFAR10_NOISE = MethodConfig(
    loss=SymmetricCrossEntropy(alpha=0.1, beta=2.0),
    weighting=_absgd(-0.5, 0.9, 0.5, erm_weight=1.0, start_epoch=80),
)
_CIFAR100_NOISE = MethodConfig(
    loss=SymmetricCrossEntropy(alpha=2.0, beta=0.0),
    weighting=_absgd(-5.0, 0.5, 0.5, erm_weight=1.0, start_epoch=80),
)
_CIFAR100_SCE = MethodConfig(loss=SymmetricCrossEntropy(alpha=6.0, beta=0.1))
_TRUNCATED = MethodConfig(loss=TruncatedGeneralizedCrossEntropy(start_epoch=80))

PRESETS: dict[str, Preset] = {
    "absgd-cifar10-lt10": Preset(
        _tail("cifar10", "exponential", 10, _CIFAR10_TAIL, batch_size=100, dropout=0.2),
        "ABSGD, exponential tail of ratio 10",
    ),
    "absgd-cifar10-lt100": Preset(
        _tail(
            "cifar10", "exponential", 100, _CIFAR10_TAIL, batch_size=100, dropout=0.2
        ),
        "ABSGD, exponential tail of ratio 100; settings of ratio 10",
    ),
    "absgd-cifar100-step100": Preset(
        _tail("cifar100", "step", 100, _CIFAR100_TAIL, batch_size=128, dropout=0.0),
        "ABSGD, step-shaped tail of ratio 100",
    ),
    "absgd-cifar100-lt100": Preset(
        _tail(
            "cifar100", "exponential", 100, _CIFAR100_TAIL, batch_size=128, dropout=0.0
        ),
        "ABSGD, exponential tail of ratio 100; settings of the step-shaped one",
    ),
    "ce-cifar10-lt10-resnet18": Preset(
        _tutorial_ratio10(_CE),
        "plain training, exponential tail of ratio 10, ResNet-18",
        Published(77.45, "ResNet-18", "", _TUTORIAL),
    ),
    "absgd-cifar10-lt10-resnet18": Preset(
        _tutorial_ratio10(MethodConfig(weighting=_absgd(0.5, 0.9, 1.0))),
        "ABSGD, exponential tail of ratio 10, ResNet-18",
        Published(77.98, "ResNet-18", "", _TUTORIAL),
    ),
    "ce-cifar10-lt100-resnet18": Preset(
        _tutorial_ratio100(_CE),
        "plain training, exponential tail of ratio 100, ResNet-18",
        Published(61.89, "ResNet-18", _ON_TEST, _TUTORIAL),
    ),
    "absgd-cifar10-lt100-resnet18": Preset(
        _tutorial_ratio100(
            MethodConfig(weighting=_absgd(2.0, 0.9, 1.0, start_epoch=60))
        ),
        "ABSGD, exponential tail of ratio 100, ResNet-18",
        Published(62.84, "ResNet-18", _ON_TEST, _TUTORIAL),
    ),
    "ce-cifar10-sym20": Preset(
        _cifar10_noise("uniform_other", 0.2, _CE),
        "plain training, 20% symmetric noise",
    ),
    "sce-cifar10-sym20": Preset(
        _cifar10_noise("uniform_other", 0.2, _SCE),
        "symmetric cross-entropy, 20% symmetric noise",
    ),
    "absgd-cifar10-sym20": Preset(
        _cifar10_noise("uniform_other", 0.2, _CIFAR10_NOISE),
        "ABSGD on symmetric cross-entropy, 20% symmetric noise",
    ),
    "ce-cifar10-sym40": Preset(
        _cifar10_noise("uniform_other", 0.4, _CE),
        "plain training, 40% symmetric noise",
    ),
    "sce-cifar10-sym40": Preset(
        _cifar10_noise("uniform_other", 0.4, _SCE),
        "symmetric cross-entropy, 40% symmetric noise",
    ),
    "absgd-cifar10-sym40": Preset(
        _cifar10_noise("uniform_other", 0.4, _CIFAR10_NOISE),
        "ABSGD on symmetric cross-entropy, 40% symmetric noise",
    ),
    "ce-cifar10-asym20": Preset(
        _cifar10_noise("asymmetric", 0.2, _CE),
        "plain training, 20% asymmetric noise",
    ),
    "sce-cifar10-asym20": Preset(
        _cifar10_noise("asymmetric", 0.2, _SCE),
        "symmetric cross-entropy, 20% asymmetric noise",
    ),
    "absgd-cifar10-asym20": Preset(
        _cifar10_noise("asymmetric", 0.2, _CIFAR10_NOISE),
        "ABSGD on symmetric cross-entropy, 20% asymmetric noise",
    ),
    "ce-cifar10-asym40": Preset(
        _cifar10_noise("asymmetric", 0.4, _CE),
        "plain training, 40% asymmetric noise",
    ),
    "sce-cifar10-asym40": Preset(
        _cifar10_noise("asymmetric", 0.4, _SCE),
        "symmetric cross-entropy, 40% asymmetric noise",
    ),
    "absgd-cifar10-asym40": Preset(
        _cifar10_noise("asymmetric", 0.4, _CIFAR10_NOISE),
        "ABSGD on symmetric cross-entropy, 40% asymmetric noise",
    ),
    "ce-cifar100-sym20": Preset(
        _cifar100_noise(0.2, _CE),
        "plain training, 20% symmetric noise",
        Published(68.21, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "ce-normalized-cifar100-sym20": Preset(
        _cifar100_noise(0.2, _CE, normalize_logits=1.0),
        "plain training, normalised logits, 20% symmetric noise",
        Published(72.13, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "absgd-cifar100-sym20": Preset(
        _cifar100_noise(0.2, _CIFAR100_NOISE, normalize_logits=1.0),
        "ABSGD on symmetric cross-entropy, normalised logits, 20% symmetric noise",
        Published(72.21, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "sce-cifar100-sym20": Preset(
        _cifar100_noise(0.2, _CIFAR100_SCE),
        "symmetric cross-entropy, 20% symmetric noise",
    ),
    "truncated-gce-cifar100-sym20": Preset(
        _cifar100_noise(0.2, _TRUNCATED),
        "generalised cross-entropy, truncated from epoch 80, 20% symmetric noise",
    ),
    "ce-cifar100-sym40": Preset(
        _cifar100_noise(0.4, _CE),
        "plain training, 40% symmetric noise",
        Published(56.29, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "ce-normalized-cifar100-sym40": Preset(
        _cifar100_noise(0.4, _CE, normalize_logits=1.0),
        "plain training, normalised logits, 40% symmetric noise",
        Published(67.02, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "absgd-cifar100-sym40": Preset(
        _cifar100_noise(0.4, _CIFAR100_NOISE, normalize_logits=1.0),
        "ABSGD on symmetric cross-entropy, normalised logits, 40% symmetric noise",
        Published(67.59, "ResNet-34", _ON_TEST, _LOGS),
    ),
    "sce-cifar100-sym40": Preset(
        _cifar100_noise(0.4, _CIFAR100_SCE),
        "symmetric cross-entropy, 40% symmetric noise",
    ),
    "truncated-gce-cifar100-sym40": Preset(
        _cifar100_noise(0.4, _TRUNCATED),
        "generalised cross-entropy, truncated from epoch 80, 40% symmetric noise",
    ),
}
