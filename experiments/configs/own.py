"""Starting points for data of one's own: ``--data.path FILE_OR_FOLDER``.

Both are small enough for a CPU. See docs/own_data.md.
"""

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import OptimizerConfig
from experiments.models import ModelConfig

PRESETS: dict[str, Preset] = {
    "table": Preset(
        TrainConfig(
            data=DataConfig(name="csv"),
            model=ModelConfig(name="mlp", hidden=(64, 64)),
            optimizer=OptimizerConfig(learning_rate=0.05),
            epochs=40,
            batch_size=32,
        ),
        "an MLP on a CSV file of your own, or on arrays (--data.name arrays)",
    ),
    "images": Preset(
        TrainConfig(
            data=DataConfig(name="folder", image_size=32),
            model=ModelConfig(name="patchify"),
            optimizer=OptimizerConfig(learning_rate=0.05),
            epochs=20,
            batch_size=32,
            flip=True,
        ),
        "a small network on a folder of images of your own, resized to 32 x 32",
    ),
}
