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
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tyro
from rich.console import Console

from experiments.configs import commands
from experiments.digits import display, tuning
from experiments.digits.draws import Scenario
from experiments.digits.page import part
from experiments.digits.tuning import Entry, Result
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
from experiments.records.environment import environment
from experiments.records.files import flat, plain, write_json
from experiments.reporting import page
from experiments.reporting.page import Repeat
from experiments.reporting.tables import on_screen

QUICK_SEEDS = 3
FULL_SEEDS, FULL_SECONDS = 10, 263  # of CPU time, 2 cores of an AMD EPYC: compare.md

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
Candidates = dict[str, tuple[float, ...]]

_RATE, _DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
_COMMON: Candidates = {_RATE: (0.1, 0.3), _DECAY: (5e-4, 5e-3)}
_CE_GRID = _COMMON | {_RATE: (0.03, 0.1, 0.3, 1.0)}
_NET_GRID = _COMMON | {"method.weighting.net_learning_rate": (1e-3, 1e-2)}

ENTRIES: dict[Name, Entry] = {
    "ce": Entry(label="CE", grid=_CE_GRID),
    "ce-clean": Entry(label="CE + clean set", with_meta=True, grid=_CE_GRID),
    "class-balanced": Entry(
        label="Class-balanced CE",
        method=MethodConfig(loss=ClassBalanced()),
        grid=_COMMON | {"method.loss.beta": (0.9, 0.99)},
    ),
    "logit-adjusted": Entry(
        label="Logit adjustment",
        method=MethodConfig(loss=LogitAdjusted()),
        grid=_COMMON | {"method.loss.tau": (1.0, 1.5)},
    ),
    "absgd": Entry(
        label="ABSGD",
        method=MethodConfig(weighting=Absgd()),
        two_stage=True,
        grid=_COMMON | {"method.weighting.temperature": (1.0, 5.0)},
        noise_grid=_COMMON | {"method.weighting.temperature": (-1.0, -2.0)},
    ),
    "gradtail": Entry(
        label="GradTail",
        method=MethodConfig(weighting=GradTail()),
        grid=_COMMON | {_RATE: (0.03, 0.1), "method.weighting.strength": (2.0, 5.0)},
    ),
    "gdw": Entry(label="GDW", method=MethodConfig(weighting=Gdw()), grid=_NET_GRID),
    "mw-net": Entry(
        label="MW-Net", method=MethodConfig(weighting=MwNet()), grid=_NET_GRID
    ),
    "elm": Entry(
        label="ELM",
        method=MethodConfig(loss=Elm()),
        grid=_COMMON | {"method.loss.weight": (0.1, 0.3)},
    ),
    "weight-balancing": Entry(
        label="Weight balancing",
        method=MethodConfig(post_hoc="multiplicative"),
        head="etf",
        grid=_COMMON | {"method.feature_penalty": (1e-3, 1e-2)},
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to run."""

    methods: tuple[Name, ...] = tuple(ENTRIES)
    """Rows of the table. CE is always trained, as the reference."""
    scenario: Literal["both", "long-tail", "noise"] = "both"
    """Long-tailed classes, wrong labels, or one after the other."""
    seeds: int = FULL_SEEDS
    """Runs of each candidate."""
    out: Path = Path("results/compare")
    """Folder for report.html, results.json and the pictures; what it holds is
    replaced."""
    quick: bool = False
    """A quarter of the epochs and three seeds: to see it work, not to conclude."""


def plan(
    names: Sequence[Name], scenarios: Sequence[Scenario], *, seeds: int, epochs: int
) -> str:
    """What will be trained, and about how long that takes."""
    runs = _runs(names, scenarios, seeds)
    full = _runs(tuple(ENTRIES), get_args(Scenario), FULL_SEEDS)
    share = runs * epochs / (full * tuning.EPOCHS)
    return (
        f"{len(names)} methods on 1,797 handwritten digits, {' and '.join(scenarios)}: "
        f"{runs:,} runs of {epochs} epochs, {seeds} seeds of every candidate. That is "
        f"{share:.0%} of the full comparison, which took {FULL_SECONDS} s of CPU time "
        "on two cores, compilation included. The bar shows the time left here."
    )


def _runs(names: Sequence[Name], scenarios: Sequence[Scenario], seeds: int) -> int:
    return seeds * sum(len(ENTRIES[n].candidates(s)) for n in names for s in scenarios)


def as_json(results: Mapping[str, Result]) -> dict[str, Any]:
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


def main(config: Config) -> None:
    """Trains, prints the tables and writes the folder."""
    if config.seeds < 1:
        raise SystemExit(f"--seeds must be at least 1, got {config.seeds}.")
    names = tuple(dict.fromkeys(("ce", *config.methods)))
    seeds = min(config.seeds, QUICK_SEEDS) if config.quick else config.seeds
    epochs = tuning.QUICK_EPOCHS if config.quick else tuning.EPOCHS
    scenarios = get_args(Scenario)
    if config.scenario != "both":
        scenarios = (config.scenario,)
    config.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=max(Console().width, 120))
    console.print(plan(names, scenarios, seeds=seeds, epochs=epochs), highlight=False)
    where = environment()  # of the files that run, whatever is committed meanwhile
    start = time.perf_counter()
    results = tuning.run_all(
        {name: ENTRIES[name] for name in names},
        scenarios,
        seeds=seeds,
        epochs=epochs,
        console=console,
    )
    seconds = time.perf_counter() - start
    content = {
        "config": plain(config) | {"out": str(config.out)},
        "environment": where,
        "seeds": list(range(seeds)),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "results": {scenario: as_json(own) for scenario, own in results.items()},
    }
    write_json(config.out / "results.json", content)
    parts = []
    for scenario, own in results.items():
        console.print(on_screen(display.choices(own, scenario)), "")
        console.print(on_screen(display.table(own, scenario)))
        for remark in display.remarks(scenario):
            console.print(f"  {remark}", highlight=False)
        console.print()
        pictures = display.draw_pictures(own, scenario, config.out)
        parts.append(part(own, scenario, pictures, _repeat(config, content)))
    page.write(config.out / "report.html", "All methods on handwritten digits", parts)
    console.print(
        f"{seconds:.0f} s of training. Written: results.json, pictures, and a page "
        f"with everything in it:\n{config.out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )


def _repeat(config: Config, content: Mapping[str, Any]) -> Repeat:
    """What the page says of how the comparison was made."""
    versions, device, commit = content["environment"].values()
    command = ["python", "-m", "experiments.compare"]
    command += commands.changes(Config(), plain(config))
    return Repeat(
        "The comparison",
        [shlex.join(command)],
        [
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            f"device {device['kind']}, {device['cpu_cores']} cores; "
            f"{content['seconds']:.0f} s of training",
            f"commit {commit}",
        ],
        {name: json.dumps(v) for name, v in flat(content["config"]).items()},
    )


def _rounded(values: np.ndarray) -> list:
    """For JSON: four digits; groups without examples are null."""
    return json.loads(json.dumps(np.round(values, 4).tolist()).replace("NaN", "null"))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
