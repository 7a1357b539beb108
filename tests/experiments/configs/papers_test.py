"""What the presets of each paper have of its settings, and how they are written."""

import dataclasses
import re
from pathlib import Path

import pytest

from experiments import configs
from experiments.configs import PRESETS
from experiments.methods import (
    ClassBalanced,
    CrossEntropy,
    Elm,
    Ldam,
    LogitAdjusted,
    MethodConfig,
    SymmetricCrossEntropy,
)

FULL = {name: p for name, p in PRESETS.items() if not name.endswith("-small")}
SOURCES = Path(configs.__file__).parent

# Names that were there before and must stay.
EARLIER = [
    "smoke",
    "absgd-clothing1m",
    "absgd-cifar100-step100",
    "absgd-cifar10-lt10",
    "absgd-cifar10-lt10-resnet18",
    "absgd-cifar10-lt100-resnet18",
    "ce-cifar10-lt10-resnet18",
    "ce-cifar10-lt100-resnet18",
    "ce-cifar10-unif40",
    "ce-cifar10-unif60",
    "l2rw-cifar10-unif40",
    "l2rw-cifar10-unif60",
    "mwnet-cifar10-unif40",
    "mwnet-cifar10-unif60",
    "gdw-cifar10-unif40",
    "gdw-cifar10-unif60",
    "ce-cifar10-sym20",
    "ce-cifar10-sym40",
    "sce-cifar10-sym20",
    "sce-cifar10-sym40",
    "absgd-cifar10-sym20",
    "absgd-cifar10-sym40",
    "ce-cifar100-sym20",
    "ce-cifar100-sym40",
    "ce-normalized-cifar100-sym20",
    "ce-normalized-cifar100-sym40",
    "absgd-cifar100-sym20",
    "absgd-cifar100-sym40",
    "wb-naive-cifar10-lt100",
    "wb-wd-cifar10-lt100",
    "wb-two-stage-cifar10-lt100",
    "wb-one-stage-cifar10-lt100",
    "wb-naive-cifar100-lt100",
    "wb-wd-cifar100-lt100",
    "wb-two-stage-cifar100-lt100",
    "wb-one-stage-cifar100-lt100",
    "erm-cifar10-lt100",
    "posthoc-cifar10-lt100",
    "la-cifar10-lt100",
    "elm-cifar10-lt100",
    "erm-cifar100-lt100",
    "posthoc-cifar100-lt100",
    "la-cifar100-lt100",
    "elm-cifar100-lt100",
    "gradtail-cifar10-lt100",
    "gradtail-cifar100-lt100",
    "mse-california",
    "mse-abalone",
    "mse-bike",
    "gradtail-california",
    "gradtail-abalone",
    "gradtail-bike",
]
ALONE = ("smoke", "absgd-clothing1m", "mse-", "california", "abalone", "bike")


def config(name):
    return PRESETS[name].config


def test_earlier_names_stay():
    assert set(EARLIER) <= set(PRESETS)
    twins = {name for name in EARLIER if not any(word in name for word in ALONE)}
    assert {f"{name}-small" for name in twins} <= set(PRESETS)


def test_names_are_literals_beside_their_presets():
    text = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    written = re.findall(r'^    "([\w-]+)": Preset\(', text, re.MULTILINE)
    assert sorted(written) == sorted(FULL)


def test_published_figures_say_which_epoch_they_are_of():
    figures = {n: p.published for n, p in PRESETS.items() if p.published is not None}
    assert len(figures) == 21
    on_test = {n for n, f in figures.items() if f.chosen == "best on test"}
    assert on_test == {
        *("ce-cifar10-lt100-resnet18", "absgd-cifar10-lt100-resnet18"),
        *(
            f"{kind}-cifar100-sym{rate}"
            for kind in ("ce", "ce-normalized", "absgd")
            for rate in (20, 40)
        ),
    }
    assert not any(name.endswith("-small") for name in figures)
    assert figures["la-cifar100-lt100-long"].accuracy == 44.06
    assert figures["gdw-cifar10-unif40"].accuracy == 87.97


def test_tutorial_rows_weight_plain_cross_entropy():
    for ratio in (10, 100):
        plain = config(f"ce-cifar10-lt{ratio}-resnet18")
        weighted = config(f"absgd-cifar10-lt{ratio}-resnet18")
        assert weighted.method.loss == CrossEntropy()
        assert dataclasses.replace(weighted, method=plain.method) == plain
        assert plain.model.dropout == 0
    assert config("ce-cifar10-lt10-resnet18").optimizer.milestones == (160, 230)
    assert config("ce-cifar10-lt10-resnet18").optimizer.factor == 0.05
    assert config("ce-cifar10-lt100-resnet18").optimizer.milestones == (60,)
    assert config("ce-cifar10-lt100-resnet18").optimizer.factor == 0.01


def test_absgd_tails():
    cifar10, cifar100 = config("absgd-cifar10-lt10"), config("absgd-cifar100-step100")
    assert cifar10.model.dropout == 0.2
    assert cifar100.model.dropout == 0
    for run in (cifar10, cifar100):
        assert run.optimizer.warmup_epochs == 5
        assert run.optimizer.milestones == (160,)
        assert run.optimizer.factor == 0.01
        assert run.method.loss == ClassBalanced(start_epoch=160)


@pytest.mark.parametrize("noise", ["sym20", "sym40", "asym20", "asym40"])
def test_absgd_noise_on_cifar10(noise):
    plain = config(f"ce-cifar10-{noise}")
    assert plain.data.noise == ("asymmetric" if "asym" in noise else "uniform_other")
    assert plain.data.noise_rate == float(noise[-2:]) / 100
    assert plain.optimizer.clip_norm == 5
    assert plain.optimizer.milestones == (40, 80)
    sce, absgd = config(f"sce-cifar10-{noise}"), config(f"absgd-cifar10-{noise}")
    assert sce.method.loss == SymmetricCrossEntropy(alpha=0.2, beta=2.0)
    assert absgd.method.loss == SymmetricCrossEntropy(alpha=0.1, beta=2.0)
    for run in (sce, absgd):
        assert dataclasses.replace(run, method=plain.method) == plain


def test_absgd_noise_on_cifar100():
    normalized = config("ce-normalized-cifar100-sym40")
    assert normalized.rotate == 20
    assert normalized.model.normalize_logits == 1
    assert normalized.optimizer.weight_decay == 1e-2
    absgd = config("absgd-cifar100-sym40")
    assert absgd.method.loss == SymmetricCrossEntropy(alpha=2.0, beta=0.0)
    assert dataclasses.replace(absgd, method=normalized.method) == normalized
    assert config("ce-cifar100-sym40").model.normalize_logits is None
    assert config("truncated-gce-cifar100-sym20").method.loss.start_epoch == 80


def test_clothing1m():
    run = config("absgd-clothing1m")
    assert run.optimizer.clip_norm == 5
    assert run.optimizer.milestones == (5,)
    assert run.data.stream_crop == "place"
    assert run.method.loss.alpha == 0.1


@pytest.mark.parametrize(
    ("name", "warmup", "milestones"),
    [("cifar10", 20, (604, 926, 1128)), ("cifar100", 22, (691, 1059, 1290))],
)
def test_long_logit_adjustment(name, warmup, milestones):
    runs = [config(f"{kind}-{name}-lt100-long") for kind in ("erm", "posthoc", "la")]
    for run in runs:
        assert run.optimizer.warmup_epochs == warmup
        assert run.optimizer.milestones == milestones
        assert run.optimizer.factor == 0.1
        assert run.optimizer.nesterov
        assert run.crop == 2
        assert PRESETS[f"la-{name}-lt100"].published is None
    assert runs[1].method == MethodConfig(post_hoc="additive", post_hoc_tau=1.0)
    assert runs[2].method == MethodConfig(loss=LogitAdjusted(tau=1.0))
    searched = config(f"posthoc-searched-{name}-lt100-long").method
    assert searched == MethodConfig(post_hoc="additive")


@pytest.mark.parametrize("ratio", [10, 50, 100])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_ratios(name, ratio):
    kinds = ("erm", "posthoc", "la", "balanced-softmax", "elm", "gradtail", "ldam-drw")
    for kind in kinds:
        data = config(f"{kind}-{name}-lt{ratio}").data
        assert (data.name, data.recipe) == (name, "exponential")
        assert data.factor == 1 / ratio
    loss = config(f"ldam-drw-{name}-lt{ratio}").method.loss
    assert loss == Ldam(beta=0.9999, start_epoch=160)
    assert config(f"ldam-drw-{name}-lt{ratio}").model.head == "cosine"
    for kind in ("spread", "center"):
        assert config(f"elm-{kind}-{name}-lt{ratio}").method.loss == Elm(kind=kind)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_gdw_kinds_of_noise_and_tails(name):
    noise = {"unif40": "uniform", "flip40": "flip", "flip2-40": "flip2"}
    for code, kind in noise.items():
        data = config(f"gdw-{name}-{code}").data
        assert (data.noise, data.noise_rate, data.meta_size) == (kind, 0.4, 1000)
    for ratio in (10, 100):
        tail = config(f"mwnet-{name}-lt{ratio}").data
        assert (tail.recipe, tail.factor) == ("gdw", 1 / ratio)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_weight_balancing_is_a_factorial(name):
    cells = {}
    for preset, run in FULL.items():
        if (
            not re.fullmatch(rf"wb-[\w-]+-{name}-lt100", preset)
            or "two-stage" in preset
        ):
            continue
        run = run.config
        cell = (
            run.optimizer.weight_decay,
            run.method.feature_penalty,
            run.model.head,
            run.method.post_hoc,
        )
        assert cell not in cells, (preset, cells[cell])
        cells[cell] = preset
    assert len(cells) == 2 * 2 * 2 * 3
    assert cells[5e-3, 1e-2, "etf", "multiplicative"] == f"wb-one-stage-{name}-lt100"
    assert cells[0.0, 0.0, "linear", "none"] == f"wb-naive-{name}-lt100"
    assert cells[5e-3, 0.0, "linear", "additive"] == f"wb-wd-add-{name}-lt100"
    second = config(f"wb-two-stage-{name}-lt100")
    assert second.trained == "classifier"
    assert second.method.max_norm == 0.1
