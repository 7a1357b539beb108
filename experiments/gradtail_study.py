"""GradTail's open choices on handwritten digits: which one is best, and does it work.

    python -m experiments.gradtail_study               # a few minutes
    python -m experiments.gradtail_study --quick

The paper fixes neither the function from similarity to weight nor the kind of
similarity. Every variant gets the same candidates for learning rate and strength; the
best by balanced validation accuracy is reported on the test set (data as in
experiments.compare). Four questions are answered for each of them:

- rank: Spearman correlation of a class's weight with its size, in the fifth epoch
  (negative: rare classes count more);
- fading: correlation over epochs of the tail's weight with the tail's loss (positive:
  weights fall as the tail is learned);
- shuffled: do the same weights, given to random examples of the batch, do worse;
- wrong : right: the weight of wrong labels over that of right ones (below 1: noise is
  told from rarity).

"aligned" compares with the gradient of a clean set, 10 images per class. In the rows
with "+ clean set" these images are trained on too.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.digits import activations
from experiments.digits.draws import Scenario, long_tail_counts
from experiments.digits.tuning import (
    EPOCHS,
    QUICK_EPOCHS,
    Entry,
    Result,
    difference,
    mean_std,
    run_all,
    short,
    title,
)
from experiments.methods import GradTail, MethodConfig
from experiments.records.environment import environment
from experiments.records.files import plain, write_json
from experiments.reporting import plots
from experiments.reporting.numbers import rank_correlation

EARLY = 5  # the epoch in which ranks are taken
FEW = 10  # training examples of a class in the tail
WINNER = "gated, unweighted mean"
CLEAN_SET = "CE + clean set"
_Activation = Literal["gated", "bump", "aligned", "tent", "sigmoid", "linear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studied(GradTail):
    """GradTail with more activations than the library has."""

    activation: _Activation = "gated"  # type: ignore[assignment]

    @property
    def activation_fn(self) -> Callable[..., jax.Array]:
        """The activation with its constants."""
        match self.activation:
            case "tent":
                return activations.tent(width=self.width)
            case "sigmoid":
                return activations.sigmoid(slope=self.slope)
            case "linear":
                return activations.linear(slope=self.slope)
        return super().activation_fn


_DECAYS: dict[str, tuple[float, ...]] = {"optimizer.weight_decay": (5e-4, 5e-3)}
_RATES = _DECAYS | {"optimizer.learning_rate": (0.03, 0.1, 0.3)}
_SHAPES = {
    "gated": ("strength", (2.0, 5.0, 20.0)),
    "aligned": ("strength", (2.0, 5.0, 20.0)),
    "bump": ("width", (0.25, 0.5, 1.0)),
    "tent": ("width", (0.5, 1.0, 2.0)),
    "sigmoid": ("slope", (0.5, 1.0, 4.0)),
    "linear": ("slope", (0.25, 0.5, 1.0)),
}


def _variant(label: str, *, with_meta: bool = False, **settings: Any) -> Entry:
    """GradTail, with two weight decays and three values of what shapes it."""
    weighting = Studied(**{"reference": "weighted"} | settings)
    name, values = _SHAPES[weighting.activation]
    return Entry(
        label=label,
        method=MethodConfig(weighting=weighting),
        with_meta=with_meta,
        grid=_DECAYS | {f"method.weighting.{name}": values},
    )


_CLEAN: dict[str, Any] = {"activation": "aligned", "reference": "clean"}
VARIANTS = {
    entry.label: entry
    for entry in (
        Entry(label="CE", grid=_RATES),
        _variant("gated"),
        _variant("gated, shuffled", shuffled=True),
        _variant(WINNER, reference="unweighted"),
        _variant(f"{WINNER}, shuffled", reference="unweighted", shuffled=True),
        _variant("gated, z-score", z_score=True),
        _variant("gated, z-scored dot", similarity="dot", z_score=True),
        _variant("gated, classifier only", layers="classifier"),
        _variant("bump", activation="bump"),
        _variant("bump, z-score", activation="bump", z_score=True),
        _variant("bump, unweighted mean", activation="bump", reference="unweighted"),
        _variant("tent", activation="tent"),
        _variant("sigmoid", activation="sigmoid"),
        _variant("sigmoid, z-score", activation="sigmoid", z_score=True),
        _variant("linear", activation="linear"),
        _variant("aligned", **_CLEAN),
        _variant("aligned, shuffled", shuffled=True, **_CLEAN),
        Entry(label=CLEAN_SET, with_meta=True, grid=_RATES),
        _variant("aligned + clean set", with_meta=True, **_CLEAN),
        _variant(
            "aligned + clean set, shuffled", with_meta=True, shuffled=True, **_CLEAN
        ),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to run."""

    seeds: int = 10
    """Runs of each candidate."""
    out: Path = Path("results/gradtail")
    """Folder for results.json and the pictures; what it holds is replaced."""
    quick: bool = False
    """A few epochs and two seeds: to see it work, not to conclude."""


def rank(result: Result, class_counts: np.ndarray) -> np.ndarray:
    """``[S]`` correlation over classes of early weight with class size."""
    epoch = min(EARLY, result.weights.shape[1]) - 1
    return np.array(
        [rank_correlation(w, class_counts) for w in result.weights[:, epoch, 0]]
    )


def fading(result: Result, tail: np.ndarray) -> np.ndarray:
    """``[S]`` correlation over epochs of the tail's weight with its loss."""
    # The first epoch is the burn-in, with all weights 1.
    weights = result.weights[:, 1:, 0, tail].mean(-1)
    losses = result.losses[:, 1:, 0, tail].mean(-1)
    return np.array(
        [rank_correlation(w, x) for w, x in zip(weights, losses, strict=True)]
    )


def wrong_over_right(result: Result) -> np.ndarray:
    """``[S]`` weight of wrong labels over that of right ones, in the last epoch."""
    right, wrong = np.moveaxis(result.weights[:, -1].mean(-1), -1, 0)
    return wrong / right


def table(results: Mapping[str, Result], scenario: Scenario) -> Table:
    """What is printed."""
    counts = long_tail_counts()
    own = {
        "long-tail": {
            "rank": lambda r: f"{rank(r, counts).mean():+.2f}",
            "fading": lambda r: f"{fading(r, counts < FEW).mean():+.2f}",
        },
        "noise": {"wrong : right": lambda r: f"{wrong_over_right(r).mean():.2f}"},
    }[scenario]
    out = Table(title=_title(scenario, results), title_justify="left")
    out.add_column("variant", no_wrap=True)
    for column in ("validation", "test", "- CE", f"- {CLEAN_SET}", *own):
        out.add_column(column, justify="right", no_wrap=True)
    out.add_column("chosen on validation")
    for name, result in results.items():
        out.add_row(
            name,
            mean_std(result.val_accuracy.mean(1)),
            mean_std(result.balanced),
            difference(result, results["CE"]),
            difference(result, results[CLEAN_SET]) if VARIANTS[name].with_meta else "",
            *("" if name == "CE" else show(result) for show in own.values()),
            ", ".join(f"{short(k)} {v:g}" for k, v in result.choice.items()),
        )
    return out


def as_json(result: Result) -> dict[str, Any]:
    """Everything a table or a picture is made of."""
    return {
        "choice": result.choice,
        "val": np.round(result.val_accuracy.mean(1), 4).tolist(),
        "test": np.round(result.balanced, 4).tolist(),
        "rank": np.round(rank(result, long_tail_counts()), 3).tolist(),
        "fading": np.round(fading(result, long_tail_counts() < FEW), 3).tolist(),
    }


def draw_pictures(results: Mapping[str, Result], scenario: Scenario, out: Path) -> None:
    """Accuracy of every variant, and the weights of some over time."""
    heading = _title(scenario, results)
    plots.summary(
        out / f"{scenario}-variants.png",
        {name: 100 * r.balanced for name, r in results.items()},
        title=heading,
        xlabel="balanced test accuracy, % (dots: seeds; bars: one standard deviation)",
    )
    if scenario == "long-tail":
        shown = (WINNER, f"{WINNER}, shuffled", "gated, z-score", "bump")
        plots.weights_over_time(
            out / "long-tail-weights.png",
            {name: results[name].weights[:, :, 0].mean(0) for name in shown},
            list(map(str, long_tail_counts())),
            title=f"{heading}: weights",
        )


def main(config: Config) -> None:
    """Trains all variants, prints the table and writes the folder."""
    if config.seeds < 2:
        raise SystemExit(f"--seeds must be at least 2, got {config.seeds}.")
    seeds, epochs = (2, QUICK_EPOCHS) if config.quick else (config.seeds, EPOCHS)
    config.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=max(Console().width, 120))
    where = environment()  # of the files that run, whatever is committed meanwhile
    results = run_all(
        VARIANTS, get_args(Scenario), seeds=seeds, epochs=epochs, console=console
    )
    for scenario, own in results.items():
        console.print(table(own, scenario), "")
        draw_pictures(own, scenario, config.out)
    content = {
        "config": plain(config) | {"out": str(config.out)},
        "environment": where,
        "results": {
            scenario: {name: as_json(r) for name, r in own.items()}
            for scenario, own in results.items()
        },
    }
    write_json(config.out / "results.json", content)
    console.print(f"{config.out}")


def _title(scenario: Scenario, results: Mapping[str, Result]) -> str:
    return f"GradTail on digits, {title(results, scenario)}"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
