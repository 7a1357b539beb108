"""GradTail: no code or settings published that are available here.

Images at 200 epochs of our own schedule (`experiments.configs.tails`), and regression,
for which the method was made too, beside the same runs without it.

    python -m experiments.train gradtail-cifar10-lt100
"""

from typing import Literal

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import ours
from experiments.datasets import DataConfig
from experiments.methods import (
    GradTail,
    MethodConfig,
    NoWeighting,
    OptimizerConfig,
    SquaredError,
    Weighting,
)
from experiments.models import ModelConfig

_CLASSIFIER = MethodConfig(weighting=GradTail(layers="classifier"))


def _regression(
    name: Literal["california", "abalone", "bike"], weighting: Weighting
) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(name=name),
        model=ModelConfig(name="mlp", hidden=(128, 128)),
        method=MethodConfig(loss=SquaredError(), weighting=weighting),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3, weight_decay=1e-4),
        epochs=100,
    )


PRESETS: dict[str, Preset] = {
    "gradtail-cifar10-lt100": Preset(
        ours("cifar10", 100, _CLASSIFIER),
        "GradTail, exponential tail of ratio 100",
    ),
    "gradtail-cifar10-lt50": Preset(
        ours("cifar10", 50, _CLASSIFIER),
        "GradTail, exponential tail of ratio 50",
    ),
    "gradtail-cifar10-lt10": Preset(
        ours("cifar10", 10, _CLASSIFIER),
        "GradTail, exponential tail of ratio 10",
    ),
    "gradtail-cifar100-lt100": Preset(
        ours("cifar100", 100, _CLASSIFIER),
        "GradTail, exponential tail of ratio 100",
    ),
    "gradtail-cifar100-lt50": Preset(
        ours("cifar100", 50, _CLASSIFIER),
        "GradTail, exponential tail of ratio 50",
    ),
    "gradtail-cifar100-lt10": Preset(
        ours("cifar100", 10, _CLASSIFIER),
        "GradTail, exponential tail of ratio 10",
    ),
    "mse-california": Preset(
        _regression("california", NoWeighting()),
        "squared error, regression on a long-tailed target",
    ),
    "mse-abalone": Preset(
        _regression("abalone", NoWeighting()),
        "squared error, regression on a long-tailed target",
    ),
    "mse-bike": Preset(
        _regression("bike", NoWeighting()),
        "squared error, regression on a long-tailed target",
    ),
    "gradtail-california": Preset(
        _regression("california", GradTail(z_score=True)),
        "GradTail, regression on a long-tailed target",
    ),
    "gradtail-abalone": Preset(
        _regression("abalone", GradTail(z_score=True)),
        "GradTail, regression on a long-tailed target",
    ),
    "gradtail-bike": Preset(
        _regression("bike", GradTail(z_score=True)),
        "GradTail, regression on a long-tailed target",
    ),
}
