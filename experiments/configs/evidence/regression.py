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
    name: Literal["california", "abalone", "bike"], method: tuple[MethodConfig, str]
) -> tuple[TrainConfig, str]:
    """The common recipe, and what a run is."""
    config = TrainConfig(
        data=DataConfig(name=name),
        model=ModelConfig(name="mlp", hidden=(128, 128)),
        method=method[0],
        optimizer=OptimizerConfig(
            name="adam", learning_rate=1e-3, weight_decay=1e-4, schedule="cosine"
        ),
        epochs=50,
        batch_size=128,
    )
    return config, method[1]


_UNIFORM = MethodConfig(loss=SquaredError()), "squared error"
_INVERSE_DENSITY = (
    MethodConfig(loss=InverseDensity(power=1.0)),
    "squared error by inverse density",
)
_INVERSE_ROOT = (
    MethodConfig(loss=InverseDensity(power=0.5)),
    "squared error by the inverse root of density",
)
_ABSGD = (
    MethodConfig(loss=SquaredError(), weighting=Absgd(temperature=2.0)),
    "ABSGD, temperature 2",
)
# One huge loss keeps the running mean large, and so all weights small, for many steps.
_ABSGD_BATCH = (
    MethodConfig(loss=SquaredError(), weighting=Absgd(temperature=2.0, gamma=1.0)),
    "the same, weights within the batch",
)
_GRADTAIL = (
    MethodConfig(loss=SquaredError(), weighting=GradTail(z_score=True)),
    "GradTail, z-scored similarity",
)

PRESETS: dict[str, Preset] = {
    "evidence-regression-california-uniform": Preset(
        *_regression("california", _UNIFORM)
    ),
    "evidence-regression-california-inverse-density": Preset(
        *_regression("california", _INVERSE_DENSITY)
    ),
    "evidence-regression-california-inverse-root": Preset(
        *_regression("california", _INVERSE_ROOT)
    ),
    "evidence-regression-california-absgd": Preset(*_regression("california", _ABSGD)),
    "evidence-regression-california-absgd-batch": Preset(
        *_regression("california", _ABSGD_BATCH)
    ),
    "evidence-regression-california-gradtail": Preset(
        *_regression("california", _GRADTAIL)
    ),
    "evidence-regression-abalone-uniform": Preset(*_regression("abalone", _UNIFORM)),
    "evidence-regression-abalone-inverse-density": Preset(
        *_regression("abalone", _INVERSE_DENSITY)
    ),
    "evidence-regression-abalone-inverse-root": Preset(
        *_regression("abalone", _INVERSE_ROOT)
    ),
    "evidence-regression-abalone-absgd": Preset(*_regression("abalone", _ABSGD)),
    "evidence-regression-abalone-absgd-batch": Preset(
        *_regression("abalone", _ABSGD_BATCH)
    ),
    "evidence-regression-abalone-gradtail": Preset(*_regression("abalone", _GRADTAIL)),
    "evidence-regression-bike-uniform": Preset(*_regression("bike", _UNIFORM)),
    "evidence-regression-bike-inverse-density": Preset(
        *_regression("bike", _INVERSE_DENSITY)
    ),
    "evidence-regression-bike-inverse-root": Preset(
        *_regression("bike", _INVERSE_ROOT)
    ),
    "evidence-regression-bike-absgd": Preset(*_regression("bike", _ABSGD)),
    "evidence-regression-bike-absgd-batch": Preset(*_regression("bike", _ABSGD_BATCH)),
    "evidence-regression-bike-gradtail": Preset(*_regression("bike", _GRADTAIL)),
}
