"""Long tails: CIFAR-10 at ratio 100 and 10, CIFAR-100 at ratio 100.

20 epochs, about three minutes with plain training. 1,000 validation and 1,000 meta
images are held out before the tail is cut, in every run, whether its method has a use
for a meta set or not: all rows of a table have the same training images. Where only a
longer-tailed part of CIFAR-100 is on the machine, the same presets cut their tail from
that.
"""

import dataclasses
from typing import Any, Literal

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    BalancedSoftmax,
    ClassBalanced,
    Elm,
    Gdw,
    GradTail,
    Ldam,
    LogitAdjusted,
    MethodConfig,
    MwNet,
    OptimizerConfig,
)
from experiments.models import ModelConfig

_LATE = 16  # of 20 epochs: where deferred class weights begin, as 160 of 200


def _tail(
    name: Literal["cifar10", "cifar100"],
    ratio: int,
    method: MethodConfig,
    *,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    head: Literal["linear", "etf", "cosine"] = "linear",
    **changes: Any,
) -> TrainConfig:
    """The common recipe."""
    recipe = TrainConfig(
        data=DataConfig(
            name=name,
            recipe="exponential",
            factor=1 / ratio,
            val_size=1000,
            meta_size=1000,
        ),
        model=ModelConfig(name="patchify", head=head),
        method=method,
        optimizer=OptimizerConfig(
            learning_rate=learning_rate,
            nesterov=True,
            weight_decay=weight_decay,
            schedule="cosine",
            warmup_epochs=1,
        ),
        epochs=20,
        batch_size=128,
        meta_batch_size=100,
        crop=4,
        flip=True,
    )
    return dataclasses.replace(recipe, **changes)


# Methods that differ in the loss or the weighting alone.
_CE = MethodConfig()
_CB = MethodConfig(loss=ClassBalanced(beta=0.9999))
_BALANCED_SOFTMAX = MethodConfig(loss=BalancedSoftmax())
_LDAM_DRW = MethodConfig(loss=Ldam(beta=0.9999, start_epoch=_LATE))
_LA = MethodConfig(loss=LogitAdjusted(tau=1.0))
_POSTHOC = MethodConfig(post_hoc="additive", post_hoc_tau=1.0)
_POSTHOC_SEARCHED = MethodConfig(post_hoc="additive")
_ABSGD = MethodConfig(weighting=Absgd(temperature=2.0))
_ABSGD_TWO_STAGE = MethodConfig(weighting=Absgd(temperature=2.0, start_epoch=12))
_ABSGD_LDAM = MethodConfig(
    loss=Ldam(beta=0.9999, start_epoch=_LATE),
    weighting=Absgd(temperature=5.0, start_epoch=_LATE),
)
_GRADTAIL = MethodConfig(weighting=GradTail())
_GRADTAIL_CLASSIFIER = MethodConfig(weighting=GradTail(layers="classifier"))
_GDW = MethodConfig(weighting=Gdw())
_MWNET = MethodConfig(weighting=MwNet())
_ELM_CONTRASTIVE = MethodConfig(loss=Elm(kind="contrastive"))
_ELM_SPREAD = MethodConfig(loss=Elm(kind="spread"))
_ELM_CENTER = MethodConfig(loss=Elm(kind="center"))

# Weight balancing: in the decay, the head, and what follows training.
_WD = 5e-3
_TWO_STAGE: dict[str, Any] = dict(
    method=MethodConfig(loss=ClassBalanced(beta=0.9999), max_norm=0.1),
    learning_rate=0.05,  # with the decay, of an effect on norms like the published
    weight_decay=0.1,
    epochs=5,
    trained="classifier",
)
_ONE_STAGE = MethodConfig(feature_penalty=1e-2, post_hoc="multiplicative")
_ONE_STAGE_ADDITIVE = MethodConfig(feature_penalty=1e-2, post_hoc="additive")

PRESETS: dict[str, Preset] = {
    # CIFAR-10, ratio 100
    "evidence-lt100-cifar10-ce": Preset(_tail("cifar10", 100, _CE), "cross-entropy"),
    "evidence-lt100-cifar10-cb": Preset(
        _tail("cifar10", 100, _CB), "class-balanced weights from the start"
    ),
    "evidence-lt100-cifar10-balanced-softmax": Preset(
        _tail("cifar10", 100, _BALANCED_SOFTMAX), "balanced softmax"
    ),
    "evidence-lt100-cifar10-ldam-drw": Preset(
        _tail("cifar10", 100, _LDAM_DRW, head="cosine"),
        "LDAM, class-balanced weights from epoch 16",
    ),
    "evidence-lt100-cifar10-la": Preset(
        _tail("cifar10", 100, _LA),
        "logit-adjusted loss, tau 1; ELM without its embeddings' term",
    ),
    "evidence-lt100-cifar10-posthoc": Preset(
        _tail("cifar10", 100, _POSTHOC),
        "cross-entropy, logits adjusted after training, tau 1",
    ),
    "evidence-lt100-cifar10-posthoc-searched": Preset(
        _tail("cifar10", 100, _POSTHOC_SEARCHED), "the same, tau searched on validation"
    ),
    "evidence-lt100-cifar10-absgd": Preset(
        _tail("cifar10", 100, _ABSGD), "ABSGD from the start, temperature 2"
    ),
    "evidence-lt100-cifar10-absgd-two-stage": Preset(
        _tail("cifar10", 100, _ABSGD_TWO_STAGE), "ABSGD from epoch 12"
    ),
    "evidence-lt100-cifar10-absgd-ldam": Preset(
        _tail("cifar10", 100, _ABSGD_LDAM, head="cosine"),
        "LDAM-DRW, ABSGD from epoch 16",
    ),
    "evidence-lt100-cifar10-gradtail": Preset(
        _tail("cifar10", 100, _GRADTAIL), "GradTail, gradients of all parameters"
    ),
    "evidence-lt100-cifar10-gradtail-classifier": Preset(
        _tail("cifar10", 100, _GRADTAIL_CLASSIFIER),
        "GradTail, gradients of the classifier",
    ),
    "evidence-lt100-cifar10-gdw": Preset(_tail("cifar10", 100, _GDW), "GDW"),
    "evidence-lt100-cifar10-mwnet": Preset(_tail("cifar10", 100, _MWNET), "MW-Net"),
    "evidence-lt100-cifar10-elm-contrastive": Preset(
        _tail("cifar10", 100, _ELM_CONTRASTIVE), "ELM, contrastive"
    ),
    "evidence-lt100-cifar10-elm-spread": Preset(
        _tail("cifar10", 100, _ELM_SPREAD), "ELM, spread"
    ),
    "evidence-lt100-cifar10-elm-center": Preset(
        _tail("cifar10", 100, _ELM_CENTER), "ELM, running class centres"
    ),
    "evidence-lt100-cifar10-wb-naive": Preset(
        _tail("cifar10", 100, _CE, weight_decay=0.0),
        "weight balancing's baseline: no weight decay",
    ),
    "evidence-lt100-cifar10-wb-wd": Preset(
        _tail("cifar10", 100, _CE, weight_decay=_WD), "strong weight decay"
    ),
    "evidence-lt100-cifar10-wb-two-stage": Preset(
        _tail("cifar10", 100, **_TWO_STAGE),
        "wb-wd, then the classifier: class-balanced loss, MaxNorm; needs --init-from",
    ),
    "evidence-lt100-cifar10-wb-one-stage": Preset(
        _tail("cifar10", 100, _ONE_STAGE, weight_decay=_WD, head="etf"),
        "weight and feature decay, ETF head, multiplicative adjustment",
    ),
    "evidence-lt100-cifar10-wb-one-stage-additive": Preset(
        _tail("cifar10", 100, _ONE_STAGE_ADDITIVE, weight_decay=_WD, head="etf"),
        "the same with additive adjustment",
    ),
    # CIFAR-10, ratio 10
    "evidence-lt10-cifar10-ce": Preset(_tail("cifar10", 10, _CE), "cross-entropy"),
    "evidence-lt10-cifar10-balanced-softmax": Preset(
        _tail("cifar10", 10, _BALANCED_SOFTMAX), "balanced softmax"
    ),
    "evidence-lt10-cifar10-ldam-drw": Preset(
        _tail("cifar10", 10, _LDAM_DRW, head="cosine"),
        "LDAM, class-balanced weights from epoch 16",
    ),
    "evidence-lt10-cifar10-la": Preset(
        _tail("cifar10", 10, _LA),
        "logit-adjusted loss, tau 1; ELM without its embeddings' term",
    ),
    "evidence-lt10-cifar10-posthoc": Preset(
        _tail("cifar10", 10, _POSTHOC),
        "cross-entropy, logits adjusted after training, tau 1",
    ),
    "evidence-lt10-cifar10-posthoc-searched": Preset(
        _tail("cifar10", 10, _POSTHOC_SEARCHED), "the same, tau searched on validation"
    ),
    "evidence-lt10-cifar10-absgd": Preset(
        _tail("cifar10", 10, _ABSGD), "ABSGD from the start, temperature 2"
    ),
    "evidence-lt10-cifar10-absgd-two-stage": Preset(
        _tail("cifar10", 10, _ABSGD_TWO_STAGE), "ABSGD from epoch 12"
    ),
    "evidence-lt10-cifar10-gradtail": Preset(
        _tail("cifar10", 10, _GRADTAIL), "GradTail, gradients of all parameters"
    ),
    "evidence-lt10-cifar10-gdw": Preset(_tail("cifar10", 10, _GDW), "GDW"),
    "evidence-lt10-cifar10-mwnet": Preset(_tail("cifar10", 10, _MWNET), "MW-Net"),
    "evidence-lt10-cifar10-elm-contrastive": Preset(
        _tail("cifar10", 10, _ELM_CONTRASTIVE), "ELM, contrastive"
    ),
    "evidence-lt10-cifar10-wb-wd": Preset(
        _tail("cifar10", 10, _CE, weight_decay=_WD), "strong weight decay"
    ),
    "evidence-lt10-cifar10-wb-one-stage": Preset(
        _tail("cifar10", 10, _ONE_STAGE, weight_decay=_WD, head="etf"),
        "weight and feature decay, ETF head, multiplicative adjustment",
    ),
    # CIFAR-100, ratio 100
    "evidence-lt100-cifar100-ce": Preset(_tail("cifar100", 100, _CE), "cross-entropy"),
    "evidence-lt100-cifar100-cb": Preset(
        _tail("cifar100", 100, _CB), "class-balanced weights from the start"
    ),
    "evidence-lt100-cifar100-balanced-softmax": Preset(
        _tail("cifar100", 100, _BALANCED_SOFTMAX), "balanced softmax"
    ),
    "evidence-lt100-cifar100-ldam-drw": Preset(
        _tail("cifar100", 100, _LDAM_DRW, head="cosine"),
        "LDAM, class-balanced weights from epoch 16",
    ),
    "evidence-lt100-cifar100-la": Preset(
        _tail("cifar100", 100, _LA),
        "logit-adjusted loss, tau 1; ELM without its embeddings' term",
    ),
    "evidence-lt100-cifar100-posthoc": Preset(
        _tail("cifar100", 100, _POSTHOC),
        "cross-entropy, logits adjusted after training, tau 1",
    ),
    "evidence-lt100-cifar100-posthoc-searched": Preset(
        _tail("cifar100", 100, _POSTHOC_SEARCHED),
        "the same, tau searched on validation",
    ),
    "evidence-lt100-cifar100-absgd": Preset(
        _tail("cifar100", 100, _ABSGD), "ABSGD from the start, temperature 2"
    ),
    "evidence-lt100-cifar100-absgd-two-stage": Preset(
        _tail("cifar100", 100, _ABSGD_TWO_STAGE), "ABSGD from epoch 12"
    ),
    "evidence-lt100-cifar100-absgd-ldam": Preset(
        _tail("cifar100", 100, _ABSGD_LDAM, head="cosine"),
        "LDAM-DRW, ABSGD from epoch 16",
    ),
    "evidence-lt100-cifar100-gradtail": Preset(
        _tail("cifar100", 100, _GRADTAIL), "GradTail, gradients of all parameters"
    ),
    "evidence-lt100-cifar100-gradtail-classifier": Preset(
        _tail("cifar100", 100, _GRADTAIL_CLASSIFIER),
        "GradTail, gradients of the classifier",
    ),
    "evidence-lt100-cifar100-gdw": Preset(_tail("cifar100", 100, _GDW), "GDW"),
    "evidence-lt100-cifar100-mwnet": Preset(_tail("cifar100", 100, _MWNET), "MW-Net"),
    "evidence-lt100-cifar100-elm-contrastive": Preset(
        _tail("cifar100", 100, _ELM_CONTRASTIVE), "ELM, contrastive"
    ),
    "evidence-lt100-cifar100-elm-spread": Preset(
        _tail("cifar100", 100, _ELM_SPREAD), "ELM, spread"
    ),
    "evidence-lt100-cifar100-elm-center": Preset(
        _tail("cifar100", 100, _ELM_CENTER), "ELM, running class centres"
    ),
    "evidence-lt100-cifar100-wb-naive": Preset(
        _tail("cifar100", 100, _CE, weight_decay=0.0),
        "weight balancing's baseline: no weight decay",
    ),
    "evidence-lt100-cifar100-wb-wd": Preset(
        _tail("cifar100", 100, _CE, weight_decay=_WD), "strong weight decay"
    ),
    "evidence-lt100-cifar100-wb-two-stage": Preset(
        _tail("cifar100", 100, **_TWO_STAGE),
        "wb-wd, then the classifier: class-balanced loss, MaxNorm; needs --init-from",
    ),
    "evidence-lt100-cifar100-wb-one-stage": Preset(
        _tail("cifar100", 100, _ONE_STAGE, weight_decay=_WD, head="etf"),
        "weight and feature decay, ETF head, multiplicative adjustment",
    ),
    "evidence-lt100-cifar100-wb-one-stage-additive": Preset(
        _tail("cifar100", 100, _ONE_STAGE_ADDITIVE, weight_decay=_WD, head="etf"),
        "the same with additive adjustment",
    ),
}
