"""ABSGD on Clothing1M: a million photographs, read while training.

Published from ImageNet weights, which are not included: ``--init-from WEIGHTS.npz``.
The shorter side is resized to 256 pixels, a random crop of 224 x 224 is mirrored at
random, and colours are normalised by the set's own statistics. It has no small twin.

    python -m experiments.train absgd-clothing1m --workers 16
"""

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    MethodConfig,
    OptimizerConfig,
    SymmetricCrossEntropy,
)
from experiments.models import ModelConfig

PRESETS: dict[str, Preset] = {
    "absgd-clothing1m": Preset(
        TrainConfig(
            data=DataConfig(name="clothing1m", stream_crop="place"),
            model=ModelConfig(name="resnet50"),
            method=MethodConfig(
                loss=SymmetricCrossEntropy(alpha=0.1, beta=1.0),
                weighting=Absgd(
                    temperature=-5.0,
                    gamma=0.5,
                    alpha=0.5,
                    bias_correction=False,
                    erm_weight=1.0,
                    start_epoch=5,
                ),
            ),
            optimizer=OptimizerConfig(
                learning_rate=0.005,
                weight_decay=1e-3,
                clip_norm=5.0,
                schedule="step",
                milestones=(5,),
                factor=0.1,
            ),
            epochs=10,
            batch_size=128,
        ),
        "ABSGD, photographs of clothes with the labels of their web pages",
    ),
}
