"""What is shown of a comparison on digits: tables and pictures of a scenario."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.digits import tuning
from experiments.digits.draws import NOISE_RATE, Scenario, long_tail_counts
from experiments.digits.tuning import Result, difference, mean_std, short
from experiments.reporting import plots
from experiments.reporting.tables import Table
from ltjax import metrics

MANY, FEW = 30, 10  # training examples of a class

Results = Mapping[str, Result]


def table(results: Results, scenario: Scenario) -> Table:
    """What the methods achieve."""
    columns = _shots() if scenario == "long-tail" else {}
    rows = []
    for result in results.values():
        special = [mean_std(result.accuracy[:, c].mean(1)) for c in columns.values()]
        if scenario == "noise":
            right, wrong = (w[:, -1].mean() for w in by_rightness(result))
            special = [f"{wrong / right:.2f}"]
        rows.append(
            [
                result.label,
                mean_std(result.balanced),
                difference(result, results["ce"]),
                *special,
                f"{result.cost:.2f}",
            ]
        )
    names = [*columns] if scenario == "long-tail" else ["wrong : right"]
    titles = ["method", "balanced", "- CE", *names, "step cost"]
    return Table(title(results, scenario), titles, rows)


def remarks(scenario: Scenario) -> list[str]:
    """What the columns of `table` mean."""
    found = [
        "Test accuracy in %: mean ± standard deviation over seeds.",
        "- CE: paired difference ± standard error.",
        "step cost: time over that of plain SGD, interleaved.",
    ]
    if scenario == "noise":
        meaning = "mean weight of wrong labels over that of right ones"
        return [*found, f"wrong : right: {meaning}."]
    return [
        *found,
        f"many: classes with more than {MANY} training examples; few: fewer than "
        f"{FEW}.",
    ]


def choices(results: Results, scenario: Scenario) -> Table:
    """What was tried and what was chosen."""
    rows = []
    for result in results.values():
        tried = {
            k: ", ".join(dict.fromkeys(f"{c[k]:g}" for c, _ in result.validation))
            for k in result.choice
        }
        if tuning.TAU in tried:
            tried[tuning.TAU] = f"{tuning.TAUS[0]:g} to {tuning.TAUS[-1]:g}"
        rows.append(
            [
                result.label,
                "; ".join(f"{short(k)} {v}" for k, v in tried.items()),
                "; ".join(f"{short(k)} {v:g}" for k, v in result.choice.items()),
                f"{100 * max(a for _, a in result.validation):.1f}",
            ]
        )
    titles = ["method", "candidates", "chosen on validation", "there"]
    return Table(f"{title(results, scenario)}: hyperparameters", titles, rows)


def weighing(results: Results) -> dict[str, Result]:
    """Methods whose weights are not all 1, by label."""
    return {
        result.label: result
        for result in results.values()
        if np.nanmax(np.abs(result.weights - 1)) > 1e-3
    }


def draw_pictures(
    results: Results, scenario: Scenario, out: Path
) -> list[tuple[Path, str]]:
    """Writes the PNGs of a scenario; returns their paths and captions."""
    heading = title(results, scenario)
    by_label = {result.label: result for result in results.values()}
    weighted = weighing(results)
    drawn = []

    def path(name, caption):
        drawn.append((out / f"{scenario}-{name}.png", caption))
        return drawn[-1][0]

    plots.summary(
        path("summary", "Balanced accuracy: seeds, mean, one standard deviation."),
        {label: 100 * r.balanced for label, r in by_label.items()},
        title=heading,
        xlabel="balanced test accuracy, % (dots: seeds; bars: one standard deviation)",
    )
    epochs = np.arange(1, results["ce"].loss.shape[1] + 1)
    plots.curves(
        path("losses", "Losses by epoch: mean over seeds, one std."),
        {
            label: {"training": (epochs, r.loss), "validation": (epochs, r.val_loss)}
            for label, r in by_label.items()
        },
        title=f"{heading}: loss",
        ylabel="loss",
        styles={"training": {"ls": "--"}, "validation": {"ls": "-"}},
        baseline="CE",
        log=True,
    )
    if scenario == "long-tail":
        counts = list(map(str, long_tail_counts()))
        plots.by_frequency(
            path("accuracy", "Accuracy by class frequency: mean over seeds, one std."),
            {label: 100 * r.accuracy for label, r in by_label.items()},
            counts,
            title=f"{heading}: accuracy by class",
            ylabel="test accuracy, %",
            top=102,
        )
        if weighted:
            plots.weights_over_time(
                path("weights", "Mean weight of each class by epoch."),
                {label: by_class(r).mean(0) for label, r in weighted.items()},
                counts,
                title=f"{heading}: weights",
            )
    elif weighted:
        plots.curves(
            path("weights", "Mean weight of right and of wrong labels by epoch."),
            {
                label: {
                    name: (epochs, w)
                    for name, w in zip(
                        plots.RIGHT_AND_WRONG, by_rightness(r), strict=True
                    )
                }
                for label, r in weighted.items()
            },
            title=f"{heading}: weights",
            ylabel="mean weight",
            styles=plots.RIGHT_AND_WRONG,
            wide=True,
        )
    return drawn


def title(results: Results, scenario: Scenario) -> str:
    """Of everything about a scenario."""
    return f"Digits, {tuning.title(results, scenario)}"


def _shots() -> dict[str, np.ndarray]:
    shots = metrics.class_shots(long_tail_counts(), many=MANY, few=FEW)
    return shots._asdict()


def by_class(result: Result) -> np.ndarray:
    """``[S, E, C]`` weights relative to their mean over examples (no wrong labels)."""
    weights = result.weights[:, :, 0]
    share = long_tail_counts() / long_tail_counts().sum()
    return weights / (weights * share).sum(-1, keepdims=True)


def by_rightness(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """``[S, E]`` weights of right and of wrong labels, relative to their mean."""
    right, wrong = np.moveaxis(result.weights.mean(-1), -1, 0)
    mean = (1 - NOISE_RATE) * right + NOISE_RATE * wrong
    return right / mean, wrong / mean
