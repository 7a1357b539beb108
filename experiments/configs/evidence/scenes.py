"""Dense prediction: long-tailed digits in scenes, a label for every pixel.

1,500 scenes of 48 x 48 pixels with four digits each, 6 epochs of a small U-shaped
network. Of the pixels two thirds are background. Group normalisation keeps the scenes
apart.
"""

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    BalancedSoftmax,
    GradTail,
    MethodConfig,
    OptimizerConfig,
)
from experiments.models import ModelConfig


def _scenes(method: MethodConfig) -> TrainConfig:
    """The common recipe."""
    return TrainConfig(
        data=DataConfig(
            name="scenes",
            recipe="exponential",
            factor=0.01,
            train_size=1500,
            val_size=200,
            image_size=48,
            shots=(50_000, 10_000),
        ),
        model=ModelConfig(name="unet", norm="group"),
        method=method,
        optimizer=OptimizerConfig(
            name="adam", learning_rate=3e-3, weight_decay=1e-4, schedule="cosine"
        ),
        epochs=6,
        batch_size=16,
    )


_CE = MethodConfig()
_BALANCED_SOFTMAX = MethodConfig(loss=BalancedSoftmax())
_ABSGD = MethodConfig(weighting=Absgd(temperature=2.0))
# Pixels are too many for norms, and so for cosines and the gate.
_GRADTAIL = MethodConfig(
    weighting=GradTail(
        activation="bump",
        similarity="dot_unit_mean",
        definition="row",
        z_score=True,
        center=-1.5,
        width=1.0,
        layers="classifier",
    )
)

PRESETS: dict[str, Preset] = {
    "evidence-scenes-mnist-ce": Preset(_scenes(_CE), "cross-entropy"),
    "evidence-scenes-mnist-balanced-softmax": Preset(
        _scenes(_BALANCED_SOFTMAX), "balanced softmax"
    ),
    "evidence-scenes-mnist-absgd": Preset(_scenes(_ABSGD), "ABSGD, temperature 2"),
    "evidence-scenes-mnist-gradtail": Preset(
        _scenes(_GRADTAIL), "GradTail, products with the gradient of the classifier"
    ),
}
