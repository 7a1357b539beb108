"""Logit adjustment and balanced softmax (Menon et al., ICLR 2021; Ren et al., 2020).

``-long`` presets have the published recipe: 1,241 epochs on CIFAR-10 and 1,419 on
CIFAR-100, linear warm-up over 20 and 22, the learning rate times 0.1 at 604, 926, 1,128
and 691, 1,059, 1,290, SGD at 0.1 with Nesterov momentum, batch 128, padding by 2 and
mirroring, post-hoc tau 1, the last epoch. The others have 200 epochs of our own
schedule (`experiments.configs.tails`) and no published number.

Differences of the long ones: ResNet-32 stands in for a network of 1x1-3x3-1x1 blocks,
16 to 64 wide, whose depth is not known here; the dense bias does not decay, theirs
does; 1,000 images are for validation (``--data.val-size 0`` gives their counts).

    python -m experiments.train la-cifar10-lt100
"""

import functools
from typing import Literal

from experiments.configs.presets import Preset, Published
from experiments.configs.settings import TrainConfig
from experiments.configs.tails import exponential, long_tailed
from experiments.methods import (
    BalancedSoftmax,
    LogitAdjusted,
    MethodConfig,
    OptimizerConfig,
)
from experiments.models import ModelConfig

_BLOCKS = "residual net of 1x1-3x3-1x1 blocks"
_SOURCE = "arXiv 2007.07314"


def _long(
    name: Literal["cifar10", "cifar100"],
    method: tuple[MethodConfig, str],
    *,
    epochs: int,
    warmup_epochs: int,
    milestones: tuple[int, ...],
) -> tuple[TrainConfig, str]:
    """The published recipe, and what the method is."""
    config = TrainConfig(
        data=exponential(name, 100),
        model=ModelConfig(name="resnet32"),
        method=method[0],
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            nesterov=True,
            weight_decay=2e-4,
            decayed="kernels",
            schedule="step",
            milestones=milestones,
            factor=0.1,
            warmup_epochs=warmup_epochs,
        ),
        epochs=epochs,
        batch_size=128,
        crop=2,
        flip=True,
        eval_every=10,
    )
    return config, f"{method[1]}, published schedule"


_long_cifar10 = functools.partial(
    _long, "cifar10", epochs=1241, warmup_epochs=20, milestones=(604, 926, 1128)
)
_long_cifar100 = functools.partial(
    _long, "cifar100", epochs=1419, warmup_epochs=22, milestones=(691, 1059, 1290)
)


_ADJUSTED = "logits adjusted after training"
_ERM = MethodConfig(), "plain training"
_POSTHOC = MethodConfig(post_hoc="additive", post_hoc_tau=1.0), f"{_ADJUSTED}, tau 1"
_SEARCHED = (
    MethodConfig(post_hoc="additive"),
    f"{_ADJUSTED}, tau searched on validation",
)
_SEARCHED_LONG = _SEARCHED[0], f"{_ADJUSTED}, tau searched"
_LA = MethodConfig(loss=LogitAdjusted(tau=1.0)), "logit-adjusted loss, tau 1"
_BALANCED = MethodConfig(loss=BalancedSoftmax()), "balanced softmax"

PRESETS: dict[str, Preset] = {
    "erm-cifar10-lt100-long": Preset(
        *_long_cifar10(_ERM),
        Published(71.36, _BLOCKS, "last", _SOURCE),
    ),
    "posthoc-cifar10-lt100-long": Preset(
        *_long_cifar10(_POSTHOC),
        Published(77.32, _BLOCKS, "last", _SOURCE),
    ),
    "posthoc-searched-cifar10-lt100-long": Preset(*_long_cifar10(_SEARCHED_LONG)),
    "la-cifar10-lt100-long": Preset(
        *_long_cifar10(_LA),
        Published(77.89, _BLOCKS, "last", _SOURCE),
    ),
    "erm-cifar100-lt100-long": Preset(
        *_long_cifar100(_ERM),
        Published(39.87, _BLOCKS, "last", _SOURCE),
    ),
    "posthoc-cifar100-lt100-long": Preset(
        *_long_cifar100(_POSTHOC),
        Published(44.07, _BLOCKS, "last", _SOURCE),
    ),
    "posthoc-searched-cifar100-lt100-long": Preset(*_long_cifar100(_SEARCHED_LONG)),
    "la-cifar100-lt100-long": Preset(
        *_long_cifar100(_LA),
        Published(44.06, _BLOCKS, "last", _SOURCE),
    ),
    "erm-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _ERM)),
    "posthoc-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _SEARCHED)),
    "posthoc-tau1-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _POSTHOC)),
    "la-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _LA)),
    "balanced-softmax-cifar10-lt100": Preset(*long_tailed("cifar10", 100, _BALANCED)),
    "erm-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _ERM)),
    "posthoc-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _SEARCHED)),
    "la-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _LA)),
    "balanced-softmax-cifar10-lt50": Preset(*long_tailed("cifar10", 50, _BALANCED)),
    "erm-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _ERM)),
    "posthoc-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _SEARCHED)),
    "la-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _LA)),
    "balanced-softmax-cifar10-lt10": Preset(*long_tailed("cifar10", 10, _BALANCED)),
    "erm-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _ERM)),
    "posthoc-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _SEARCHED)),
    "posthoc-tau1-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _POSTHOC)),
    "la-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _LA)),
    "balanced-softmax-cifar100-lt100": Preset(*long_tailed("cifar100", 100, _BALANCED)),
    "erm-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _ERM)),
    "posthoc-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _SEARCHED)),
    "la-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _LA)),
    "balanced-softmax-cifar100-lt50": Preset(*long_tailed("cifar100", 50, _BALANCED)),
    "erm-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _ERM)),
    "posthoc-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _SEARCHED)),
    "la-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _LA)),
    "balanced-softmax-cifar100-lt10": Preset(*long_tailed("cifar100", 10, _BALANCED)),
}
