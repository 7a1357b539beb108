"""Compares all methods on handwritten digits: long-tailed, and with wrong labels.

    python -m experiments.compare                      # everything, minutes
    python -m experiments.compare --quick              # a look, well under a minute
    python -m experiments.compare --methods absgd gdw --scenario noise --seeds 20

Data: scikit-learn's 1,797 digits (nothing is downloaded). 40 images of each class are
the test set, the same for every seed; each seed draws from the rest 20 per class for
validation, 10 per class as a small clean set, and a training set:

- long-tail: from 100 images of the most frequent class down to 2 (factor 0.02);
- noise: 100 of each class, 40% of them with a wrong label.

Every method gets the same network, the same number of steps and of hyperparameter
candidates; the best candidate by balanced validation accuracy, averaged over seeds, is
reported on the test set. GDW and MW-Net are steered by the clean set; "CE + clean set"
shows what simply training on it is worth.
"""

import dataclasses
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments.digits import draws as digits
from experiments.digits import sweep
from experiments.digits.draws import Scenario, long_tail_counts
from experiments.methods import (
    Absgd,
    ClassBalanced,
    Elm,
    Gdw,
    GradTail,
    LogitAdjusted,
    MethodConfig,
    MwNet,
)
from experiments.models import ModelConfig
from experiments.reporting import plots
from ltjax import heads, metrics

MANY, FEW = 30, 10  # training examples of a class
TAUS = np.round(np.arange(0, 2.01, 0.1), 1)  # strengths of post-hoc adjustment
EPOCHS, QUICK_EPOCHS = 30, 8
QUICK_SEEDS = 3

Name = Literal[
    "ce",
    "ce-clean",
    "class-balanced",
    "logit-adjusted",
    "absgd",
    "gradtail",
    "gdw",
    "mw-net",
    "elm",
    "weight-balancing",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the table: a method and the hyperparameters to choose from."""

    label: str
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    head: Literal["linear", "etf"] = "linear"
    two_stage: bool = False
    """Plain training in the first half, as the method was published."""
    with_meta: bool = False
    """Whether the clean set is part of the training set."""
    grid: Mapping[str, Sequence[float]]
    """Values of settings by path, see `sweep.Settings` and `candidates`."""
    noise_grid: Mapping[str, Sequence[float]] | None = None
    """The same where labels are wrong, if it differs."""

    def candidates(self, scenario: Scenario) -> list[dict[str, float]]:
        """Eight for every method."""
        noise = scenario == "noise" and self.noise_grid
        return sweep.combinations(
            {**_COMMON, **(self.noise_grid if noise else self.grid)}
        )

    def task(self, epochs: int) -> sweep.Task:
        """What is compiled; equal for equal methods."""
        method = self.method
        if self.two_stage:
            late = dataclasses.replace(method.weighting, start_epoch=epochs // 2)
            method = dataclasses.replace(method, weighting=late)
        return sweep.Task(
            method, ModelConfig(name="mlp", hidden=(64, 64), head=self.head)
        )


_RATE, _DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
_TAU = "method.post_hoc_tau"
_COMMON = {_RATE: (0.1, 0.3), _DECAY: (5e-4, 5e-3)}
_CE_GRID = {_RATE: (0.03, 0.1, 0.3, 1.0)}
_NET_GRID = {"method.weighting.net_learning_rate": (1e-3, 1e-2)}

ENTRIES: dict[Name, Entry] = {
    "ce": Entry(label="CE", grid=_CE_GRID),
    "ce-clean": Entry(label="CE + clean set", with_meta=True, grid=_CE_GRID),
    "class-balanced": Entry(
        label="Class-balanced CE",
        method=MethodConfig(loss=ClassBalanced()),
        grid={"method.loss.beta": (0.9, 0.99)},
    ),
    "logit-adjusted": Entry(
        label="Logit adjustment",
        method=MethodConfig(loss=LogitAdjusted()),
        grid={"method.loss.tau": (1.0, 1.5)},
    ),
    "absgd": Entry(
        label="ABSGD",
        method=MethodConfig(weighting=Absgd()),
        two_stage=True,
        grid={"method.weighting.temperature": (1.0, 5.0)},
        noise_grid={"method.weighting.temperature": (-1.0, -2.0)},
    ),
    "gradtail": Entry(
        label="GradTail",
        method=MethodConfig(weighting=GradTail()),
        grid={_RATE: (0.03, 0.1), "method.weighting.strength": (2.0, 5.0)},
    ),
    "gdw": Entry(label="GDW", method=MethodConfig(weighting=Gdw()), grid=_NET_GRID),
    "mw-net": Entry(
        label="MW-Net", method=MethodConfig(weighting=MwNet()), grid=_NET_GRID
    ),
    "elm": Entry(
        label="ELM",
        method=MethodConfig(loss=Elm()),
        grid={"method.loss.weight": (0.1, 0.3)},
    ),
    "weight-balancing": Entry(
        label="Weight balancing",
        method=MethodConfig(post_hoc="multiplicative"),
        head="etf",
        grid={"method.feature_penalty": (1e-3, 1e-2)},
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to run."""

    methods: tuple[Name, ...] = tuple(ENTRIES)
    """Rows of the table. CE is always trained, as the reference."""
    scenario: Literal["both", "long-tail", "noise"] = "both"
    """Long-tailed classes, wrong labels, or one after the other."""
    seeds: int = 10
    """Runs of each candidate."""
    out: Path = Path("results/compare")
    """Folder for results.json and the pictures; what it holds is replaced."""
    quick: bool = False
    """A quarter of the epochs and three seeds: to see it work, not to conclude."""


class Result(NamedTuple):
    """A method's runs with the chosen hyperparameters; arrays begin with [seeds]."""

    label: str
    choice: dict[str, float]
    validation: list[tuple[dict[str, float], float]]  # every candidate's accuracy
    accuracy: np.ndarray  # [S, C], on the test set
    weights: np.ndarray  # [S, E, 2, C], see `sweep.EpochLog`
    loss: np.ndarray  # [S, E]
    val_loss: np.ndarray  # [S, E]
    cost: float  # seconds of an epoch over those of plain SGD

    @property
    def balanced(self) -> np.ndarray:
        """``[S]`` balanced accuracy."""
        return self.accuracy.mean(1)


def run(
    names: Sequence[Name],
    scenario: Scenario,
    *,
    seeds: int,
    epochs: int,
    tick: Callable[[str], None] = lambda label: None,
) -> dict[Name, Result]:
    """Trains all methods, an epoch of each in turn, and tests the best candidates."""
    _, classes = digits.load_images()
    draws = [digits.draw(classes, scenario, seed) for seed in range(seeds)]
    sweeps: dict[Name, sweep.Sweep] = {}
    for name in names:
        entry = ENTRIES[name]
        sweeps[name] = sweep.Sweep(
            entry.task(epochs),
            entry.candidates(scenario),
            draws,
            epochs=epochs,
            with_meta=entry.with_meta,
        )
    logs: dict[Name, list[sweep.EpochLog]] = {name: [] for name in names}
    for _ in range(epochs):
        for name in names:
            tick(ENTRIES[name].label)
            logs[name].append(sweeps[name].epoch())
    return {
        name: _result(name, scenario, sweeps[name], draws, logs[name], logs["ce"])
        for name in names
    }


def _result(name, scenario, own, draws, log, reference) -> Result:
    """Chooses a candidate on the validation set and evaluates it on the test set."""
    entry = ENTRIES[name]
    candidates = entry.candidates(scenario)
    taus = [None] if entry.method.post_hoc == "none" else TAUS.tolist()
    accuracy = {
        tau: _accuracy(entry, own, draws, "val", tau).mean((1, 2)) for tau in taus
    }
    tried = [
        (c | ({} if tau is None else {_TAU: tau}), float(accuracy[tau][i]))
        for (i, c), tau in itertools.product(enumerate(candidates), taus)
    ]
    best = max(range(len(tried)), key=lambda i: tried[i][1])
    i, tau = best // len(taus), taus[best % len(taus)]

    def history(field):
        return np.stack([getattr(epoch, field)[i] for epoch in log], axis=1)

    # The first epoch is left out: it may include compilation.
    ratios = [
        a.seconds / b.seconds for a, b in zip(log[1:], reference[1:], strict=True)
    ]
    return Result(
        label=entry.label,
        choice=tried[best][0],
        validation=tried,
        accuracy=_accuracy(entry, own, draws, "test", tau)[i],
        weights=history("weights"),
        loss=history("loss"),
        val_loss=history("val_loss"),
        cost=float(np.median(ratios)),
    )


def _accuracy(entry, own, draws, split, tau) -> np.ndarray:
    """``[candidates, seeds, C]`` accuracy of each class."""
    logits = own.logits(split)
    predictions = np.empty(logits.shape[:-1], int)
    for s in range(len(draws)):
        z = logits[:, s].reshape(-1, digits.NUM_CLASSES)
        if tau is not None:
            priors = own.class_counts[s] / own.class_counts[s].sum()
            z = heads.adjust_logits(z, priors, tau=tau, mode=entry.method.post_hoc)
        predictions[:, s] = np.argmax(z, 1).reshape(len(logits), -1)
    labels = np.stack([d.labels[getattr(d, split)] for d in draws])
    return np.array(
        [
            [
                metrics.per_class_accuracy(p, y, digits.NUM_CLASSES)
                for p, y in zip(of_candidate, labels, strict=True)
            ]
            for of_candidate in predictions
        ]
    )


# Output


def table(results: Mapping[Name, Result], scenario: Scenario) -> Table:
    """What is printed."""
    long_tail = scenario == "long-tail"
    columns = _shots() if long_tail else {}
    out = Table(title=_title(scenario, results), title_justify="left")
    out.add_column("method", no_wrap=True)
    out.add_column("balanced", justify="right", no_wrap=True)
    out.add_column("- CE", justify="right", no_wrap=True)
    for column in (*columns, *(() if long_tail else ("wrong : right",))):
        out.add_column(column, justify="right", no_wrap=True)
    out.add_column("step cost", justify="right", no_wrap=True)
    for name, result in results.items():
        shots = [_mean_std(result.accuracy[:, c].mean(1)) for c in columns.values()]
        if not long_tail:
            right, wrong = _by_rightness(result)[:, -1].mean(0)
            shots = [f"{wrong / right:.2f}"]
        difference = 100 * (result.balanced - results["ce"].balanced)
        error = _std(difference) / np.sqrt(len(difference))
        out.add_row(
            result.label,
            _mean_std(result.balanced),
            "" if name == "ce" else f"{difference.mean():+.1f} ± {error:.1f}",
            *shots,
            f"{result.cost:.2f}",
        )
    out.caption = (
        "test accuracy in %: mean ± standard deviation over seeds; - CE: paired "
        "difference ± standard error; step cost: time over that of plain SGD, "
        "interleaved"
    )
    if not long_tail:
        out.caption += "; wrong : right: mean weight of wrong over that of right labels"
    return out


def choices(results: Mapping[Name, Result], scenario: Scenario) -> Table:
    """What was tried and what was chosen."""
    out = Table(title=f"{_title(scenario, results)}: hyperparameters")
    out.title_justify = "left"
    out.add_column("method", no_wrap=True)
    out.add_column("candidates")
    out.add_column("chosen on validation")
    out.add_column("there", justify="right")
    for result in results.values():
        values = {
            k: list(dict.fromkeys(c[k] for c, _ in result.validation))
            for k in result.choice
        }
        if _TAU in values:
            values[_TAU] = [f"{TAUS[0]:g} to {TAUS[-1]:g}"]
        out.add_row(
            result.label,
            "; ".join(f"{_short(k)} {_numbers(v)}" for k, v in values.items()),
            "; ".join(f"{_short(k)} {v:g}" for k, v in result.choice.items()),
            f"{100 * max(a for _, a in result.validation):.1f}",
        )
    return out


def draw_pictures(
    results: Mapping[Name, Result], scenario: Scenario, out: Path
) -> list[Path]:
    """Writes the PNGs of a scenario and returns their paths."""
    title = _title(scenario, results)
    by_label = {result.label: result for result in results.values()}
    weighted = {
        label: result
        for label, result in by_label.items()
        if np.nanmax(np.abs(result.weights - 1)) > 1e-3
    }
    paths = []

    def path(name):
        paths.append(out / f"{scenario}-{name}.png")
        return paths[-1]

    plots.summary(
        path("summary"),
        {label: 100 * r.balanced for label, r in by_label.items()},
        title=title,
        xlabel="balanced test accuracy, % (dots: seeds; bars: one standard deviation)",
    )
    plots.loss_curves(
        path("losses"),
        {label: (r.loss, r.val_loss) for label, r in by_label.items()},
        title=f"{title}: loss",
    )
    if scenario == "long-tail":
        counts = long_tail_counts()
        plots.accuracy_by_frequency(
            path("accuracy"),
            {label: 100 * r.accuracy for label, r in by_label.items()},
            counts,
            title=f"{title}: accuracy by class",
        )
        if weighted:
            plots.weights_over_time(
                path("weights"),
                {label: _by_class(r).mean(0) for label, r in weighted.items()},
                counts,
                title=f"{title}: weights",
            )
    elif weighted:
        plots.wrong_label_weights(
            path("weights"),
            {label: _by_rightness(r) for label, r in weighted.items()},
            title=f"{title}: weights",
        )
    return paths


def as_json(results: Mapping[Name, Result]) -> dict[str, Any]:
    """Everything a table or a picture is made of."""
    return {
        name: {
            "label": r.label,
            "choice": r.choice,
            "validation": [{**c, "accuracy": round(a, 4)} for c, a in r.validation],
            "balanced_accuracy": _rounded(r.balanced),
            "class_accuracy": _rounded(r.accuracy),
            "step_cost": round(r.cost, 3),
            "loss": _rounded(r.loss),
            "val_loss": _rounded(r.val_loss),
            "weights": _rounded(r.weights.mean(0)),
        }
        for name, r in results.items()
    }


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "device": jax.devices()[0].device_kind,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }


def main(config: Config) -> None:
    """Trains, prints the tables and writes the folder."""
    if config.seeds < 1:
        raise SystemExit(f"--seeds must be at least 1, got {config.seeds}.")
    names = tuple(dict.fromkeys(("ce", *config.methods)))
    seeds = min(config.seeds, QUICK_SEEDS) if config.quick else config.seeds
    epochs = QUICK_EPOCHS if config.quick else EPOCHS
    scenarios = get_args(Scenario)
    if config.scenario != "both":
        scenarios = (config.scenario,)
    config.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=max(Console().width, 120))
    start = time.perf_counter()
    results = {}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(scenarios) * len(names) * epochs)
        for scenario in scenarios:
            results[scenario] = run(
                names,
                scenario,
                seeds=seeds,
                epochs=epochs,
                tick=lambda label, scenario=scenario: progress.update(
                    bar, advance=1, description=f"{scenario}: {label}"
                ),
            )
    seconds = time.perf_counter() - start
    _write_json(config.out / "results.json", config, seeds, epochs, seconds, results)
    for scenario, own in results.items():
        console.print(choices(own, scenario), "")
        console.print(table(own, scenario), "")
        for path in draw_pictures(own, scenario, config.out):
            console.print(f"  {path}", highlight=False)
        console.print()
    console.print(f"{config.out / 'results.json'}; {seconds:.0f} s of training")


def _write_json(path, config, seeds, epochs, seconds, results):
    """Complete or not at all, so that a rerun that is cut off spoils nothing."""
    content = {
        "config": dataclasses.asdict(config) | {"out": str(config.out)},
        "environment": environment(),
        "seeds": list(range(seeds)),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "results": {scenario: as_json(own) for scenario, own in results.items()},
    }
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


def _title(scenario: Scenario, results: Mapping[Name, Result]) -> str:
    seeds = len(results["ce"].accuracy)
    what = {
        "long-tail": f"long tail {digits.TRAIN} to {long_tail_counts()[-1]}",
        "noise": f"{100 * digits.NOISE_RATE:.0f}% wrong labels",
    }[scenario]
    return f"Digits, {what}, {seeds} seed{'s' * (seeds > 1)}"


def _shots() -> dict[str, np.ndarray]:
    shots = metrics.class_shots(long_tail_counts(), many=MANY, few=FEW)
    return shots._asdict()


def _by_class(result: Result) -> np.ndarray:
    """``[S, E, C]`` weights relative to their mean over examples (no wrong labels)."""
    weights = result.weights[:, :, 0]
    share = long_tail_counts() / long_tail_counts().sum()
    return weights / (weights * share).sum(-1, keepdims=True)


def _by_rightness(result: Result) -> np.ndarray:
    """``[S, E, 2]`` weights of right and wrong labels, relative to their mean."""
    weights = result.weights.mean(-1)
    share = np.array([1 - digits.NOISE_RATE, digits.NOISE_RATE])
    return weights / (weights * share).sum(-1, keepdims=True)


def _short(name: str) -> str:
    """``optimizer.learning_rate`` as ``learning rate``."""
    return name.rpartition(".")[2].replace("_", " ")


def _numbers(values: Sequence[Any]) -> str:
    return ", ".join(v if isinstance(v, str) else f"{v:g}" for v in values)


def _mean_std(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * _std(values):.1f}"


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _rounded(values: np.ndarray) -> list:
    """For JSON: four digits; groups without examples are null."""
    return json.loads(json.dumps(np.round(values, 4).tolist()).replace("NaN", "null"))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
