"""Pictures of a report: what a `Section` of runs has to show, drawn where it can be.

Every function writes one PNG and returns whether there was something to draw.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.records.epochs import REGIONS
from experiments.records.runs import Run
from experiments.reporting import plots
from experiments.reporting.groups import Section
from experiments.reporting.series import (
    by_part,
    class_parts,
    known_mean,
    over_epochs,
    probabilities,
    ranking,
    relative_weights,
    tightness_by_part,
)
from ltjax import metrics

_BINS = 10  # of confidence
_ERRORS = {"mae": "MAE", "rmse": "RMSE", "geometric_mean": "geometric mean"}


class Picture(NamedTuple):
    """A kind of picture: the end of its file name, a caption, and how it is drawn."""

    name: str
    caption: str
    draw: Callable[[Section, Path], bool]


def learning_curves(section: Section, path: Path) -> bool:
    """Validation accuracy (regression: error) by epoch, or that of the test set."""
    key = "mae" if section.is_regression else "balanced_accuracy"
    runs = _runs(section)
    if not _has_curves(section):
        return False
    split = "val" if all(f"val/{key}" in r.evaluated[-1] for r in runs) else "test"
    scale = 1 if section.is_regression else 100
    data = {
        group.label: {split: over_epochs(group, f"{split}/{key}", scale)}
        for group in section.groups
    }
    name = "mean absolute error" if section.is_regression else "balanced accuracy, %"
    where = "Validation" if split == "val" else "Test"
    plots.curves(
        path,
        data,
        title=f"{where} {name.removesuffix(', %')}: {section.title}",
        ylabel=name,
        styles={split: {}},
        baseline=_baseline(section),
    )
    return True


def loss_curves(section: Section, path: Path) -> bool:
    """Training loss, raw and as weighted, and validation loss by epoch."""
    if not _has_curves(section):
        return False
    names = {
        "training": ("train/loss", {"ls": "--"}),
        "training, weighted": ("train/weighted_loss", {"ls": ":"}),
        "validation": ("val/loss", {"ls": "-"}),
    }
    data = {}
    for group in section.groups:
        lines = {
            name: over_epochs(group, key)
            for name, (key, _) in names.items()
            if all(key in run.evaluated[-1] for run in group.counted)
            and (name != "training, weighted" or group.weighs)
        }
        data[group.label] = lines
    used = {name for lines in data.values() for name in lines}
    plots.curves(
        path,
        data,
        title=f"Losses: {section.title}",
        ylabel="loss",
        styles={n: style for n, (_, style) in names.items() if n in used},
        log=True,
    )
    return True


def accuracy_by_frequency(section: Section, path: Path) -> bool:
    """Accuracy of each class, or group of classes, the most frequent first."""
    if section.is_regression:
        return False
    parts, names = class_parts(section.facts["class_counts"])
    rule = "best" if section.rule == "best" else "last"
    accuracy = {
        group.label: 100
        * np.stack(
            [
                by_part(run.selected[rule]["test/per_class_accuracy"], parts)
                for run in group.counted
            ]
        )
        for group in section.groups
    }
    plots.by_frequency(
        path,
        accuracy,
        names,
        title=f"Accuracy by class frequency: {section.title}",
        ylabel="test accuracy, %",
        top=102,
        baseline=_baseline(section),
    )
    return True


def weights_over_time(section: Section, path: Path) -> bool:
    """Mean weight of each class by epoch, for methods that weigh examples."""
    groups = [group for group in section.groups if group.weighs]
    if not groups:
        return False
    title = f"Mean weight over time: {section.title}"
    if section.is_regression:
        data = {
            g.label: {
                region: (epochs, values[..., i])
                for epochs, values in [relative_weights(g, "weights/by_class")]
                for i, region in enumerate(REGIONS)
            }
            for g in groups
        }
        shades = ("#332288", "#44AA99", "#CC6677")
        styles = {r: {"color": c} for r, c in zip(REGIONS, shades, strict=True)}
        plots.curves(path, data, title=title, ylabel="weight, mean", styles=styles)
        return True
    parts, names = class_parts(section.facts["class_counts"])
    weights = {}
    for group in groups:
        values = known_mean(relative_weights(group, "weights/by_class")[1])
        by_epoch = np.stack([by_part(epoch, parts) for epoch in values])
        weights[group.label] = np.maximum(by_epoch, 1e-3)
    plots.weights_over_time(path, weights, names, title=title)
    return True


def label_weights(section: Section, path: Path) -> bool:
    """Mean weight of examples with changed and unchanged labels by epoch."""
    keys = "weights/unchanged_labels", "weights/changed_labels"
    groups = [
        g for g in section.groups if g.weighs and keys[1] in g.counted[0].rows[-1]
    ]
    if not groups:
        return False
    plots.curves(
        path,
        {
            g.label: {
                line: relative_weights(g, key)
                for line, key in zip(plots.RIGHT_AND_WRONG, keys, strict=True)
            }
            for g in groups
        },
        title=f"Weight of right and wrong labels: {section.title}",
        ylabel="mean weight",
        styles=plots.RIGHT_AND_WRONG,
        wide=True,
    )
    return True


def reliability(section: Section, path: Path) -> bool:
    """Accuracy by confidence at the last epoch, all seeds together."""
    found = {}
    for group in section.groups:
        runs = [run for run in group.counted if run.final]
        if runs and not section.is_regression:
            own = np.concatenate([probabilities(run) for run in runs])
            labels = np.concatenate([run.final["test_targets"] for run in runs])
            found[group.label] = (own, labels)
    if not found:
        return False
    title = f"Reliability on the test set: {section.title}"
    with plots.panels(path, title, found) as axes:
        for label, ax in axes.items():
            bins = metrics.reliability_bins(*found[label], num_bins=_BINS)
            error = metrics.expected_calibration_error(*found[label])
            middle = (bins.edges[1:] + bins.edges[:-1]) / 2
            drawn = bins.counts > 0
            # A bar as wide as its bin holds the largest share of examples.
            width = np.sqrt(bins.counts / bins.counts.max()) / _BINS
            ax.plot([0, 1], [0, 1], color=plots.GREY, lw=1, ls="--")
            ax.bar(
                middle[drawn],
                bins.accuracy[drawn],
                0.94 * width[drawn],
                color=plots.color(label),
                alpha=0.6,
            )
            ax.plot(
                bins.confidence[drawn],
                bins.accuracy[drawn],
                "o",
                color=plots.color(label),
                ms=4,
            )
            ax.annotate(
                f"ECE {100 * error:.1f} %",
                (0.04, 0.9),
                xycoords="axes fraction",
                bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
            )
            ax.set(xlim=(0, 1), ylim=(0, 1.02), title=label)
            plots.outer_labels(ax, "confidence", "accuracy")
    return True


def tightness(section: Section, path: Path) -> bool:
    """Within-class spread over distance between centres, by class frequency."""
    if section.is_regression:
        return False
    parts, names = class_parts(section.facts["class_counts"])
    found = {}
    for group in section.groups:
        runs = [run for run in group.counted if run.final]
        if runs:
            found[group.label] = np.stack(
                [tightness_by_part(run, parts) for run in runs]
            )
    if not found:
        return False
    plots.by_frequency(
        path,
        found,
        names,
        title=f"Spread of test embeddings: {section.title}",
        ylabel="spread / distance",
        baseline=_baseline(section),
    )
    return True


def region_errors(section: Section, path: Path) -> bool:
    """Regression errors by how common the target is in training."""
    if not section.is_regression:
        return False
    regions = ("all", *REGIONS)
    title = f"Test errors by region of the target: {section.title}"
    labels = [group.label for group in section.groups]
    shades = plots.colors(labels)
    with plots.panels(path, title, tuple(_ERRORS.values()), wide=True) as axes:
        for key, name in _ERRORS.items():
            ax = axes[name]
            width = 0.8 / len(labels)
            for i, group in enumerate(section.groups):
                rows = [run.selected[section.rule] for run in group.counted]
                shown = [r for r in regions if _error_key(r, key) in rows[0]]
                values = np.array(
                    [[row[_error_key(r, key)] for r in shown] for row in rows]
                )
                x = np.array([regions.index(r) for r in shown])
                ax.bar(
                    x + (i - (len(labels) - 1) / 2) * width,
                    values.mean(0),
                    0.92 * width,
                    yerr=plots.std(values) if len(values) > 1 else None,
                    color=shades[group.label],
                    error_kw={"lw": 1.2},
                    label=group.label,
                )
            ax.set(title=name)
            ax.set_xticks(range(len(regions)), regions)
            ax.grid(axis="x", visible=False)
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return True


def detection(section: Section, path: Path) -> bool:
    """Wrong labels found when the examples of lowest weight are looked at first."""
    found = {}
    for group in section.groups:
        runs = [run for run in group.counted if run.example_weights]
        runs = [run for run in runs if run.example_weights["changed"].any()]
        if runs and group.weighs:
            found[group.label] = runs
    if not found:
        return False
    title = f"Wrong labels found by low weight: {section.title}"
    x = np.linspace(0, 100, 201)
    with plots.panels(path, title, found) as axes:
        for label, ax in axes.items():
            runs = found[label]
            curves = [ranking(run)[1] for run in runs]
            changed = np.mean([run.example_weights["changed"].mean() for run in runs])
            grids = [np.linspace(0, 100, len(curve)) for curve in curves]
            values = np.stack(
                [np.interp(x, g, 100 * c) for g, c in zip(grids, curves, strict=True)]
            )
            ax.plot([0, 100], [0, 100], color=plots.GREY, lw=1, ls="--")
            ax.plot([0, 100 * changed, 100], [0, 100, 100], color=plots.GREY, lw=1)
            plots.band(ax, x, values, label)
            ax.set(title=label, xlim=(0, 100), ylim=(0, 102))
            plots.outer_labels(ax, "looked at, % of the training set", "found, %")
    return True


PICTURES = (
    Picture("learning", "Learning curves: mean over seeds, one std.", learning_curves),
    Picture("losses", "Losses by epoch: mean over seeds, one std.", loss_curves),
    Picture(
        "frequency",
        "Accuracy by class frequency: mean over seeds, one std.",
        accuracy_by_frequency,
    ),
    Picture(
        "weights",
        "Mean weight of each class by epoch, relative to the mean of all examples.",
        weights_over_time,
    ),
    Picture(
        "labels",
        "Mean weight of examples whose label was and was not changed, by epoch.",
        label_weights,
    ),
    Picture(
        "reliability",
        "Accuracy by confidence at the last epoch, seeds together. Wider "
        "bars stand for more examples; on the dashed line, confidence is right.",
        reliability,
    ),
    Picture(
        "tightness",
        "Within-class spread of the test embeddings over the distance from other "
        "classes, at the last epoch: lower is tighter.",
        tightness,
    ),
    Picture(
        "regions", "Test errors by region: mean over seeds, one std.", region_errors
    ),
    Picture(
        "detection",
        "Share of wrong labels found when examples are looked at by rising weight. "
        "Dashed: in random order. Thin: as good as can be.",
        detection,
    ),
)


def _has_curves(section: Section) -> bool:
    """Whether any run has been evaluated more than once."""
    return any(len(run.evaluated) > 1 for run in _runs(section))


def _runs(section: Section) -> list[Run]:
    return [run for group in section.groups for run in group.counted]


def _baseline(section: Section) -> str:
    """The plain method, drawn behind all others."""
    labels = [group.label for group in section.groups]
    return next((name for name in ("CE", "MSE") if name in labels), "")


def _error_key(region: str, error: str) -> str:
    return f"test/{error}" if region == "all" else f"test/{region}_{error}"
