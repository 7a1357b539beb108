"""Settings of a training run."""

import dataclasses
from typing import Literal

from experiments.datasets import DataConfig
from experiments.methods import MethodConfig, OptimizerConfig
from experiments.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run computes. Two runs with equal settings give equal results."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    epochs: int = 200
    batch_size: int = 128
    """Over all devices. An epoch has as many full batches as there are; the order is
    reshuffled every epoch and the last incomplete batch dropped."""
    meta_batch_size: int = 100
    """For methods with a meta set."""
    crop: int = 0
    """Images are padded by this on each side and cropped back at random."""
    crop_padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    """Images are mirrored at random."""
    rotate: float = 0.0
    """Images are turned by up to this many degrees either way."""
    trained: Literal["all", "classifier"] = "all"
    """classifier: all other parameters stay as they are."""
    init_from: str | None = None
    """Parameters to start from: ``best.npz`` or ``last.npz`` of another run."""
    eval_every: int = 1
    """Epochs between evaluations; the last five are always evaluated."""
    seed: int = 0
    """Of initial weights, order and augmentation. The split has ``data.seed``."""
    seeds: int = 1
    """Runs with ``seed``, ``seed + 1``, ... side by side in one program."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "meta_batch_size", "eval_every", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if self.method.needs_meta and self.data.meta_size < self.meta_batch_size:
            raise ValueError(
                "data.meta_size must be at least meta_batch_size="
                f"{self.meta_batch_size} with "
                f"weighting={self.method.weighting.name!r}, "
                f"got {self.data.meta_size}."
            )
