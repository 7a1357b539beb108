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
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

import ltjax
from experiments import compare
from experiments.digits import activations, sweep
from experiments.digits.draws import (
    Draw,
    Scenario,
    draw,
    load_images,
    long_tail_counts,
)
from experiments.methods import Context, GradTail, MethodConfig, NoWeighting
from experiments.models import ModelConfig
from experiments.reporting import plots

EARLY = 5  # the epoch in which ranks are taken
WINNER = "gated, unweighted mean"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studied(GradTail):
    """GradTail with more activations than the library has."""

    activation: Literal["gated", "bump", "tent", "sigmoid", "linear"] = "gated"

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffled:
    """The weights of another weighting, given to random examples of the batch."""

    name: ClassVar[str] = "shuffled"
    of_logits: ClassVar[bool] = False
    needs_meta: ClassVar[bool] = False

    inner: GradTail

    def build(self, context: Context, key: jax.Array) -> ltjax.Weighting:
        """The weighting of a run."""
        inner = self.inner.build(context, key)

        def weights(jac, state, params=None, *, key, **extra_args):
            own, state = inner.weights(jac, state, params, **extra_args)
            return jax.random.permutation(key, own), state

        return ltjax.Weighting.from_weights(inner.init, weights, inner.observe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A weighting, and the numbers that shape it; None is plain training."""

    weighting: GradTail | None
    shuffled: bool = False

    @property
    def task(self) -> sweep.Task:
        """What is compiled."""
        weighting = self.weighting or NoWeighting()
        if self.shuffled:
            weighting = Shuffled(inner=weighting)
        return sweep.Task(
            MethodConfig(weighting=weighting), ModelConfig(name="mlp", hidden=(64, 64))
        )

    @property
    def candidates(self) -> list[dict[str, float]]:
        """Two weight decays, and three values of what shapes the activation."""
        decays = {"optimizer.weight_decay": (5e-4, 5e-3)}
        if self.weighting is None:
            rates = {"optimizer.learning_rate": (0.03, 0.1, 0.3)}
            return sweep.combinations(decays | rates)
        name, values = {
            "gated": ("strength", (2.0, 5.0, 20.0)),
            "bump": ("width", (0.25, 0.5, 1.0)),
            "tent": ("width", (0.5, 1.0, 2.0)),
            "sigmoid": ("slope", (0.5, 1.0, 4.0)),
            "linear": ("slope", (0.25, 0.5, 1.0)),
        }[self.weighting.activation]
        inner = "inner." if self.shuffled else ""
        shape = {f"method.weighting.{inner}{name}": values}
        return sweep.combinations(decays | shape)


def _variant(shuffled: bool = False, **settings: Any) -> Variant:
    weighting = Studied(**{"reference": "weighted"} | settings)
    return Variant(weighting=weighting, shuffled=shuffled)


VARIANTS = {
    "CE": Variant(weighting=None),
    "gated": _variant(),
    "gated, shuffled": _variant(shuffled=True),
    WINNER: _variant(reference="unweighted"),
    f"{WINNER}, shuffled": _variant(reference="unweighted", shuffled=True),
    "gated, z-score": _variant(z_score=True),
    "gated, z-scored dot": _variant(similarity="dot", z_score=True),
    "gated, classifier only": _variant(layers="classifier"),
    "bump": _variant(activation="bump"),
    "bump, z-score": _variant(activation="bump", z_score=True),
    "bump, unweighted mean": _variant(activation="bump", reference="unweighted"),
    "tent": _variant(activation="tent"),
    "sigmoid": _variant(activation="sigmoid"),
    "sigmoid, z-score": _variant(activation="sigmoid", z_score=True),
    "linear": _variant(activation="linear"),
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


class Result(NamedTuple):
    """A variant's runs with the chosen candidate; arrays begin with [seeds]."""

    choice: dict[str, float]
    val: np.ndarray  # [S]
    test: np.ndarray  # [S]
    weights: np.ndarray  # [S, E, 2, C]
    losses: np.ndarray  # [S, E, 2, C]


def train(variant: Variant, draws: Sequence[Draw], epochs: int) -> Result:
    """All candidates of a variant, and what the best on validation did."""
    candidates = variant.candidates
    runs = sweep.Sweep(variant.task, candidates, draws, epochs=epochs)
    logs = [runs.epoch() for _ in range(epochs)]
    val, test = (
        _accuracy(runs.logits(split), draws, split) for split in ("val", "test")
    )
    best = int(val.mean(1).argmax())
    return Result(
        choice=candidates[best],
        val=val[best],
        test=test[best],
        weights=np.stack([log.weights[best] for log in logs], 1),
        losses=np.stack([log.losses[best] for log in logs], 1),
    )


def _accuracy(logits: np.ndarray, draws: Sequence[Draw], split: str) -> np.ndarray:
    """``[candidates, seeds]``; the splits are balanced, so this is the balanced one."""
    labels = np.stack([d.labels[getattr(d, split)] for d in draws])
    return (logits.argmax(-1) == labels).mean(-1)


def rank(result: Result, class_counts: np.ndarray) -> np.ndarray:
    """``[S]`` correlation over classes of early weight with class size."""
    epoch = min(EARLY, result.weights.shape[1]) - 1
    return np.array([_spearman(w, class_counts) for w in result.weights[:, epoch, 0]])


def fading(result: Result, tail: np.ndarray) -> np.ndarray:
    """``[S]`` correlation over epochs of the tail's weight with its loss."""
    # The first epoch is the burn-in, with all weights 1.
    weights = result.weights[:, 1:, 0, tail].mean(-1)
    losses = result.losses[:, 1:, 0, tail].mean(-1)
    return np.array([_spearman(w, x) for w, x in zip(weights, losses, strict=True)])


def wrong_over_right(result: Result) -> np.ndarray:
    """``[S]`` weight of wrong labels over that of right ones, in the last epoch."""
    right, wrong = np.moveaxis(result.weights[:, -1].mean(-1), -1, 0)
    return wrong / right


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """0 where one of both does not vary."""
    if np.ptp(x) < 1e-6 or np.ptp(y) < 1e-6:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def table(results: Mapping[str, Result], scenario: Scenario) -> Table:
    """What is printed."""
    counts = long_tail_counts()
    own = {
        "long-tail": {
            "rank": lambda r: f"{rank(r, counts).mean():+.2f}",
            "fading": lambda r: f"{fading(r, counts < compare.FEW).mean():+.2f}",
        },
        "noise": {"wrong : right": lambda r: f"{wrong_over_right(r).mean():.2f}"},
    }[scenario]
    out = Table(title=_title(scenario, results), title_justify="left")
    out.add_column("variant", no_wrap=True)
    for column in ("validation", "test", "- CE", *own):
        out.add_column(column, justify="right", no_wrap=True)
    out.add_column("chosen on validation")
    for name, result in results.items():
        difference = 100 * (result.test - results["CE"].test)
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        out.add_row(
            name,
            _mean_std(result.val),
            _mean_std(result.test),
            "" if name == "CE" else f"{difference.mean():+.1f} ± {error:.1f}",
            *("" if name == "CE" else show(result) for show in own.values()),
            ", ".join(f"{compare._short(k)} {v:g}" for k, v in result.choice.items()),
        )
    return out


def as_json(result: Result) -> dict[str, Any]:
    """Everything a table or a picture is made of."""
    return {
        "choice": result.choice,
        "val": np.round(result.val, 4).tolist(),
        "test": np.round(result.test, 4).tolist(),
        "rank": np.round(rank(result, long_tail_counts()), 3).tolist(),
        "fading": np.round(
            fading(result, long_tail_counts() < compare.FEW), 3
        ).tolist(),
    }


def draw_pictures(results: Mapping[str, Result], scenario: Scenario, out: Path) -> None:
    """Accuracy of every variant, and the weights of some over time."""
    title = _title(scenario, results)
    plots.summary(
        out / f"{scenario}-variants.png",
        {name: 100 * r.test for name, r in results.items()},
        title=title,
        xlabel="balanced test accuracy, % (dots: seeds; bars: one standard deviation)",
    )
    if scenario == "long-tail":
        shown = (WINNER, f"{WINNER}, shuffled", "gated, z-score", "bump")
        plots.weights_over_time(
            out / "long-tail-weights.png",
            {name: results[name].weights[:, :, 0].mean(0) for name in shown},
            long_tail_counts(),
            title=f"{title}: weights",
        )


def main(config: Config) -> None:
    """Trains all variants, prints the table and writes the folder."""
    if config.seeds < 2:
        raise SystemExit(f"--seeds must be at least 2, got {config.seeds}.")
    seeds, epochs = (2, 8) if config.quick else (config.seeds, compare.EPOCHS)
    _, classes = load_images()
    config.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Result]] = {"long-tail": {}, "noise": {}}
    draws = {
        scenario: [draw(classes, scenario, seed) for seed in range(seeds)]
        for scenario in results
    }
    for name, variant in track(
        VARIANTS.items(), description="variants", transient=True
    ):
        for scenario, own in results.items():
            own[name] = train(variant, draws[scenario], epochs)
    console = Console(width=max(Console().width, 120))
    for scenario, own in results.items():
        console.print(table(own, scenario), "")
        draw_pictures(own, scenario, config.out)
    content = {
        "config": dataclasses.asdict(config) | {"out": str(config.out)},
        "environment": compare.environment(),
        "results": {
            scenario: {name: as_json(r) for name, r in own.items()}
            for scenario, own in results.items()
        },
    }
    (config.out / "results.json").write_text(json.dumps(content, indent=1))
    console.print(f"{config.out}")


def _mean_std(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"


def _title(scenario: Scenario, results: Mapping[str, Result]) -> str:
    seeds = len(results["CE"].test)
    what = {"long-tail": "long tail 100 to 2", "noise": "40% wrong labels"}[scenario]
    return f"GradTail on digits, {what}, {seeds} seeds"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
