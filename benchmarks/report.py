"""Tables for the terminal and for Markdown, and the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from benchmarks.overhead import Overhead
from benchmarks.results import Cell
from benchmarks.steps import METHODS
from benchmarks.targets import HOST_OVERHEAD, PEER_SPEEDUP, target

_HEADER = (
    "method",
    "wall",
    "quartiles",
    "CPU time",
    "FLOPs",
    "temp. memory",
    "compile, s",
)
_INK = "#222222"
# Okabe and Ito's palette, told apart by shape as well.
_MARKS = (
    ("wall", "wall_ratio", "#0072B2", "o"),
    ("FLOPs", "flops_ratio", "#E69F00", "D"),
    ("memory", "memory_ratio", "#009E73", "^"),
)


def _figure(value: float | None, bound: float | None = None) -> str:
    """A ratio, and whether it meets its target."""
    if value is None:
        return "-"
    if bound is None:
        return f"{value:.2f}"
    return f"{value:.2f} ≤{bound:g} {'✓' if value <= bound else '✗'}"


def _row(cell: Cell) -> tuple[str, ...]:
    label = METHODS[cell.method].label
    bounds = target(cell.method, cell.model)
    if cell.method == "sgd":
        wall = f"{1e3 * cell.seconds:.3g} ms"
        flops = "-" if cell.flops is None else f"{cell.flops / 1e9:.3g} G"
        memory = f"{cell.temporary_bytes / 1e6:.3g} MB"
        return (label, wall, "", "", flops, memory, f"{cell.compile_seconds:.1f}")
    return (
        label,
        _figure(cell.wall_ratio, bounds.wall),
        f"{cell.wall_low:.2f}-{cell.wall_high:.2f}",
        _figure(cell.cpu_ratio),
        _figure(cell.flops_ratio, bounds.flops),
        _figure(cell.memory_ratio, bounds.memory),
        f"{cell.compile_seconds:.1f}",
    )


def _groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(f"{cell.model}, {cell.dtype}", []).append(cell)
    return found


def _print(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(_coloured(text) for text in row))
    console.print(table)


def _coloured(text: str) -> str:
    return text.replace("✓", "[green]✓[/]").replace("✗", "[bold red]✗[/]")


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def print_table(console: Console, cells: Sequence[Cell]) -> None:
    """One table for each model and dtype."""
    for name, group in _groups(cells).items():
        rounds = group[0].rounds
        title = f"{name}: ratio to plain SGD, {rounds} rounds"
        _print(console, title, _HEADER, [_row(c) for c in group])


_EXACTNESS_HEADER = ("model", "dots", "norms", "weighted gradient")
_EXACTNESS_TITLE = "Largest error against float64, relative to the largest value"


def _exactness_rows(exact: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    return [
        [
            name,
            *(f"{e[k]:.1e}" for k in ("dots", "norms", "gradient")),
        ]
        for name, e in exact.items()
    ]


def print_exactness(console: Console, exact: Mapping[str, Mapping[str, float]]) -> None:
    """Errors of the Jacobian's products."""
    _print(console, _EXACTNESS_TITLE, _EXACTNESS_HEADER, _exactness_rows(exact))


_HOST_HEADER = ("method", "dispatch, µs", "ratio", "step, µs", "ratio ")
_HOST_TITLE = "Host overhead: a step of a tiny model, and the dispatch of its call"


def _host_rows(host: Mapping[str, Overhead]) -> list[list[str]]:
    return [
        [
            METHODS[name].label,
            f"{1e6 * o.dispatch.seconds:.0f}",
            "" if name == "sgd" else _figure(o.dispatch.ratio, HOST_OVERHEAD),
            f"{1e6 * o.step.seconds:.0f}",
            "" if name == "sgd" else _figure(o.step.ratio, HOST_OVERHEAD),
        ]
        for name, o in host.items()
    ]


def print_host(console: Console, host: Mapping[str, Overhead]) -> None:
    """Steps of a tiny model."""
    _print(console, _HOST_TITLE, _HOST_HEADER, _host_rows(host))


def markdown(
    cells: Sequence[Cell],
    exact: Mapping[str, Mapping[str, float]],
    host: Mapping[str, Overhead],
) -> str:
    """The tables for a document."""
    parts = [
        f"### {name}\n\n" + _markdown_table(_HEADER, [_row(c) for c in group])
        for name, group in _groups(cells).items()
    ]
    parts += [
        f"### {_EXACTNESS_TITLE}\n\n"
        + _markdown_table(_EXACTNESS_HEADER, _exactness_rows(exact)),
        f"### {_HOST_TITLE}\n\n" + _markdown_table(_HOST_HEADER, _host_rows(host)),
    ]
    return "\n".join(parts)


def print_peers(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Steps of other libraries and here."""
    for model in dict.fromkeys(row["model"] for row in rows):
        group = [row for row in rows if row["model"] == model]
        _print(
            console,
            f"{model}: one training step",
            (
                "framework",
                "step",
                "ms",
                "ratio to its own SGD",
                "memory",
                "times as fast",
            ),
            [
                (
                    row["framework"],
                    row["step"],
                    f"{1e3 * row['seconds']:.3g}",
                    f"{row['ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f})",
                    "" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}",
                    _speedup(row),
                )
                for row in group
            ],
        )


def _speedup(row: Mapping[str, Any]) -> str:
    """How much faster our counterpart of a peer's step is, and GDW's target."""
    speedup = row["speedup_of_ltjax"]
    if speedup is None:
        return ""
    if row["step"].startswith("GDW"):
        met = "✓" if speedup >= PEER_SPEEDUP else "✗"
        return f"{speedup:.2f} ≥{PEER_SPEEDUP:g} {met}"
    return f"{speedup:.2f}"


def print_scaling(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Collectives by number of devices."""
    _print(
        console,
        "Collectives in the compiled step",
        ("method", "devices", "gradients", "at most", "others", "numbers in each"),
        [
            (
                METHODS[row["method"]].label,
                str(row["devices"]),
                str(row["gradients"]),
                f"{row['bound']} {'✓' if row['met'] else '✗'}",
                str(row["others"]),
                f"≤{row['largest_other']}",
            )
            for row in rows
        ],
    )


def print_device(
    console: Console, roofs: Mapping[str, float], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Absolute times."""
    console.print(
        "Roofs measured here: "
        + ", ".join(
            f"{k} {v / 1e12:.3g} T{'B' if k == 'memory' else 'FLOP'}/s"
            for k, v in roofs.items()
        )
    )
    for name in dict.fromkeys((r["model"], r["dtype"]) for r in rows):
        group = [r for r in rows if (r["model"], r["dtype"]) == name]
        _print(
            console,
            ", ".join(name),
            (
                "method",
                "batch",
                "ms",
                "images/s",
                "ratio to SGD",
                "of FLOP/s",
                "of bytes/s",
            ),
            [
                (
                    METHODS[r["method"]].label,
                    str(r["batch"]),
                    f"{1e3 * r['seconds']:.3g}",
                    f"{r['images_per_second']:.4g}",
                    f"{r['ratio']:.2f}",
                    *(
                        "-" if r[key] is None else f"{r[key]:.0%}"
                        for key in ("flops_share", "bytes_share")
                    ),
                )
                for r in group
            ],
        )


def draw(cells: Sequence[Cell], path: Path) -> None:
    """One panel for each model and dtype: ratios, and ticks where targets are."""
    mpl.use("Agg")
    groups = _groups(cells)
    names = [n for n in METHODS if n != "sgd" and any(c.method == n for c in cells)]
    columns = min(len(groups), 4)
    lines = -(-len(groups) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(2.4 + 3.0 * columns, (1.3 + 0.36 * len(names)) * lines),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(groups) :]:
        ax.set_visible(False)
    for ax, (title, group) in zip(axes.flat, groups.items(), strict=False):
        _panel(ax, title, group, names)
    handles = [
        plt.Line2D([], [], color=c, marker=m, linestyle="", label=label)
        for label, _, c, m in _MARKS
    ]
    handles.append(
        plt.Line2D([], [], color=_INK, marker="|", linestyle="", ms=11, label="target")
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    figure.supxlabel("ratio to a plain SGD step of the same model", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _panel(ax: Any, title: str, group: Sequence[Cell], names: Sequence[str]) -> None:
    """Wall, FLOPs and memory of each method on three thin lines."""
    ax.set_title(title, fontsize=10)
    ax.axvline(1, color="#999999", linewidth=1, zorder=0)
    found = {c.method: c for c in group}
    for i, name in enumerate(names):
        ax.axhspan(i - 0.5, i + 0.5, color="#f4f4f4" if i % 2 else "white", zorder=-1)
        cell = found.get(name)
        if cell is None:
            continue
        bounds = target(name, cell.model)
        for (_, field, color, marker), bound, offset in zip(
            _MARKS,
            (bounds.wall, bounds.flops, bounds.memory),
            (-0.26, 0, 0.26),
            strict=True,
        ):
            y, value = i + offset, getattr(cell, field)
            if bound is not None:
                ax.plot(bound, y, "|", color=_INK, markersize=8, zorder=2)
            if value is not None:
                ax.plot(value, y, marker, color=color, markersize=5, zorder=3)
        ax.plot(
            [cell.wall_low, cell.wall_high],
            [i - 0.26] * 2,
            color=_MARKS[0][2],
            linewidth=1.5,
        )
    ax.set_yticks(range(len(names)), [METHODS[n].label for n in names], fontsize=9)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.spines[["top", "right"]].set_visible(False)
