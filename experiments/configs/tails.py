"""The recipe that long-tail presets without a published one of their own share.

ResNet-32, 200 epochs, batch 128, SGD at 0.1 with Nesterov momentum and a cosine, weight
decay 2e-4 on kernels, padding by 2 and mirroring, 1,000 validation images: ours.
"""

from typing import Literal

from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import MethodConfig, OptimizerConfig
from experiments.models import ModelConfig


def exponential(name: Literal["cifar10", "cifar100"], ratio: int) -> DataConfig:
    """An exponential tail beside 1,000 validation images."""
    return DataConfig(name=name, recipe="exponential", factor=1 / ratio, val_size=1000)


def ours(
    name: Literal["cifar10", "cifar100"], ratio: int, method: MethodConfig
) -> TrainConfig:
    """200 epochs with our schedule."""
    return TrainConfig(
        data=exponential(name, ratio),
        model=ModelConfig(name="resnet32"),
        method=method,
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
