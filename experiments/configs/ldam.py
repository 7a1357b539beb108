"""LDAM with deferred class-balanced weights, DRW (Cao et al., NeurIPS 2019).

ResNet-32 with unit classifier rows and embeddings, 200 epochs, batch 128, SGD at 0.1,
warm-up over 5 epochs, the learning rate times 0.01 at 160 and 180, weight decay 2e-4,
padding by 4 and mirroring; margin 0.5, scale 30, class weights from epoch 160. Their
figures are of the best epoch on the test set and not repeated here.

    python -m experiments.train ldam-drw-cifar10-lt100
"""

from typing import Literal

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import exponential
from experiments.methods import Ldam, MethodConfig, OptimizerConfig
from experiments.models import ModelConfig


def _deferred(
    name: Literal["cifar10", "cifar100"], ratio: int
) -> tuple[TrainConfig, str]:
    config = TrainConfig(
        data=exponential(name, ratio),
        model=ModelConfig(name="resnet32", head="cosine"),
        method=MethodConfig(
            loss=Ldam(max_margin=0.5, scale=30.0, beta=0.9999, start_epoch=160)
        ),
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            weight_decay=2e-4,
            schedule="step",
            milestones=(160, 180),
            factor=0.01,
            warmup_epochs=5,
        ),
        epochs=200,
        batch_size=128,
        crop=4,
        flip=True,
    )
    return config, f"LDAM, class-balanced weights from epoch 160, ratio {ratio}"


PRESETS: dict[str, Preset] = {
    "ldam-drw-cifar10-lt100": Preset(*_deferred("cifar10", 100)),
    "ldam-drw-cifar10-lt50": Preset(*_deferred("cifar10", 50)),
    "ldam-drw-cifar10-lt10": Preset(*_deferred("cifar10", 10)),
    "ldam-drw-cifar100-lt100": Preset(*_deferred("cifar100", 100)),
    "ldam-drw-cifar100-lt50": Preset(*_deferred("cifar100", 50)),
    "ldam-drw-cifar100-lt10": Preset(*_deferred("cifar100", 10)),
}
