"""Wrong labels: CIFAR-10, 10,000 training images or a long tail, 12 epochs.

The 12 epochs end before wrong labels are learned by heart. "Memory" is 30 epochs
without augmentation, in which plain training fits nearly all of them.

Uniform noise redraws a label from all classes, its own among them, so 40% changes 36%.
Validation and test labels are clean. Every run holds out the same 1,000 clean images;
"clean" trains on them as well: the baseline of methods with a meta set.
"""

import dataclasses

from experiments.configs.presets import Preset
from experiments.configs.settings import TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import (
    Absgd,
    Gdw,
    GeneralizedCrossEntropy,
    GradTail,
    L2rw,
    LogitAdjusted,
    MethodConfig,
    MwNet,
    OptimizerConfig,
    SymmetricCrossEntropy,
)
from experiments.models import ModelConfig

_CIFAR10 = DataConfig(name="cifar10", train_size=10_000, val_size=1000, meta_size=1000)
_UNIF40 = dataclasses.replace(_CIFAR10, noise="uniform", noise_rate=0.4)
_UNIF60 = dataclasses.replace(_CIFAR10, noise="uniform", noise_rate=0.6)
_ASYM40 = dataclasses.replace(_CIFAR10, noise="asymmetric", noise_rate=0.4)
# Of ratio 100 before the noise: 11,909 images. Noise redraws labels from all classes
# alike, so the noisy labels have a ratio of about 7, and few of the rarest class's are
# right.
_TAIL40 = dataclasses.replace(
    _UNIF40, train_size=None, recipe="exponential", factor=0.01
)
_HUMAN = dataclasses.replace(_CIFAR10, noise="human_worse")


def _noisy(
    data: DataConfig,
    method: tuple[MethodConfig, str],
    *,
    clean: bool = False,
    memory: bool = False,
) -> tuple[TrainConfig, str]:
    """The common recipe and what a run is.

    ``clean`` trains on clean images as well, ``memory`` until labels are memorised.
    """
    config = TrainConfig(
        data=dataclasses.replace(data, train_on_meta=clean),
        model=ModelConfig(name="patchify", width=32),
        method=method[0],
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            nesterov=True,
            weight_decay=5e-4,
            schedule="cosine",
            warmup_epochs=1,
        ),
        epochs=30 if memory else 12,
        batch_size=128,
        meta_batch_size=100,
        crop=0 if memory else 4,
        flip=not memory,
        eval_every=2,
    )
    return config, method[1]


_CE = MethodConfig(), "cross-entropy"
_CE_CLEAN = MethodConfig(), "cross-entropy on noisy and clean images"
_GCE = (
    MethodConfig(loss=GeneralizedCrossEntropy(q=0.7)),
    "generalised cross-entropy, q 0.7",
)
_SCE = (
    MethodConfig(loss=SymmetricCrossEntropy(alpha=0.1, beta=1.0)),
    "symmetric cross-entropy",
)
_ABSGD = (
    MethodConfig(weighting=Absgd(temperature=-1.0, start_epoch=4)),
    "ABSGD from epoch 4, temperature -1",
)
_ABSGD_LATE = (
    MethodConfig(weighting=Absgd(temperature=-1.0, start_epoch=10)),
    "ABSGD from epoch 10, temperature -1",
)
_ABSGD_SCE = (
    MethodConfig(
        loss=SymmetricCrossEntropy(alpha=0.1, beta=1.0),
        weighting=Absgd(temperature=-0.5, alpha=0.5, erm_weight=1.0, start_epoch=8),
    ),
    "symmetric cross-entropy, ABSGD from epoch 8, temperature -0.5",
)
_GRADTAIL = (
    MethodConfig(weighting=GradTail(layers="classifier")),
    "GradTail, gradients of the classifier",
)
_LA = (
    MethodConfig(loss=LogitAdjusted(tau=1.0)),
    "logit-adjusted loss, tau 1, of the counts of the noisy labels",
)
_L2RW = MethodConfig(weighting=L2rw()), "L2RW"
_MWNET = MethodConfig(weighting=MwNet()), "MW-Net"
_GDW = MethodConfig(weighting=Gdw()), "GDW"

PRESETS: dict[str, Preset] = {
    # 40% uniform
    "evidence-noise-unif40-ce": Preset(*_noisy(_UNIF40, _CE)),
    "evidence-noise-unif40-ce-clean": Preset(*_noisy(_UNIF40, _CE_CLEAN, clean=True)),
    "evidence-noise-unif40-gce": Preset(*_noisy(_UNIF40, _GCE)),
    "evidence-noise-unif40-sce": Preset(*_noisy(_UNIF40, _SCE)),
    "evidence-noise-unif40-absgd": Preset(*_noisy(_UNIF40, _ABSGD)),
    "evidence-noise-unif40-absgd-sce": Preset(*_noisy(_UNIF40, _ABSGD_SCE)),
    "evidence-noise-unif40-gradtail-classifier": Preset(*_noisy(_UNIF40, _GRADTAIL)),
    "evidence-noise-unif40-l2rw": Preset(*_noisy(_UNIF40, _L2RW)),
    "evidence-noise-unif40-mwnet": Preset(*_noisy(_UNIF40, _MWNET)),
    "evidence-noise-unif40-gdw": Preset(*_noisy(_UNIF40, _GDW)),
    # 60% uniform
    "evidence-noise-unif60-ce": Preset(*_noisy(_UNIF60, _CE)),
    "evidence-noise-unif60-ce-clean": Preset(*_noisy(_UNIF60, _CE_CLEAN, clean=True)),
    "evidence-noise-unif60-gce": Preset(*_noisy(_UNIF60, _GCE)),
    "evidence-noise-unif60-sce": Preset(*_noisy(_UNIF60, _SCE)),
    "evidence-noise-unif60-absgd": Preset(*_noisy(_UNIF60, _ABSGD)),
    "evidence-noise-unif60-absgd-sce": Preset(*_noisy(_UNIF60, _ABSGD_SCE)),
    "evidence-noise-unif60-l2rw": Preset(*_noisy(_UNIF60, _L2RW)),
    "evidence-noise-unif60-mwnet": Preset(*_noisy(_UNIF60, _MWNET)),
    "evidence-noise-unif60-gdw": Preset(*_noisy(_UNIF60, _GDW)),
    # 40% asymmetric
    "evidence-noise-asym40-ce": Preset(*_noisy(_ASYM40, _CE)),
    "evidence-noise-asym40-ce-clean": Preset(*_noisy(_ASYM40, _CE_CLEAN, clean=True)),
    "evidence-noise-asym40-gce": Preset(*_noisy(_ASYM40, _GCE)),
    "evidence-noise-asym40-sce": Preset(*_noisy(_ASYM40, _SCE)),
    "evidence-noise-asym40-absgd": Preset(*_noisy(_ASYM40, _ABSGD)),
    "evidence-noise-asym40-absgd-sce": Preset(*_noisy(_ASYM40, _ABSGD_SCE)),
    "evidence-noise-asym40-l2rw": Preset(*_noisy(_ASYM40, _L2RW)),
    "evidence-noise-asym40-mwnet": Preset(*_noisy(_ASYM40, _MWNET)),
    "evidence-noise-asym40-gdw": Preset(*_noisy(_ASYM40, _GDW)),
    # 40% uniform, until labels are memorised
    "evidence-noise-memory40-ce": Preset(*_noisy(_UNIF40, _CE, memory=True)),
    "evidence-noise-memory40-ce-clean": Preset(
        *_noisy(_UNIF40, _CE_CLEAN, clean=True, memory=True)
    ),
    "evidence-noise-memory40-gce": Preset(*_noisy(_UNIF40, _GCE, memory=True)),
    "evidence-noise-memory40-sce": Preset(*_noisy(_UNIF40, _SCE, memory=True)),
    "evidence-noise-memory40-absgd": Preset(*_noisy(_UNIF40, _ABSGD_LATE, memory=True)),
    "evidence-noise-memory40-mwnet": Preset(*_noisy(_UNIF40, _MWNET, memory=True)),
    "evidence-noise-memory40-gdw": Preset(*_noisy(_UNIF40, _GDW, memory=True)),
    # labels by people, the worst of three
    "evidence-noise-human-ce": Preset(*_noisy(_HUMAN, _CE)),
    "evidence-noise-human-ce-clean": Preset(*_noisy(_HUMAN, _CE_CLEAN, clean=True)),
    "evidence-noise-human-gce": Preset(*_noisy(_HUMAN, _GCE)),
    "evidence-noise-human-sce": Preset(*_noisy(_HUMAN, _SCE)),
    "evidence-noise-human-absgd": Preset(*_noisy(_HUMAN, _ABSGD)),
    "evidence-noise-human-absgd-sce": Preset(*_noisy(_HUMAN, _ABSGD_SCE)),
    "evidence-noise-human-gradtail-classifier": Preset(*_noisy(_HUMAN, _GRADTAIL)),
    "evidence-noise-human-l2rw": Preset(*_noisy(_HUMAN, _L2RW)),
    "evidence-noise-human-mwnet": Preset(*_noisy(_HUMAN, _MWNET)),
    "evidence-noise-human-gdw": Preset(*_noisy(_HUMAN, _GDW)),
    # 40% uniform, in a long tail of ratio 100
    "evidence-noise-tail40-ce": Preset(*_noisy(_TAIL40, _CE)),
    "evidence-noise-tail40-ce-clean": Preset(*_noisy(_TAIL40, _CE_CLEAN, clean=True)),
    "evidence-noise-tail40-la": Preset(*_noisy(_TAIL40, _LA)),
    "evidence-noise-tail40-gce": Preset(*_noisy(_TAIL40, _GCE)),
    "evidence-noise-tail40-absgd": Preset(*_noisy(_TAIL40, _ABSGD)),
    "evidence-noise-tail40-gradtail-classifier": Preset(*_noisy(_TAIL40, _GRADTAIL)),
    "evidence-noise-tail40-mwnet": Preset(*_noisy(_TAIL40, _MWNET)),
    "evidence-noise-tail40-gdw": Preset(*_noisy(_TAIL40, _GDW)),
}
