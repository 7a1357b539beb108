"""A run of two steps through everything: ``python -m experiments.train smoke``."""

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import OptimizerConfig
from experiments.models import ModelConfig

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        TrainConfig(
            data=DataConfig(name="synthetic", meta_size=100),
            model=ModelConfig(name="mlp", hidden=(16,)),
            optimizer=OptimizerConfig(learning_rate=0.01),
            epochs=1,
            batch_size=208,
            meta_batch_size=16,
            crop=4,
            flip=True,
        ),
        "two steps on synthetic images, for tests; takes any method",
    ),
}
