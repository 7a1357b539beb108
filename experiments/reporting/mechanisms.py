"""Pictures of why a method works: what it does to weights and to embeddings."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting import plots
from experiments.reporting.figures import Picture
from experiments.reporting.groups import Group, Section
from experiments.reporting.series import known_mean, over_epochs

_LOSS_BINS = 10


def effective_size(section: Section, path: Path) -> bool:
    """Share of the examples that count, by epoch: all of them if weights are equal."""
    data = {
        group.label: {"share": effective_shares(group)}
        for group in section.groups
        if group.weighs and all("weights/std" in r.rows[-1] for r in group.counted)
    }
    if not data:
        return False
    plots.curves(
        path,
        data,
        title=f"Effective sample size: {section.title}",
        ylabel="share of examples, %",
        styles={"share": {}},
    )
    return True


def fisher_ratio(section: Section, path: Path) -> bool:
    """Between-class over within-class scatter of the embeddings, by epoch."""
    names = {"train": ("train", {"ls": "--"}), "test": ("test", {"ls": "-"})}
    data = {
        group.label: {
            name: over_epochs(group, f"{split}/fisher_ratio")
            for name, (split, _) in names.items()
            if all(f"{split}/fisher_ratio" in r.evaluated[-1] for r in group.counted)
        }
        for group in section.groups
        if all("test/fisher_ratio" in r.evaluated[-1] for r in group.counted)
    }
    if not data:
        return False
    used = {name for lines in data.values() for name in lines}
    plots.curves(
        path,
        data,
        title=f"Fisher ratio of the embeddings: {section.title}",
        ylabel="Fisher ratio",
        styles={name: style for name, (_, style) in names.items() if name in used},
        log=True,
    )
    return True


def weight_by_loss(section: Section, path: Path) -> bool:
    """Last weight of right and wrong labels against the loss, in tenths by loss."""
    found = {
        group.label: np.stack([weights_by_loss(run.example_weights) for run in runs])
        for group in section.groups
        if group.weighs
        and (runs := [r for r in group.counted if _has_losses(r.example_weights)])
    }
    if not found:
        return False
    title = f"Weight against loss: {section.title}"
    x = (np.arange(_LOSS_BINS) + 0.5) * 100 / _LOSS_BINS
    with plots.panels(path, title, found, wide=True) as axes:
        for label, ax in axes.items():
            means = known_mean(found[label])
            for own, (name, style) in zip(
                means, plots.RIGHT_AND_WRONG.items(), strict=True
            ):
                line: dict[str, Any] = {"marker": "o", "ms": 3, "label": name, **style}
                ax.plot(x, own, **line)
            ax.set(title=label)
            ax.set_ylim(bottom=0)
            plots.outer_labels(ax, "rank of the loss, %", "mean weight")
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return True


def weights_by_loss(examples: dict[str, np.ndarray]) -> np.ndarray:
    """``[2, 10]`` mean weight of right and of wrong labels, by tenth of the losses.

    NaN where there is none.
    """
    seen = np.isfinite(examples["losses"])
    losses, weights, changed = (
        examples[name][seen] for name in ("losses", "weights", "changed")
    )
    rank = np.argsort(np.argsort(losses, kind="stable"), kind="stable")
    place = rank * _LOSS_BINS // max(len(rank), 1) + _LOSS_BINS * changed
    sums = np.bincount(place, weights, minlength=2 * _LOSS_BINS)
    counts = np.bincount(place, minlength=2 * _LOSS_BINS)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means.reshape(2, _LOSS_BINS)


def effective_shares(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and ``mean(w)^2 / mean(w^2)`` over the steps of each, in percent."""
    rows = list(zip(*(run.rows for run in group.counted), strict=False))
    mean, std = (
        np.array([[row[f"weights/{name}"] for row in epoch] for epoch in rows]).T
        for name in ("mean", "std")
    )
    shares = 100 * mean**2 / np.maximum(mean**2 + std**2, 1e-24)
    return np.array([row[0]["epoch"] for row in rows]), shares


def _has_losses(examples: dict[str, np.ndarray]) -> bool:
    return "losses" in examples and bool(examples["changed"].any())


MECHANISMS = (
    Picture(
        "effective",
        "Effective sample size of an epoch's weights, (sum w)^2 / sum w^2, as a share "
        "of the examples.",
        effective_size,
    ),
    Picture(
        "fisher",
        "Fisher ratio of the embeddings by epoch: mean over seeds, one std.",
        fisher_ratio,
    ),
    Picture(
        "weight-by-loss",
        "Mean last weight of examples by the rank of their last loss, right and wrong "
        "labels apart.",
        weight_by_loss,
    ),
)
