"""Pictures of why methods help, from the records of the evidence runs.

Each picture has a function that finds its lines, and one that draws them.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from experiments.reporting import plots
from experiments.reporting.answers import Found
from experiments.reporting.groups import Group
from experiments.reporting.mechanisms import effective_shares
from experiments.reporting.questions import LABELS
from experiments.reporting.series import over_epochs, relative_weights

_TAIL = "evidence-lt100-cifar10"
_DECAYS = {
    "wb-naive": "no decay",
    "ce": "decay 5e-4",
    "wb-wd": "decay 5e-3",
    "wb-one-stage": "one stage",
}


class Line(NamedTuple):
    """The runs behind a line."""

    label: str
    group: Group
    color: str


class Reason(NamedTuple):
    """A picture: its name, what it shows, its lines (if any were run), its drawing."""

    name: str
    caption: str
    lines: Callable[[Found], list[Line]]
    draw: Callable[[list[Line], Path], None]


def _embedded(found: Found) -> list[Line]:
    kinds = ("ce", "la", "elm-contrastive", "elm-spread")
    names = {f"{_TAIL}-{kind}": LABELS[kind] for kind in kinds}
    return _lines(found, names, "test/tightness_by_class")


def _embeddings(lines: list[Line], path: Path) -> None:
    """Tightness of classes by frequency, and how many anchors have a partner."""
    run = lines[0].group.counted[0]
    counts, size = np.asarray(run.facts["class_counts"]), run.config["batch_size"]
    order = np.argsort(-counts, kind="stable")
    ranks, counts = np.arange(len(counts)), counts[order]
    with plots.figure(path, "", figsize=(9.5, 3.8)) as fig:
        left, right = fig.subplots(1, 2)
        for label, group, color in lines:
            rows = [run.evaluated[-1] for run in group.counted]
            values = np.array([row["test/tightness_by_class"] for row in rows])
            plots.band(left, ranks, values[:, order], label, color=color, label=label)
        # Of the other images of a batch, none is of the class.
        alone = stats.hypergeom(counts.sum() - 1, counts - 1, size - 1).pmf(0)
        share = 100 * (1 - alone)
        right.plot(ranks, share, "o-", color=plots.GREY)
        left.set(title="spread within a class over distance between")
        right.set(title=f"anchors with a partner in a batch of {size}, %")
        left.legend()
        for ax in (left, right):
            ax.set_xticks(ranks[::3], counts[::3])
            ax.set_xlabel("training images of the class")
            ax.set_ylim(bottom=0)


def _decayed(found: Found) -> list[Line]:
    names = {f"{_TAIL}-{kind}": label for kind, label in _DECAYS.items()}
    return _lines(found, names, "train/fisher_ratio")


def _weight_balancing(lines: list[Line], path: Path) -> None:
    """Separation by epoch, cone by layer, norms by class, and both adjustments."""
    with plots.figure(path, "", figsize=(9.5, 7.2)) as fig:
        (fisher, cone), (norms, taus) = fig.subplots(2, 2)
        for label, group, color in lines:
            for split, style in (("train", "--"), ("test", "-")):
                epochs, values = over_epochs(group, f"{split}/fisher_ratio")
                plots.band(fisher, epochs, values, label, color=color, ls=style)
            fisher.plot([], [], color=color, label=label)
            _layers(group, label, color, cone, norms, taus)
        fisher.set(title="Fisher ratio: test solid, training set dashed")
        fisher.set_xlabel("epoch")
        fisher.legend()
        cone.set(title="cosine between classes; noise dotted")
        norms.set(title="norm of the classifier's rows", ylim=(0, None))
        norms.set_xlabel("class, by frequency")
        taus.set(title="balanced accuracy, %: additive solid,\nmultiplicative dashed")
        taus.set_xlabel("strength of the adjustment, tau")


def _layers(
    group: Group, label: str, color: str, cone: Axes, norms: Axes, taus: Axes
) -> None:
    """Draws what ``experiments.geometry`` measured of a group's runs."""
    measured = [found for run in group.counted if (found := _geometry(run.path))]
    if not measured:
        return
    depth = np.arange(len(measured[0]["layers"]))
    for key, style in (("cosine_between", "-"), ("cosine_noise", ":")):
        values = np.array([[row[key] for row in own["layers"]] for own in measured])
        plots.band(cone, depth, values, label, color=color, ls=style)
    cone.set_xticks(depth, [row["name"] for row in measured[0]["layers"]])
    sizes = np.array([own["classifier_norms"] for own in measured])
    order = np.argsort(-np.asarray(group.counted[0].facts["class_counts"]))
    plots.band(norms, np.arange(len(order)), sizes[:, order], label, color=color)
    for mode, style in (("additive", "-"), ("multiplicative", "--")):
        adjustments = [own["adjustment"] for own in measured]
        values = 100 * np.array([own[mode] for own in adjustments])
        x = np.array(adjustments[0]["taus"])
        plots.band(taus, x, values, label, color=color, ls=style)


def _weighed(found: Found) -> list[Line]:
    kinds = ("absgd", "gradtail-classifier", "l2rw", "mwnet", "gdw")
    names = {f"evidence-noise-human-{kind}": LABELS[kind] for kind in kinds}
    return _lines(found, names, "weights/changed_labels")


def _wrong_labels(lines: list[Line], path: Path) -> None:
    """Mean weight of right and of wrong labels by epoch."""
    keys = ("weights/unchanged_labels", "weights/changed_labels")
    with plots.panels(path, "", [line.label for line in lines], wide=True) as axes:
        for label, group, _ in lines:
            ax = axes[label]
            kinds = plots.RIGHT_AND_WRONG.items()
            for key, (name, style) in zip(keys, kinds, strict=True):
                epochs, values = relative_weights(group, key)
                plots.band(ax, epochs, values, name, label=name, **style)
            ax.set(title=label, ylim=(0, 1.05 * ax.get_ylim()[1]))
            plots.outer_labels(ax, "epoch", "mean weight")
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")


def _tempered(found: Found) -> list[Line]:
    names = {
        f"{_TAIL}-absgd": "long tail, from the start",
        f"{_TAIL}-absgd-two-stage": "long tail, two-stage",
        f"{_TAIL}-absgd-ldam": "long tail, on LDAM-DRW",
        "evidence-noise-human-absgd": "labels by people",
        "evidence-noise-unif40-absgd": "40% uniform noise",
    }
    return _lines(found, names, "weights/std")


def _effective_size(lines: list[Line], path: Path) -> None:
    """Effective sample size of the weights by epoch."""
    with plots.figure(path, "", figsize=(7.5, 3.8)) as fig:
        ax = fig.subplots()
        for label, group, color in lines:
            epochs, values = effective_shares(group)
            plots.band(ax, epochs, values, label, color=color, label=label)
        ax.set_ylim(0, 102)
        plots.outer_labels(ax, "epoch", "effective share of examples, %")
        ax.legend()


def _lines(found: Found, names: Mapping[str, str], key: str) -> list[Line]:
    """Those that were run, and have recorded a number, in colours of their own."""
    groups = {
        label: found[preset]
        for preset, label in names.items()
        if preset in found
        and all(key in run.evaluated[-1] for run in found[preset].counted)
    }
    colors = plots.colors([*groups])
    return [Line(label, group, colors[label]) for label, group in groups.items()]


def _geometry(folder: Path) -> dict[str, Any] | None:
    path = folder / "geometry.json"
    return json.loads(path.read_text()) if path.exists() else None


REASONS = (
    Reason(
        "embeddings",
        "Left: test embeddings after the last epoch; lower is tighter. Right: the "
        "expected share of a class's images that meet another of it in their batch.",
        _embedded,
        _embeddings,
    ),
    Reason(
        "weight-balancing",
        "Weight decay of three strengths, and the one-stage method, on CIFAR-10 of "
        "ratio 100. Bands are one standard deviation over seeds.",
        _decayed,
        _weight_balancing,
    ),
    Reason(
        "wrong-labels",
        "Labels by people: mean weight of right and of wrong ones by epoch; 1 is the "
        "mean of all.",
        _weighed,
        _wrong_labels,
    ),
    Reason(
        "effective-size",
        "How many examples ABSGD's weights leave, (sum w)^2 / sum w^2, by epoch.",
        _tempered,
        _effective_size,
    ),
)
