"""Trains methods on digits with equal budgets, and tests the best candidates."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments.digits import sweep
from experiments.digits.draws import (
    NOISE_RATE,
    NUM_CLASSES,
    TRAIN,
    Draw,
    Scenario,
    draw,
    load_images,
    long_tail_counts,
)
from experiments.methods import MethodConfig
from experiments.methods.post_hoc import adjusted
from experiments.models import ModelConfig
from experiments.records.examples import opinions
from ltjax import metrics

TAU = "method.post_hoc_tau"
TAUS = np.round(np.arange(0, 2.01, 0.1), 1)  # strengths of post-hoc adjustment
EPOCHS, QUICK_EPOCHS = 30, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a table: a method and the hyperparameters to choose from."""

    label: str
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    head: Literal["linear", "etf"] = "linear"
    two_stage: bool = False
    """Plain training in the first half, as the method was published."""
    with_meta: bool = False
    """Whether the clean set is part of the training set."""
    grid: Mapping[str, Sequence[float]]
    """Values of settings by path, see `sweep.Settings`: all combinations are tried."""
    noise_grid: Mapping[str, Sequence[float]] | None = None
    """The same where labels are wrong, if it differs."""

    def candidates(self, scenario: Scenario) -> list[dict[str, float]]:
        """Hyperparameters to choose from."""
        grid = self.grid
        if scenario == "noise" and self.noise_grid is not None:
            grid = self.noise_grid
        return [
            dict(zip(grid, c, strict=True)) for c in itertools.product(*grid.values())
        ]

    def task(self, epochs: int) -> sweep.Task:
        """What is compiled; equal for equal methods."""
        settings = sweep.Settings(self.method)
        if self.two_stage:
            start = {"method.weighting.start_epoch": epochs // 2}
            settings = settings.replaced(start)
        model = ModelConfig(name="mlp", hidden=(64, 64), head=self.head)
        return sweep.Task(settings.method, model)


class Result(NamedTuple):
    """A method's runs with the chosen hyperparameters; arrays begin with [seeds]."""

    label: str
    choice: dict[str, float]
    validation: list[tuple[dict[str, float], float]]  # every candidate's accuracy
    val_accuracy: np.ndarray  # [S, C]
    accuracy: np.ndarray  # [S, C], on the test set
    weights: np.ndarray  # [S, E, 2, C], see `sweep.EpochLog`
    losses: np.ndarray  # [S, E, 2, C]
    loss: np.ndarray  # [S, E]
    val_loss: np.ndarray  # [S, E]
    val_by_epoch: np.ndarray  # [S, E, C] accuracy, before any adjustment
    examples: dict[str, np.ndarray]  # training set of the first seed, as runs export it
    cost: float  # seconds of an epoch over those of the baseline

    @property
    def balanced(self) -> np.ndarray:
        """``[S]`` balanced accuracy."""
        return self.accuracy.mean(1)


def run_all(
    entries: Mapping[str, Entry],
    scenarios: Sequence[Scenario],
    *,
    seeds: int,
    epochs: int,
    console: Console,
) -> dict[Scenario, dict[str, Result]]:
    """`run` for every scenario, with a bar of progress."""
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(scenarios) * len(entries) * epochs)

        def results(scenario):
            def tick(label):
                progress.update(bar, advance=1, description=f"{scenario}: {label}")

            return run(entries, scenario, seeds=seeds, epochs=epochs, tick=tick)

        return {scenario: results(scenario) for scenario in scenarios}


def run(
    entries: Mapping[str, Entry],
    scenario: Scenario,
    *,
    seeds: int,
    epochs: int,
    tick: Callable[[str], None] = lambda label: None,
) -> dict[str, Result]:
    """Trains all entries, an epoch of each in turn, and tests the best candidates.

    The first entry is the baseline that costs are compared with.
    """
    _, classes = load_images()
    draws = [draw(classes, scenario, seed) for seed in range(seeds)]
    sweeps = {
        name: sweep.Sweep(
            entry.task(epochs),
            entry.candidates(scenario),
            draws,
            epochs=epochs,
            with_meta=entry.with_meta,
        )
        for name, entry in entries.items()
    }
    logs: dict[str, list[sweep.EpochLog]] = {name: [] for name in entries}
    for _ in range(epochs):
        for name, entry in entries.items():
            tick(entry.label)
            logs[name].append(sweeps[name].epoch())
    seconds = {
        # The first epoch is left out: it may include compilation.
        name: np.array([epoch.seconds for epoch in log[1:]])
        for name, log in logs.items()
    }
    baseline = seconds[next(iter(entries))]
    return {
        name: _result(entry, scenario, sweeps[name], draws, logs[name])._replace(
            cost=float(np.median(seconds[name] / baseline))
        )
        for name, entry in entries.items()
    }


def _result(entry, scenario, own, draws, log) -> Result:
    """Chooses a candidate on the validation set and evaluates it on the test set."""
    candidates = entry.candidates(scenario)
    taus = [None] if entry.method.post_hoc == "none" else TAUS.tolist()
    accuracy = {tau: _accuracy(entry, own, draws, "val", tau) for tau in taus}
    tried = [
        (c | ({} if tau is None else {TAU: tau}), float(accuracy[tau][i].mean()))
        for (i, c), tau in itertools.product(enumerate(candidates), taus)
    ]
    best = max(range(len(tried)), key=lambda i: tried[i][1])
    i, tau = best // len(taus), taus[best % len(taus)]

    def history(field):
        return np.stack([getattr(epoch, field)[i] for epoch in log], axis=1)

    return Result(
        label=entry.label,
        choice=tried[best][0],
        validation=tried,
        val_accuracy=accuracy[tau][i],
        accuracy=_accuracy(entry, own, draws, "test", tau)[i],
        weights=history("weights"),
        losses=history("losses"),
        loss=history("loss"),
        val_loss=history("val_loss"),
        val_by_epoch=history("val_accuracy"),
        examples=_examples(own, draws[0], i),
        cost=np.nan,
    )


def _examples(own: sweep.Sweep, draw: Draw, candidate: int) -> dict[str, np.ndarray]:
    """What is known of the first seed's training examples."""
    labels, clean = draw.given[draw.train], draw.labels[draw.train]
    return {
        "indices": draw.train,
        "weights": own.example_weights[candidate, 0, draw.train],
        "labels": labels,
        "clean_labels": clean,
        "changed": labels != clean,
    } | opinions(own.logits("train")[candidate, 0], labels)


def _accuracy(
    entry: Entry,
    own: sweep.Sweep,
    draws: Sequence[Draw],
    split: sweep.Split,
    tau: float | None,
) -> np.ndarray:
    """``[candidates, seeds, C]`` accuracy of each class."""
    logits = own.logits(split)
    predictions = np.empty(logits.shape[:-1], int)
    for s in range(len(draws)):
        z = logits[:, s].reshape(-1, NUM_CLASSES)
        if tau is not None:
            counts, mode = own.class_counts[s], entry.method.post_hoc
            z = adjusted(z, counts, mode=mode, tau=tau)
        predictions[:, s] = np.argmax(z, 1).reshape(len(logits), -1)
    labels = np.stack([d.labels[getattr(d, split)] for d in draws])
    return np.array(
        [
            [
                metrics.per_class_accuracy(p, y, NUM_CLASSES)
                for p, y in zip(of_candidate, labels, strict=True)
            ]
            for of_candidate in predictions
        ]
    )


# What results are shown with


def title(results: Mapping[str, Result], scenario: Scenario) -> str:
    """The training data, and the number of seeds."""
    seeds = len(next(iter(results.values())).accuracy)
    what = {
        "long-tail": f"long tail {TRAIN} to {long_tail_counts()[-1]}",
        "noise": f"{100 * NOISE_RATE:.0f}% wrong labels",
    }[scenario]
    return f"{what}, {seeds} seed{'s' * (seeds > 1)}"


def short(path: str) -> str:
    """``optimizer.learning_rate`` as ``learning rate``."""
    return path.rpartition(".")[2].replace("_", " ")


def mean_std(values: np.ndarray) -> str:
    """In percent."""
    return f"{100 * values.mean():.1f} ± {100 * std(values):.1f}"


def difference(result: Result, baseline: Result) -> str:
    """Balanced accuracy minus that of a baseline, in percent; blank for itself."""
    if result is baseline:
        return ""
    paired = 100 * (result.balanced - baseline.balanced)
    return f"{paired.mean():+.1f} ± {std(paired) / np.sqrt(len(paired)):.1f}"


def std(values: np.ndarray) -> float:
    """Over seeds; 0 for a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
