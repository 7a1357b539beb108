"""Pictures of runs: plain arrays in, a PNG out.

Every method keeps its colour in all pictures. Where there are many methods, each has a
panel of its own with the baseline in grey behind it, so that nothing overlaps.
"""

import contextlib
import math
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.colors
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#6b6b6b"
# Paul Tol's muted scheme, made for colour-blind readers.
_COLORS = (
    *("#332288", "#CC6677", "#117733", "#AA4499", "#44AA99"),
    *("#882255", "#88CCEE", "#999933", "#DDCC77"),
)
_METHODS = (
    *("ABSGD", "GradTail", "GDW", "MW-Net", "ELM", "Weight balancing"),
    *("CE + clean set", "Class-balanced CE", "Logit adjustment"),
)
_KNOWN = {
    "CE": GREY,
    "MSE": GREY,
    "Squared error": GREY,
    **dict(zip(_METHODS, _COLORS, strict=True)),
}
RIGHT_AND_WRONG: dict[str, dict[str, Any]] = {
    "right label": {"color": "#0077BB", "ls": "-"},
    "wrong label": {"color": "#EE7733", "ls": "--"},
}
Curve = tuple[np.ndarray, np.ndarray]  # epochs [T], values [seeds, T]
Styles = Mapping[str, Mapping[str, Any]]  # of lines
_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.titlesize": 14,
    "figure.dpi": 150,
}


def color(label: str) -> str:
    """The colour of a method; unknown ones are assigned by name."""
    return _KNOWN.get(label) or _COLORS[sum(map(ord, label)) % len(_COLORS)]


def colors(labels: Sequence[str]) -> dict[str, str]:
    """Colours for methods in one panel: different ones, as long as there are any."""
    known = {label: _KNOWN[label] for label in labels if label in _KNOWN}
    free = (shade for shade in _COLORS if shade not in known.values())
    return {label: known.get(label) or next(free, GREY) for label in labels}


def shades(count: int) -> list[str]:
    """Colours of classes, or groups of these, the most frequent first."""
    scale = plt.get_cmap("viridis")(np.linspace(0, 0.9, count))
    return [matplotlib.colors.to_hex(shade) for shade in scale]


def summary(
    path: Path, values: Mapping[str, np.ndarray], *, title: str, xlabel: str
) -> None:
    """One row per method, best on top: every seed a dot, mean and standard deviation.

    ``values``: for each label, ``[seeds]``.
    """
    order = sorted(values, key=lambda label: values[label].mean())
    height = 1.6 + 0.42 * len(order)
    with figure(path, title, figsize=(8.5, height)) as fig:
        ax = fig.subplots()
        dots(ax, values, order, std)
        if "CE" in values:
            ax.axvline(np.mean(values["CE"]), color=GREY, ls="--", lw=1, zorder=1)
        ax.set(xlabel=xlabel)


def dots(
    ax: Axes,
    values: Mapping[str, np.ndarray],
    order: Sequence[str],
    spread: Callable[[np.ndarray], np.ndarray],
) -> None:
    """A row for each label, the last on top: seeds, their mean, and its error bar."""
    for row, label in enumerate(order):
        if label not in values:
            continue
        own = np.asarray(values[label])
        style: dict[str, Any] = {"color": color(label), "zorder": 3}
        ax.plot(own, np.full(own.size, row - 0.2), "o", ms=3.5, alpha=0.5, **style)
        ax.errorbar(
            own.mean(), row + 0.1, xerr=spread(own), fmt="o", ms=8, lw=2.5, **style
        )
        ax.annotate(
            f"{own.mean():.{int(own.mean() < 1000)}f}",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
        )
    ax.set(yticks=range(len(order)), yticklabels=order)
    ax.set_ylim(-0.6, len(order) - 0.4)
    ax.grid(axis="y", visible=False)


def comparisons(
    path: Path,
    values: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str,
    xlabel: str,
    baseline: str,
) -> None:
    """A panel per data set, a row per method: seeds, mean and standard error.

    ``values``: for each set and label, ``[seeds]``.
    """
    labels = list(dict.fromkeys(label for own in values.values() for label in own))
    columns = min(len(values), 3)
    rows = math.ceil(len(values) / columns)
    size = 3.2 + 3.2 * columns, 0.6 + rows * (1.0 + 0.36 * len(labels))
    with figure(path, title, figsize=size) as fig:
        axes = fig.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        fig.set_layout_engine("constrained", w_pad=0.15)  # numbers beside their panel
        for ax in axes[len(values) :]:
            ax.remove()
        for ax, (name, own) in zip(axes, values.items(), strict=False):
            dots(ax, own, labels[::-1], lambda x: std(x) / len(x) ** 0.5)
            if baseline in own:
                ax.axvline(np.mean(own[baseline]), color=GREY, ls="--", lw=1, zorder=1)
            ax.set(title=name)
            ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        fig.supxlabel(xlabel)


def by_frequency(
    path: Path,
    values: Mapping[str, np.ndarray],
    counts: Sequence[str],
    *,
    title: str,
    ylabel: str,
    top: float | None = None,
    baseline: str = "CE",
) -> None:
    """A number of each class, the most frequent first; the band is one std over seeds.

    ``values``: for each label, ``[seeds, C]``, classes by frequency.
    """
    x = np.arange(len(counts))
    with panels(path, title, values, baseline=baseline) as axes:
        for label, ax in axes.items():
            for name in dict.fromkeys((baseline, label)):
                if name in values:
                    band(ax, x, values[name], name, marker="o", ms=3)
            ax.set(title=label)
            ax.set_xticks(x[::3], counts[::3])
            outer_labels(ax, "training images of the class", ylabel)
        ax.set_ylim(0, top)
        _legend(ax, {}, values, baseline)


def weights_over_time(
    path: Path,
    weights: Mapping[str, np.ndarray],
    counts: Sequence[str],
    *,
    title: str,
) -> None:
    """Mean weight of each class by epoch, relative to the mean over all examples.

    ``weights``: for each label, ``[epochs, C]``.
    """
    drawn = shades(len(counts))
    with panels(path, title, weights, wide=True) as axes:
        for label, ax in axes.items():
            own = np.asarray(weights[label])
            for c, shade in enumerate(drawn):
                ax.plot(np.arange(1, len(own) + 1), own[:, c], color=shade, lw=1.6)
            ax.axhline(1, color=GREY, lw=1, ls="--", zorder=1)
            ax.set(title=label)
            low, high = np.nanmin(own), np.nanmax(own)
            ax.set_ylim(min(low, 0.8) / 1.05, max(high, 1.25) * 1.05)
            log_axis(ax)
            outer_labels(ax, "epoch", "weight, mean of the class")
        handles = [plt.Line2D([], [], color=s, lw=3) for s in drawn]
        next(iter(axes.values())).figure.legend(
            handles,
            list(counts),
            title="training images\nof the class",
            loc="outside right center",
        )


def curves(
    path: Path,
    data: Mapping[str, Mapping[str, Curve]],
    *,
    title: str,
    ylabel: str,
    styles: Styles,
    baseline: str = "",
    log: bool = False,
    wide: bool = False,
) -> None:
    """A panel per method with lines by epoch: mean over seeds, band of one std.

    ``data``: for each label, its lines; ``styles``: of these lines. ``wide`` gives each
    panel a scale of its own, from 0.
    """
    with panels(path, title, data, baseline=baseline, wide=wide) as axes:
        for label, ax in axes.items():
            for name in dict.fromkeys((baseline, label)):
                for line, (epochs, values) in data.get(name, {}).items():
                    marker = {"marker": "o", "ms": 4} if len(epochs) == 1 else {}
                    band(ax, epochs, values, name, log=log, **styles[line], **marker)
            ax.set(title=label)
            if wide:
                ax.set_ylim(bottom=0)
            outer_labels(ax, "epoch", ylabel)
        if log:
            log_axis(ax)
        _legend(ax, styles if len(styles) > 1 else {}, data, baseline)


def _legend(ax: Axes, styles: Styles, labels: Collection[str], baseline: str) -> None:
    """Beside the panels: kinds of lines, and the baseline if others are there."""
    handles = {}
    for name, style in styles.items():
        line: dict[str, Any] = {"color": "k", "lw": 2, **style}
        handles[name] = plt.Line2D([], [], **line)
    if baseline in labels and len(labels) > 1:
        handles[baseline] = plt.Line2D([], [], color=color(baseline), lw=3)
    if handles:
        ax.figure.legend(
            list(handles.values()), list(handles), loc="outside right center"
        )


@contextlib.contextmanager
def figure(path: Path, title: str, *, figsize: tuple[float, float]) -> Iterator[Figure]:
    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=figsize, layout="constrained")
        # A letter of this size is about a tenth of an inch wide.
        figure.suptitle(textwrap.fill(title, round(10 * figsize[0])))
        try:
            yield figure
            figure.savefig(path)
        finally:
            plt.close(figure)


@contextlib.contextmanager
def panels(
    path: Path, title: str, labels, *, baseline: str | None = None, wide: bool = False
) -> Iterator[dict[str, Axes]]:
    """A panel for every label but the baseline, which is in all of them."""
    names = [label for label in labels if label != baseline] or list(labels)
    columns = min(len(names), 2 if len(names) == 4 else 3)
    rows = math.ceil(len(names) / columns)
    size = max(3.4 * columns + 1.6, 6.5), 2.5 * rows + 0.9
    with figure(path, title, figsize=size) as fig:
        grid = fig.subplots(rows, columns, sharex=True, sharey=not wide, squeeze=False)
        for ax in grid.flat[len(names) :]:
            ax.remove()
        for column, ax in enumerate(grid[-1]):
            if ax.figure is None and rows > 1:
                grid[-2, column].xaxis.set_tick_params(labelbottom=True)
        yield dict(zip(names, grid.flat, strict=False))


def band(
    ax: Axes,
    x: np.ndarray,
    values: np.ndarray,
    name: str,
    *,
    log: bool = False,
    **style: Any,
) -> None:
    """Mean over the first axis with a band of one standard deviation.

    ``name`` chooses the colour where ``style``, of the line, does not.
    """
    line: dict[str, Any] = {"color": color(name), "lw": 1.8, **style}
    values = np.log(np.maximum(values, 1e-8)) if log else values
    mean, spread = values.mean(0), std(values)
    low, high = mean - spread, mean + spread
    if log:
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    ax.fill_between(x, low, high, color=line["color"], alpha=0.18, lw=0)
    ax.plot(x, mean, **line)


def std(values: np.ndarray) -> np.ndarray:
    """Over the first axis; 0 for a single value."""
    return values.std(0, ddof=1) if len(values) > 1 else 0 * values[0]


def outer_labels(ax: Axes, xlabel: str, ylabel: str) -> None:
    """Axis labels of the outer panels only, beside tick labels; epochs are whole."""
    if ax.xaxis.get_tick_params().get("labelbottom", True):
        ax.set_xlabel(xlabel)
    place = ax.get_subplotspec()
    if place is None or place.is_first_col():
        ax.set_ylabel(ylabel)
    if xlabel == "epoch":
        ax.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(5, integer=True, min_n_ticks=1)
        )


def log_axis(ax: Axes) -> None:
    """Makes the vertical axis, and those sharing it, logarithmic with plain numbers."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 4 * low:
        locator: matplotlib.ticker.Locator = matplotlib.ticker.MaxNLocator(5)
    else:
        steps = (1, 2, 5) if high < 1e3 * low else (1,)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [step * 10.0**k for k in decades for step in steps]
        locator = matplotlib.ticker.FixedLocator(ticks)
    ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
