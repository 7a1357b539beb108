"""Presets have the published settings, and the command line can state them all."""

import dataclasses
import re
from pathlib import Path

import pytest

from experiments import configs, train
from experiments.configs import PRESETS, TrainConfig
from experiments.datasets import DataConfig
from experiments.methods import Absgd, Elm, Gdw, LogitAdjusted, MethodConfig

ROWS = {
    "gdw-cifar10-unif40": (0.1, 5e-4, 100, 80, "resnet32"),
    "mwnet-cifar10-unif60": (0.1, 5e-4, 100, 80, "resnet32"),
    "absgd-cifar10-lt10": (0.1, 2e-4, 100, 200, "resnet32"),
    "absgd-cifar100-step100": (0.1, 2e-4, 128, 200, "resnet32"),
    "absgd-cifar10-sym40": (0.01, 5e-3, 128, 120, "conv6"),
    "absgd-cifar100-sym20": (0.01, 1e-2, 128, 120, "resnet34"),
    "wb-one-stage-cifar100-lt100": (0.01, 5e-3, 64, 320, "resnet34"),
    "wb-naive-cifar10-lt100": (0.01, 0.0, 64, 320, "resnet34"),
    "la-cifar10-lt100-long": (0.1, 2e-4, 128, 1241, "resnet32"),
    "elm-cifar100-lt100-long": (0.1, 2e-4, 128, 1419, "resnet32"),
    "ce-cifar10-lt10-resnet18": (0.1, 0.0, 128, 300, "resnet18_7x7"),
    "absgd-cifar10-lt100-resnet18": (0.05, 1e-3, 128, 100, "resnet18_7x7"),
    "absgd-clothing1m": (0.005, 1e-3, 128, 10, "resnet50"),
    "ldam-drw-cifar100-lt10": (0.1, 2e-4, 128, 200, "resnet32"),
    "gdw-cifar100-flip2-40": (0.1, 5e-4, 100, 80, "resnet32"),
}


@pytest.mark.parametrize("name", ROWS)
def test_published_rows(name):
    config = PRESETS[name].config
    assert ROWS[name] == (
        config.optimizer.learning_rate,
        config.optimizer.weight_decay,
        config.batch_size,
        config.epochs,
        config.model.name,
    )


@pytest.mark.parametrize(
    ("name", "temperature", "gamma", "alpha", "start"),
    [
        ("absgd-cifar10-lt10", 5.0, 0.7, 0.5, 160),
        ("absgd-cifar100-step100", 3.0, 0.45, 0.3, 160),
        ("absgd-cifar10-lt10-resnet18", 0.5, 0.9, 1.0, 0),
        ("absgd-cifar10-lt100-resnet18", 2.0, 0.9, 1.0, 60),
        ("absgd-cifar10-asym40", -0.5, 0.9, 0.5, 80),
        ("absgd-cifar10-sym20", -0.5, 0.9, 0.5, 80),
        ("absgd-cifar100-sym40", -5.0, 0.5, 0.5, 80),
        ("absgd-clothing1m", -5.0, 0.5, 0.5, 5),
    ],
)
def test_absgd_rows(name, temperature, gamma, alpha, start):
    assert PRESETS[name].config.method.weighting == Absgd(
        temperature=temperature,
        gamma=gamma,
        alpha=alpha,
        start_epoch=start,
        bias_correction=False,
        erm_weight=1.0 if temperature < 0 else 0.0,
    )


def test_small_twins_keep_data_and_method():
    for name, preset in PRESETS.items():
        twin = PRESETS.get(f"{name}-small")
        if twin is None:
            continue
        small, full = twin.config, preset.config
        assert small.model.name == "patchify"
        assert small.epochs <= 20
        assert small.data == full.data
        for own, theirs in (
            (small.method.loss, full.method.loss),
            (small.method.weighting, full.method.weighting),
        ):
            if hasattr(theirs, "start_epoch"):
                late = theirs.start_epoch / full.epochs
                assert abs(own.start_epoch / small.epochs - late) < 0.05
                own = dataclasses.replace(own, start_epoch=theirs.start_epoch)
            assert own == theirs
        assert small.method == dataclasses.replace(
            full.method, loss=small.method.loss, weighting=small.method.weighting
        )


def test_needs_names_the_data():
    assert configs.needs(PRESETS["smoke"].config) == "nothing"
    assert "LTJAX_DATA" in configs.needs(PRESETS["gdw-cifar10-unif40"].config)
    human = TrainConfig(data=DataConfig(name="cifar10", noise="human_worse"))
    assert "CIFAR-10N" in configs.needs(human)


@pytest.mark.parametrize("name", ["smoke", "wb-one-stage-cifar100-lt100-small"])
def test_command_line_starts_from_the_preset(name):
    default = train.Command(config=PRESETS[name].config)
    assert train.parse(PRESETS[name], [], name) == default
    argv = ["--method.post-hoc-tau", "0.5", "--seeds", "3", "--fsdp"]
    changed = train.parse(PRESETS[name], argv, name)
    assert changed.machine.fsdp
    assert changed.config == dataclasses.replace(
        default.config,
        seeds=3,
        method=dataclasses.replace(default.config.method, post_hoc_tau=0.5),
    )


def test_command_line_sets_and_changes_kinds():
    def method(name, *argv):
        return train.parse(PRESETS[name], argv, name).config.method

    kept = method("la-cifar10-lt100", "--method.loss.tau", "1.5")
    assert kept.loss == LogitAdjusted(tau=1.5)
    changed = method(
        *("smoke", "--method.loss", "elm", "--method.loss.kind", "spread"),
        *("--method.weighting", "absgd", "--method.weighting.temperature", "-2"),
    )
    assert changed == MethodConfig(
        loss=Elm(kind="spread"), weighting=Absgd(temperature=-2.0)
    )
    # Naming the kind that a preset has keeps its settings.
    preset = PRESETS["absgd-cifar10-lt10"].config.method
    assert method("absgd-cifar10-lt10", "--method.weighting", "absgd") == preset


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--method.loss", "elmo"], "elmo.*logit_adjusted"),
        (["--method.loss.tau", "1"], r"method\.loss\.tau"),
    ],
)
def test_unknown_kinds_and_settings_are_refused(argv, message, capsys):
    with pytest.raises(SystemExit):
        train.parse(PRESETS["smoke"], argv, "smoke")
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(message, shown)


def test_help_lists_the_kinds_and_the_settings_of_the_chosen_one(capsys):
    with pytest.raises(SystemExit):
        train.parse(PRESETS["smoke"], ["--method.loss", "elm", "--help"], "smoke")
    shown = capsys.readouterr().out
    assert "balanced_softmax" in shown
    assert "--method.loss.temperature" in shown
    assert "--method.weighting.temperature" not in shown


def test_refuses_impossible_numbers():
    with pytest.raises(ValueError, match=r"epochs must be at least 1, got 0"):
        TrainConfig(epochs=0)
    with pytest.raises(ValueError, match=r"data\.meta_size must be at least .*=100"):
        TrainConfig(method=MethodConfig(weighting=Gdw()))


def test_documentation_names_real_presets():
    root = Path(__file__).parents[3]
    sources = sorted((root / "experiments" / "configs").rglob("*.py"))
    pages = [root / "docs" / "training.md", *sources]
    text = "\n".join(page.read_text() for page in pages)
    named = re.findall(r"-m experiments\.train (?:\\\s+)?([a-z][\w-]+)", text)
    assert len(named) > 5
    assert set(named) <= set(PRESETS)
