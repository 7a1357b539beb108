"""Regression on long-tailed targets: an MLP on three tables, 50 epochs."""

from typing import Literal

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    GradTail,
    InverseDensity,
    MethodConfig,
    OptimizerConfig,
    SquaredError,
)
from experiments.models import ModelConfig


def _regression(
    name: Literal["california", "abalone", "bike"], method: MethodConfig
) -> TrainConfig:
    """The common recipe."""
    return TrainConfig(
        data=DataConfig(name=name),
        model=ModelConfig(name="mlp", hidden=(128, 128)),
        method=method,
        optimizer=OptimizerConfig(
            name="adam", learning_rate=1e-3, weight_decay=1e-4, schedule="cosine"
        ),
        epochs=50,
        batch_size=128,
    )


_UNIFORM = MethodConfig(loss=SquaredError())
_INVERSE_DENSITY = MethodConfig(loss=InverseDensity(power=1.0))
_INVERSE_ROOT = MethodConfig(loss=InverseDensity(power=0.5))
_ABSGD = MethodConfig(loss=SquaredError(), weighting=Absgd(temperature=2.0))
# One huge loss keeps the running mean large, and so all weights small, for many steps.
_ABSGD_BATCH = MethodConfig(
    loss=SquaredError(), weighting=Absgd(temperature=2.0, gamma=1.0)
)
_GRADTAIL = MethodConfig(loss=SquaredError(), weighting=GradTail(z_score=True))

PRESETS: dict[str, Preset] = {
    "evidence-regression-california-uniform": Preset(
        _regression("california", _UNIFORM), "squared error"
    ),
    "evidence-regression-california-inverse-density": Preset(
        _regression("california", _INVERSE_DENSITY), "squared error by inverse density"
    ),
    "evidence-regression-california-inverse-root": Preset(
        _regression("california", _INVERSE_ROOT),
        "squared error by the inverse root of density",
    ),
    "evidence-regression-california-absgd": Preset(
        _regression("california", _ABSGD), "ABSGD, temperature 2"
    ),
    "evidence-regression-california-absgd-batch": Preset(
        _regression("california", _ABSGD_BATCH), "the same, weights within the batch"
    ),
    "evidence-regression-california-gradtail": Preset(
        _regression("california", _GRADTAIL), "GradTail, z-scored similarity"
    ),
    "evidence-regression-abalone-uniform": Preset(
        _regression("abalone", _UNIFORM), "squared error"
    ),
    "evidence-regression-abalone-inverse-density": Preset(
        _regression("abalone", _INVERSE_DENSITY), "squared error by inverse density"
    ),
    "evidence-regression-abalone-inverse-root": Preset(
        _regression("abalone", _INVERSE_ROOT),
        "squared error by the inverse root of density",
    ),
    "evidence-regression-abalone-absgd": Preset(
        _regression("abalone", _ABSGD), "ABSGD, temperature 2"
    ),
    "evidence-regression-abalone-absgd-batch": Preset(
        _regression("abalone", _ABSGD_BATCH), "the same, weights within the batch"
    ),
    "evidence-regression-abalone-gradtail": Preset(
        _regression("abalone", _GRADTAIL), "GradTail, z-scored similarity"
    ),
    "evidence-regression-bike-uniform": Preset(
        _regression("bike", _UNIFORM), "squared error"
    ),
    "evidence-regression-bike-inverse-density": Preset(
        _regression("bike", _INVERSE_DENSITY), "squared error by inverse density"
    ),
    "evidence-regression-bike-inverse-root": Preset(
        _regression("bike", _INVERSE_ROOT),
        "squared error by the inverse root of density",
    ),
    "evidence-regression-bike-absgd": Preset(
        _regression("bike", _ABSGD), "ABSGD, temperature 2"
    ),
    "evidence-regression-bike-absgd-batch": Preset(
        _regression("bike", _ABSGD_BATCH), "the same, weights within the batch"
    ),
    "evidence-regression-bike-gradtail": Preset(
        _regression("bike", _GRADTAIL), "GradTail, z-scored similarity"
    ),
}
