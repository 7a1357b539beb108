"""Charts that answer to the pointer: arrays in, Bokeh models out.

Bokeh, because its scripts can be written into the page whole, its tables sort and its
charts hover without a line of script of our own, and it is released every few months.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from bokeh.models import (
    BasicTicker,
    BasicTickFormatter,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    Range1d,
)
from bokeh.models.renderers import DataRenderer, GlyphRenderer
from bokeh.plotting import figure

from experiments.reporting import plots
from experiments.reporting.series import known_mean

FONT = "system-ui, sans-serif"


class Chart(NamedTuple):
    """A chart, with the colours of its lines by name."""

    title: str
    figure: figure
    key: Mapping[str, str]


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    color: str
    x: Sequence[float] | np.ndarray  # [T]
    y: np.ndarray  # [T]
    spread: np.ndarray | None = None  # [T], said beside y


def of_methods(
    title: str, data: Mapping[str, plots.Curve], *, xlabel: str, ylabel: str, **axes
) -> Chart:
    """A line for each method: mean over seeds, and standard deviation when asked."""
    key = plots.colors(list(data))
    lines = [
        Line(label, key[label], x, known_mean(values), plots.std(values))
        for label, (x, values) in data.items()
    ]
    drawn = chart(lines, names="method", xlabel=xlabel, ylabel=ylabel, **axes)
    return Chart(title, drawn, key)


def of_classes(
    title: str,
    names: Sequence[str],
    epochs: np.ndarray,
    values: np.ndarray,
    *,
    ylabel: str,
    **axes,
) -> Chart:
    """A line by epoch for each column of ``values``, which is ``[T, classes]``."""
    key = dict(zip(names, plots.shades(len(names)), strict=True))
    lines = [
        Line(n, key[n], epochs, own) for n, own in zip(names, values.T, strict=True)
    ]
    drawn = chart(lines, names="class", xlabel="epoch", ylabel=ylabel, **axes)
    return Chart(title, drawn, key)


def chart(
    lines: Sequence[Line],
    *,
    names: str,
    xlabel: str,
    ylabel: str,
    ticks: Sequence[str] = (),
    top: float | None = None,
    log: bool = False,
) -> figure:
    """Lines that say under the pointer which one it is, where, and its value.

    Args:
      lines: what is drawn.
      names: what the names of the lines are names of.
      xlabel: of the horizontal axis.
      ylabel: of the vertical axis.
      ticks: names of the places 0, 1, ... of the horizontal axis, if it has some.
      top: end of the vertical axis, which then begins at 0.
      log: whether the vertical axis is logarithmic, for values around 1.
    """
    plot = figure(
        height=360 if ticks else 300,
        sizing_mode="stretch_width",
        x_axis_label=xlabel,
        y_axis_label=ylabel,
        y_axis_type="log" if log else "linear",
        tools="box_zoom,reset",
        toolbar_location="above",
    )
    drawn: list[DataRenderer] = [_draw(plot, line, ticks) for line in lines]
    plot.add_tools(
        HoverTool(
            renderers=drawn,
            line_policy="nearest",
            tooltips=[(names, "@name"), (xlabel, "@place"), (ylabel, "@value")],
        )
    )
    # A finger on the chart moves the page; the pointer zooms once the tool is chosen.
    plot.toolbar.active_drag = None
    plot.toolbar.logo = None
    if ticks:
        every = range(0, len(ticks), -(-len(ticks) // 10))
        plot.xaxis.ticker = FixedTicker(ticks=list(every))
        plot.xaxis.major_label_overrides = dict(enumerate(ticks))
        plot.xaxis.major_label_orientation = 0.8
    else:
        plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    if top is not None:
        plot.y_range = Range1d(start=0, end=top)
    if log:
        low, high = _around_one(lines)
        plot.y_range = Range1d(start=low, end=high)
        plot.yaxis.formatter = BasicTickFormatter()
        if high < 4 * low:
            plot.yaxis.ticker = BasicTicker()
    _dress(plot)
    return plot


def _around_one(lines: Sequence[Line]) -> tuple[float, float]:
    """Ends of an axis that holds the lines, and 1 not at its edge."""
    values = np.concatenate([line.y for line in lines])
    low, high = min(np.nanmin(values), 0.8), max(np.nanmax(values), 1.25)
    return low / 1.05, high * 1.05


def _draw(plot: figure, line: Line, ticks: Sequence[str]) -> GlyphRenderer:
    source = ColumnDataSource(
        {
            "x": list(line.x),
            "y": np.asarray(line.y, np.float64),
            "name": [line.name] * len(line.x),
            "place": [ticks[int(x)] if ticks else f"{x:g}" for x in line.x],
            "value": _values(line),
        }
    )
    if len(line.x) == 1:
        return plot.scatter("x", "y", source=source, size=8, color=line.color)
    drawn = plot.line("x", "y", source=source, line_width=2, color=line.color)
    drawn.hover_glyph = drawn.glyph.clone(line_width=4)
    return drawn


def _values(line: Line) -> list[str]:
    if line.spread is None or not np.any(line.spread):
        return [f"{y:.4g}" for y in line.y]
    return [f"{y:.4g} ± {s:.2g}" for y, s in zip(line.y, line.spread, strict=True)]


def _dress(plot: figure) -> None:
    """Quiet axes with plain numbers."""
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.axis_line_color = axis.major_tick_line_color = plots.GREY
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = "#e5e5e5"
    plot.outline_line_color = None
