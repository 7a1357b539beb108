"""Long tails: CIFAR-10 at ratio 100 and 10, CIFAR-100 at ratio 100.

12 epochs, one to two minutes of one core with plain training. 1,000 validation and
1,000 meta images are held out before the tail is cut, in every run, whether its method
has a use for a meta set or not: all rows of a table have the same training images.
Where only a longer-tailed part of CIFAR-100 is on the machine, the same presets cut
their tail from that. CIFAR-100 has no one-stage weight balancing: its fixed classifier
needs an embedding of at least as many channels as classes, and this network has 32.
"""

from typing import Literal, NamedTuple

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

_LATE = 10  # of 12 epochs: where deferred class weights begin, as 160 of 200


class _Row(NamedTuple):
    """What differs between the rows of a table."""

    about: str
    method: MethodConfig
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    head: Literal["linear", "etf", "cosine"] = "linear"
    epochs: int = 12
    trained: Literal["all", "classifier"] = "all"


def _tail(
    name: Literal["cifar10", "cifar100"], ratio: int, row: _Row
) -> tuple[TrainConfig, str]:
    """A row with the common recipe, and what it is."""
    config = TrainConfig(
        data=DataConfig(
            name=name,
            recipe="exponential",
            factor=1 / ratio,
            val_size=1000,
            meta_size=1000,
        ),
        model=ModelConfig(name="patchify", width=32, head=row.head),
        method=row.method,
        optimizer=OptimizerConfig(
            learning_rate=row.learning_rate,
            nesterov=True,
            weight_decay=row.weight_decay,
            schedule="cosine",
            warmup_epochs=1,
        ),
        epochs=row.epochs,
        batch_size=128,
        meta_batch_size=100,
        crop=4,
        flip=True,
        trained=row.trained,
        eval_every=2,
    )
    return config, row.about


# Methods that differ in the loss or the weighting alone.
_CE = _Row("cross-entropy", MethodConfig())
_CB = _Row(
    "class-balanced weights from the start",
    MethodConfig(loss=ClassBalanced(beta=0.9999)),
)
_BALANCED_SOFTMAX = _Row("balanced softmax", MethodConfig(loss=BalancedSoftmax()))
_LDAM_DRW = _Row(
    "LDAM, class-balanced weights from epoch 10",
    MethodConfig(loss=Ldam(beta=0.9999, start_epoch=_LATE)),
    head="cosine",
)
_LA = _Row(
    "logit-adjusted loss, tau 1; ELM without its embeddings' term",
    MethodConfig(loss=LogitAdjusted(tau=1.0)),
)
_POSTHOC = _Row(
    "cross-entropy, logits adjusted after training, tau 1",
    MethodConfig(post_hoc="additive", post_hoc_tau=1.0),
)
_POSTHOC_SEARCHED = _Row(
    "the same, tau searched on validation", MethodConfig(post_hoc="additive")
)
_ABSGD = _Row(
    "ABSGD from the start, temperature 5; at 2 training diverges",
    MethodConfig(weighting=Absgd(temperature=5.0)),
)
_ABSGD_TWO_STAGE = _Row(
    "ABSGD from epoch 7",
    MethodConfig(weighting=Absgd(temperature=2.0, start_epoch=7)),
)
_ABSGD_LDAM = _Row(
    "LDAM-DRW, ABSGD from epoch 10; its losses go up to 70, hence the temperature",
    MethodConfig(
        loss=Ldam(beta=0.9999, start_epoch=_LATE),
        weighting=Absgd(temperature=50.0, start_epoch=_LATE),
    ),
    head="cosine",
)
_GRADTAIL = _Row(
    "GradTail, gradients of all parameters", MethodConfig(weighting=GradTail())
)
_GRADTAIL_CLASSIFIER = _Row(
    "GradTail, gradients of the classifier",
    MethodConfig(weighting=GradTail(layers="classifier")),
)
_GRADTAIL_WEIGHTED = _Row(
    "GradTail of the classifier, compared with the weighted mean gradient",
    MethodConfig(weighting=GradTail(layers="classifier", reference="weighted")),
)
_GRADTAIL_BUMP = _Row(
    "GradTail of the classifier, bump",
    MethodConfig(weighting=GradTail(layers="classifier", activation="bump")),
)
_GRADTAIL_SHUFFLED = _Row(
    "the weights of GradTail, classifier, given to random examples",
    MethodConfig(weighting=GradTail(layers="classifier", shuffled=True)),
)
_GDW = _Row("GDW", MethodConfig(weighting=Gdw()))
_MWNET = _Row("MW-Net", MethodConfig(weighting=MwNet()))
_CONTRASTIVE = _Row("ELM, contrastive", MethodConfig(loss=Elm(kind="contrastive")))
_SPREAD = _Row("ELM, spread", MethodConfig(loss=Elm(kind="spread")))
_CENTER = _Row("ELM, running class centres", MethodConfig(loss=Elm(kind="center")))

# Weight balancing: in the decay, the head, and what follows training.
_NAIVE = _CE._replace(
    about="weight balancing's baseline: no weight decay", weight_decay=0.0
)
_WD = _CE._replace(about="strong weight decay", weight_decay=5e-3)
_TWO_STAGE = _Row(
    "wb-wd, then the classifier: class-balanced loss, MaxNorm; needs --init-from",
    MethodConfig(loss=ClassBalanced(beta=0.9999), max_norm=0.1),
    learning_rate=0.05,  # which gives the decay the published effect on norms
    weight_decay=0.1,
    epochs=4,
    trained="classifier",
)
_ONE_STAGE = _Row(
    "weight and feature decay, ETF head, multiplicative adjustment",
    MethodConfig(feature_penalty=1e-2, post_hoc="multiplicative"),
    weight_decay=5e-3,
    head="etf",
)
_ADDITIVE = _ONE_STAGE._replace(
    about="the same with additive adjustment",
    method=MethodConfig(feature_penalty=1e-2, post_hoc="additive"),
)

PRESETS: dict[str, Preset] = {
    # CIFAR-10, ratio 100
    "evidence-lt100-cifar10-ce": Preset(*_tail("cifar10", 100, _CE)),
    "evidence-lt100-cifar10-cb": Preset(*_tail("cifar10", 100, _CB)),
    "evidence-lt100-cifar10-balanced-softmax": Preset(
        *_tail("cifar10", 100, _BALANCED_SOFTMAX)
    ),
    "evidence-lt100-cifar10-ldam-drw": Preset(*_tail("cifar10", 100, _LDAM_DRW)),
    "evidence-lt100-cifar10-la": Preset(*_tail("cifar10", 100, _LA)),
    "evidence-lt100-cifar10-posthoc": Preset(*_tail("cifar10", 100, _POSTHOC)),
    "evidence-lt100-cifar10-posthoc-searched": Preset(
        *_tail("cifar10", 100, _POSTHOC_SEARCHED)
    ),
    "evidence-lt100-cifar10-absgd": Preset(*_tail("cifar10", 100, _ABSGD)),
    "evidence-lt100-cifar10-absgd-two-stage": Preset(
        *_tail("cifar10", 100, _ABSGD_TWO_STAGE)
    ),
    "evidence-lt100-cifar10-absgd-ldam": Preset(*_tail("cifar10", 100, _ABSGD_LDAM)),
    "evidence-lt100-cifar10-gradtail": Preset(*_tail("cifar10", 100, _GRADTAIL)),
    "evidence-lt100-cifar10-gradtail-classifier": Preset(
        *_tail("cifar10", 100, _GRADTAIL_CLASSIFIER)
    ),
    "evidence-lt100-cifar10-gradtail-weighted": Preset(
        *_tail("cifar10", 100, _GRADTAIL_WEIGHTED)
    ),
    "evidence-lt100-cifar10-gradtail-bump": Preset(
        *_tail("cifar10", 100, _GRADTAIL_BUMP)
    ),
    "evidence-lt100-cifar10-gradtail-shuffled": Preset(
        *_tail("cifar10", 100, _GRADTAIL_SHUFFLED)
    ),
    "evidence-lt100-cifar10-gdw": Preset(*_tail("cifar10", 100, _GDW)),
    "evidence-lt100-cifar10-mwnet": Preset(*_tail("cifar10", 100, _MWNET)),
    "evidence-lt100-cifar10-elm-contrastive": Preset(
        *_tail("cifar10", 100, _CONTRASTIVE)
    ),
    "evidence-lt100-cifar10-elm-spread": Preset(*_tail("cifar10", 100, _SPREAD)),
    "evidence-lt100-cifar10-elm-center": Preset(*_tail("cifar10", 100, _CENTER)),
    "evidence-lt100-cifar10-wb-naive": Preset(*_tail("cifar10", 100, _NAIVE)),
    "evidence-lt100-cifar10-wb-wd": Preset(*_tail("cifar10", 100, _WD)),
    "evidence-lt100-cifar10-wb-two-stage": Preset(*_tail("cifar10", 100, _TWO_STAGE)),
    "evidence-lt100-cifar10-wb-one-stage": Preset(*_tail("cifar10", 100, _ONE_STAGE)),
    "evidence-lt100-cifar10-wb-one-stage-additive": Preset(
        *_tail("cifar10", 100, _ADDITIVE)
    ),
    # CIFAR-10, ratio 10
    "evidence-lt10-cifar10-ce": Preset(*_tail("cifar10", 10, _CE)),
    "evidence-lt10-cifar10-balanced-softmax": Preset(
        *_tail("cifar10", 10, _BALANCED_SOFTMAX)
    ),
    "evidence-lt10-cifar10-ldam-drw": Preset(*_tail("cifar10", 10, _LDAM_DRW)),
    "evidence-lt10-cifar10-la": Preset(*_tail("cifar10", 10, _LA)),
    "evidence-lt10-cifar10-posthoc": Preset(*_tail("cifar10", 10, _POSTHOC)),
    "evidence-lt10-cifar10-posthoc-searched": Preset(
        *_tail("cifar10", 10, _POSTHOC_SEARCHED)
    ),
    "evidence-lt10-cifar10-absgd": Preset(*_tail("cifar10", 10, _ABSGD)),
    "evidence-lt10-cifar10-absgd-two-stage": Preset(
        *_tail("cifar10", 10, _ABSGD_TWO_STAGE)
    ),
    "evidence-lt10-cifar10-gradtail": Preset(*_tail("cifar10", 10, _GRADTAIL)),
    "evidence-lt10-cifar10-gdw": Preset(*_tail("cifar10", 10, _GDW)),
    "evidence-lt10-cifar10-mwnet": Preset(*_tail("cifar10", 10, _MWNET)),
    "evidence-lt10-cifar10-elm-contrastive": Preset(
        *_tail("cifar10", 10, _CONTRASTIVE)
    ),
    "evidence-lt10-cifar10-wb-wd": Preset(*_tail("cifar10", 10, _WD)),
    "evidence-lt10-cifar10-wb-one-stage": Preset(*_tail("cifar10", 10, _ONE_STAGE)),
    # CIFAR-100, ratio 100
    "evidence-lt100-cifar100-ce": Preset(*_tail("cifar100", 100, _CE)),
    "evidence-lt100-cifar100-cb": Preset(*_tail("cifar100", 100, _CB)),
    "evidence-lt100-cifar100-balanced-softmax": Preset(
        *_tail("cifar100", 100, _BALANCED_SOFTMAX)
    ),
    "evidence-lt100-cifar100-ldam-drw": Preset(*_tail("cifar100", 100, _LDAM_DRW)),
    "evidence-lt100-cifar100-la": Preset(*_tail("cifar100", 100, _LA)),
    "evidence-lt100-cifar100-posthoc": Preset(*_tail("cifar100", 100, _POSTHOC)),
    "evidence-lt100-cifar100-posthoc-searched": Preset(
        *_tail("cifar100", 100, _POSTHOC_SEARCHED)
    ),
    "evidence-lt100-cifar100-absgd": Preset(*_tail("cifar100", 100, _ABSGD)),
    "evidence-lt100-cifar100-absgd-two-stage": Preset(
        *_tail("cifar100", 100, _ABSGD_TWO_STAGE)
    ),
    "evidence-lt100-cifar100-absgd-ldam": Preset(*_tail("cifar100", 100, _ABSGD_LDAM)),
    "evidence-lt100-cifar100-gradtail": Preset(*_tail("cifar100", 100, _GRADTAIL)),
    "evidence-lt100-cifar100-gradtail-classifier": Preset(
        *_tail("cifar100", 100, _GRADTAIL_CLASSIFIER)
    ),
    "evidence-lt100-cifar100-gdw": Preset(*_tail("cifar100", 100, _GDW)),
    "evidence-lt100-cifar100-mwnet": Preset(*_tail("cifar100", 100, _MWNET)),
    "evidence-lt100-cifar100-elm-contrastive": Preset(
        *_tail("cifar100", 100, _CONTRASTIVE)
    ),
    "evidence-lt100-cifar100-elm-spread": Preset(*_tail("cifar100", 100, _SPREAD)),
    "evidence-lt100-cifar100-elm-center": Preset(*_tail("cifar100", 100, _CENTER)),
    "evidence-lt100-cifar100-wb-naive": Preset(*_tail("cifar100", 100, _NAIVE)),
    "evidence-lt100-cifar100-wb-wd": Preset(*_tail("cifar100", 100, _WD)),
    "evidence-lt100-cifar100-wb-two-stage": Preset(*_tail("cifar100", 100, _TWO_STAGE)),
}
