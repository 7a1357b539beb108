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
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

import ltjax
from experiments import compare, methods
from experiments.digits import sweep
from experiments.models import ModelConfig
from experiments.reporting import plots
from ltjax import data

EARLY = 5  # the epoch in which ranks are taken
DECAYS = {"weight_decay": (5e-4, 5e-3)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What is compiled in; None as activation is plain training."""

    activation: str | None = "gated"
    similarity: str = "cosine"
    reference: str = "weighted"
    z_score: bool = False
    classifier_only: bool = False
    shuffled: bool = False

    @property
    def candidates(self) -> list[dict[str, float]]:
        """Two weight decays, and three values of what shapes the activation."""
        shape = {
            None: {"learning_rate": (0.03, 0.1, 0.3)},
            "gated": {"strength": (2.0, 5.0, 20.0)},
            "bump": {"width": (0.25, 0.5, 1.0)},
            "tent": {"width": (0.5, 1.0, 2.0)},
            "sigmoid": {"slope": (0.5, 1.0, 4.0)},
            "linear": {"slope": (0.25, 0.5, 1.0)},
        }
        return sweep.combinations(DECAYS | shape[self.activation])


VARIANTS = {
    "CE": Variant(activation=None),
    "gated": Variant(),
    "gated, shuffled": Variant(shuffled=True),
    "gated, unweighted mean": Variant(reference="unweighted"),
    "gated, unweighted mean, shuffled": Variant(reference="unweighted", shuffled=True),
    "gated, z-score": Variant(z_score=True),
    "gated, z-scored dot": Variant(similarity="dot", z_score=True),
    "gated, classifier only": Variant(classifier_only=True),
    "bump": Variant(activation="bump"),
    "bump, z-score": Variant(activation="bump", z_score=True),
    "bump, unweighted mean": Variant(activation="bump", reference="unweighted"),
    "tent": Variant(activation="tent"),
    "sigmoid": Variant(activation="sigmoid"),
    "sigmoid, z-score": Variant(activation="sigmoid", z_score=True),
    "linear": Variant(activation="linear"),
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


def make_method(variant: Variant, numbers, apply, class_counts, epochs):
    """Plain SGD behind the weighting, with the weights in between at hand."""
    del class_counts
    numbers = dict(numbers)
    schedule = methods.learning_rate(
        methods.OptimizerConfig(learning_rate=numbers.pop("learning_rate", 0.1)),
        epochs=epochs,
        steps_per_epoch=sweep.STEPS,
    )
    optimizer = optax.chain(
        optax.add_decayed_weights(numbers.pop("weight_decay")),
        optax.sgd(schedule, momentum=0.9),
    )
    weighting = ltjax.gradtail(
        activation=variant.activation or "gated",
        similarity=variant.similarity,
        reference=variant.reference,
        z_score=variant.z_score,
        mask=methods.classifier_mask if variant.classifier_only else None,
        **numbers,
    )

    def init(params, rest, inputs, key):
        del inputs, key
        return methods.State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            rest=rest,
            opt_state=(weighting.init(params), optimizer.init(params)),
            centers=None,
        )

    def step(state, batch, meta_batch, key):
        del meta_batch

        def losses_fn(params):
            outputs, _ = apply(params, state.rest, batch.inputs, train=True, key=key)
            return optax.softmax_cross_entropy_with_integer_labels(
                outputs.logits, batch.targets
            )

        losses, jac = ltjax.linearize(losses_fn, state.params)
        own, inner = state.opt_state
        weights = jnp.ones_like(losses)
        if variant.activation is not None:
            weights, own = weighting.weights(jac, own, state.params)
        if variant.shuffled:
            weights = jax.random.permutation(key, weights)
        gradient = jac.vjp(weights / weights.size)
        own = weighting.observe(own, gradient)
        updates, inner = optimizer.update(gradient, inner, state.params)
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=(own, inner),
        )
        return state, {"losses": losses, "weights": weights}

    return methods.Method(init, step)


@functools.cache
def _build(variant: Variant) -> sweep.Build:
    return sweep.Build(
        functools.partial(make_method, variant),
        ModelConfig(name="mlp", hidden=(64, 64)),
    )


def train(variant: Variant, draws: Sequence[sweep.Draw], epochs: int) -> Result:
    """All candidates of a variant, and what the best on validation did."""
    candidates = variant.candidates
    runs = sweep.Sweep(_build(variant), candidates, draws, epochs=epochs)
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


def _accuracy(
    logits: np.ndarray, draws: Sequence[sweep.Draw], split: str
) -> np.ndarray:
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


def table(results: Mapping[str, Result], scenario: sweep.Scenario) -> Table:
    """What is printed."""
    counts = _counts()
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
            ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in result.choice.items()),
        )
    return out


def as_json(result: Result) -> dict[str, Any]:
    """Everything a table or a picture is made of."""
    return {
        "choice": result.choice,
        "val": np.round(result.val, 4).tolist(),
        "test": np.round(result.test, 4).tolist(),
        "rank": np.round(rank(result, _counts()), 3).tolist(),
        "fading": np.round(fading(result, _counts() < compare.FEW), 3).tolist(),
    }


def draw_pictures(
    results: Mapping[str, Result], scenario: sweep.Scenario, out: Path
) -> None:
    """Accuracy of every variant, and the weights of some over time."""
    title = _title(scenario, results)
    plots.summary(
        out / f"{scenario}-variants.png",
        {name: 100 * r.test for name, r in results.items()},
        title=title,
        xlabel="balanced test accuracy, % (dots: seeds; bars: one standard deviation)",
    )
    if scenario == "long-tail":
        winner = "gated, unweighted mean"
        shown = (winner, f"{winner}, shuffled", "gated, z-score", "bump")
        plots.weights_over_time(
            out / "long-tail-weights.png",
            {name: results[name].weights[:, :, 0].mean(0) for name in shown},
            _counts(),
            title=f"{title}: weights",
        )


def main(config: Config) -> None:
    """Trains all variants, prints the table and writes the folder."""
    if config.seeds < 2:
        raise SystemExit(f"--seeds must be at least 2, got {config.seeds}.")
    seeds, epochs = (2, 8) if config.quick else (config.seeds, compare.EPOCHS)
    _, classes = sweep.load_images()
    config.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Result]] = {"long-tail": {}, "noise": {}}
    draws = {
        scenario: [sweep.draw(classes, scenario, seed) for seed in range(seeds)]
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


def _counts() -> np.ndarray:
    return data.exponential_counts(sweep.NUM_CLASSES, sweep.TRAIN, sweep.FACTOR)


def _mean_std(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"


def _title(scenario: sweep.Scenario, results: Mapping[str, Result]) -> str:
    seeds = len(results["CE"].test)
    what = {"long-tail": "long tail 100 to 2", "noise": "40% wrong labels"}[scenario]
    return f"GradTail on digits, {what}, {seeds} seeds"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
