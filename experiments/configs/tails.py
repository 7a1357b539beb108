"""The recipe of long-tail presets that have no published one. It is our own.

ResNet-32, 200 epochs, batch 128, SGD at 0.1 with Nesterov momentum and a cosine, weight
decay 2e-4 on kernels, padding by 2 and mirroring, 1,000 validation images.
"""

from typing import Literal

from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import MethodConfig, OptimizerConfig
from experiments.models import ModelConfig


def exponential(name: Literal["cifar10", "cifar100"], ratio: int) -> DataConfig:
    """An exponential tail beside 1,000 validation images."""
    return DataConfig(name=name, recipe="exponential", factor=1 / ratio, val_size=1000)


def long_tailed(
    name: Literal["cifar10", "cifar100"], ratio: int, method: tuple[MethodConfig, str]
) -> tuple[TrainConfig, str]:
    """200 epochs of a method with our schedule, and what the method is."""
    config = TrainConfig(
        data=exponential(name, ratio),
        model=ModelConfig(name="resnet32"),
        method=method[0],
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            nesterov=True,
            weight_decay=2e-4,
            decayed="kernels",
            schedule="cosine",
        ),
        epochs=200,
        batch_size=128,
        crop=2,
        flip=True,
    )
    return config, method[1]
