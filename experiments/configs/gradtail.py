"""GradTail, whose code and settings are not available to us.

Images at 200 epochs of our own schedule (`experiments.configs.tails`), and regression,
for which the method was designed too, beside the same runs without it.

    python -m experiments.train gradtail-cifar10-lt100
"""

from typing import Literal

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import long_tailed
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


def _tail(name: Literal["cifar10", "cifar100"], ratio: int) -> tuple[TrainConfig, str]:
    about = f"GradTail, exponential tail of ratio {ratio}"
    return long_tailed(name, ratio, (_CLASSIFIER, about))


def _regression(
    name: Literal["california", "abalone", "bike"], weighting: tuple[Weighting, str]
) -> tuple[TrainConfig, str]:
    config = TrainConfig(
        data=DataConfig(name=name),
        model=ModelConfig(name="mlp", hidden=(128, 128)),
        method=MethodConfig(loss=SquaredError(), weighting=weighting[0]),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3, weight_decay=1e-4),
        epochs=100,
    )
    return config, f"{weighting[1]}, regression on a long-tailed target"


_MSE = NoWeighting(), "squared error"
_GRADTAIL = GradTail(z_score=True), "GradTail"

PRESETS: dict[str, Preset] = {
    "gradtail-cifar10-lt100": Preset(*_tail("cifar10", 100)),
    "gradtail-cifar10-lt50": Preset(*_tail("cifar10", 50)),
    "gradtail-cifar10-lt10": Preset(*_tail("cifar10", 10)),
    "gradtail-cifar100-lt100": Preset(*_tail("cifar100", 100)),
    "gradtail-cifar100-lt50": Preset(*_tail("cifar100", 50)),
    "gradtail-cifar100-lt10": Preset(*_tail("cifar100", 10)),
    "mse-california": Preset(*_regression("california", _MSE)),
    "mse-abalone": Preset(*_regression("abalone", _MSE)),
    "mse-bike": Preset(*_regression("bike", _MSE)),
    "gradtail-california": Preset(*_regression("california", _GRADTAIL)),
    "gradtail-abalone": Preset(*_regression("abalone", _GRADTAIL)),
    "gradtail-bike": Preset(*_regression("bike", _GRADTAIL)),
}
