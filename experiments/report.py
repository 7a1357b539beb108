"""Turns runs into the tables and pictures of a paper.

    python -m experiments.report RUNS... --out DIR

RUNS are run folders of experiments.train, or folders of them. Runs whose settings
differ by seeds alone are averaged; runs on different data come in sections of their
own. Written to DIR: report.md, report.json and the pictures. Unfinished runs are taken
as they stand, and marked. See docs/reports.md.
"""

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table as RichTable

from experiments.configs import PRESETS, Published
from experiments.records.logs import write_json, write_text
from experiments.records.runs import (
    Group,
    RecordError,
    Run,
    Section,
    arrange,
    read_runs,
)
from experiments.reporting import figures as report_plots
from experiments.training.evaluation import REGIONS

_RULES = {
    "best": "best on validation",
    "last5": "mean of the last 5",
    "last": "last",
}
_SHARES = {
    "balanced_accuracy": "balanced",
    "many": "many",
    "medium": "medium",
    "few": "few",
    "accuracy": "accuracy",
    "top5_accuracy": "top-5",
    "ece": "ECE",
}
_ERRORS = {"mae": "MAE", "rmse": "RMSE", "geometric_mean": "GM"}
_LISTED = 10  # training examples of lowest, and of highest weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the command line sets."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")
    ]
    """Run folders, or folders of run folders."""
    out: Path = Path("report")
    """Folder for report.md, report.json and the pictures. Files of an earlier report in
    it are replaced."""


class Table(NamedTuple):
    """What is printed, and written as Markdown."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = tyro.cli(
        Arguments, prog="python -m experiments.report", description=__doc__, args=argv
    )
    try:
        report(arguments.runs, arguments.out)
    except RecordError as error:
        console = Console(stderr=True)
        console.print("[bold red]error[/] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def report(paths: Sequence[Path], out: Path) -> None:
    """Writes and prints a report on run folders.

    Raises:
      RecordError: if a folder is not one of runs, is broken, or if no run has been
        evaluated yet.
    """
    if not paths:
        raise RecordError("no run folder is given; --help says what to give.")
    runs = [run for path in paths for run in read_runs(path)]
    sections, notes = arrange(runs)
    if not sections:
        raise RecordError(" ".join(["there is nothing to report.", *notes]))
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    text = ["# Results", "", *_bullets(notes)]
    contents = []
    for section in sections:
        tables = _tables(section)
        pictures = _draw(section, out)
        contents.append(_contents(section, pictures))
        text += _markdown(section, tables, pictures)
        console.rule(section.title)
        for table in tables[:2]:
            console.print(_rich(table))
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    write_text(out / "report.md", "\n".join(text))
    write_json(out / "report.json", {"notes": notes, "sections": contents})
    console.print(
        f"written: {out / 'report.md'}, report.json and pictures", soft_wrap=True
    )


# Numbers


class Statistic(NamedTuple):
    """A number over seeds."""

    mean: float
    std: float | None  # None for a single run
    values: list[float]


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Statistic(float(np.mean(values)), std, [float(v) for v in values])


def results(group: Group, rule: str) -> dict[str, Statistic]:
    """Test metrics by a rule of selection; empty if some run lacks it.

    Names come without ``test/``, shares in percent.
    """
    rows = [run.selected.get(rule) for run in group.counted]
    if None in rows:
        return {}
    return {
        key.removeprefix("test/"): statistic([_scale(key) * row[key] for row in rows])
        for key, value in rows[0].items()
        if key.startswith("test/") and isinstance(value, (int, float))
        if all(key in row for row in rows)
    }


def throughput(run: Run) -> float | None:
    """Median over epochs of training examples per second, of all seeds of a program."""
    rates = [row["examples_per_second"] for row in run.rows]
    rates = [rate for rate in rates if rate is not None]
    if not rates:
        # Epochs of one block are not timed without compilation; the first has it all.
        rows = run.rows[1:]
        each = run.config["batch_size"] * run.config["seeds"]
        rates = [each * r["step"] / r["epoch"] / r["seconds"] for r in rows]
    return float(np.median(rates)) if rates else None


def published(group: Group) -> tuple[Published | None, str]:
    """The published number to compare with, and why it cannot quite be compared."""
    name = group.preset or ""
    preset = PRESETS.get(name.removesuffix("-small"))
    same = not name.endswith("-small") and not group.changed_settings
    return preset and preset.published, "" if same else "‡"


def _scale(key: str) -> float:
    name = key.removeprefix("test/").removeprefix("plain_")
    return 100.0 if name in _SHARES else 1.0


# Tables


def _tables(section: Section) -> list[Table]:
    """The first two are also printed."""
    if section.is_regression:
        return [_errors(section, rule) for rule in _rules(section)]
    details = [_details(section, rule) for rule in _rules(section)]
    return [_headline(section), *details]


def _rules(section: Section) -> list[str]:
    """All rules that some group has, that of the section first."""
    rules = [r for r in _RULES if any(results(g, r) for g in section.groups)]
    return sorted(rules, key=lambda rule: rule != section.rule)


def _headline(section: Section) -> Table:
    rules = [r for r in _RULES if r in _rules(section)]
    rows = []
    for group in section.groups:
        cells = [results(group, rule).get("balanced_accuracy") for rule in rules]
        number, mark = published(group)
        theirs = "" if number is None else f"{number.accuracy:.2f}{mark}"
        speed = _speed(group)
        rows.append([_name(group), *map(_cell, cells), theirs, speed])
    return Table(
        "Balanced test accuracy, %, by the epoch it is of",
        ["method (seeds)", *(_RULES[r] for r in rules), "published", "images/s"],
        rows,
    )


def _details(section: Section, rule: str) -> Table:
    found = [results(group, rule) for group in section.groups]
    keys = [key for key in _SHARES if any(key in f for f in found)]
    rows = [
        [_name(group), *(_cell(f.get(key)) for key in keys)]
        for group, f in zip(section.groups, found, strict=True)
    ]
    return Table(
        f"Test results, %, epoch: {_RULES[rule]}",
        ["method (seeds)", *(_SHARES[key] for key in keys)],
        rows,
    )


def _errors(section: Section, rule: str) -> Table:
    rows = []
    for group in section.groups:
        found = results(group, rule)
        for key, name in _ERRORS.items():
            regions = [found.get(key), *(found.get(f"{r}_{key}") for r in REGIONS)]
            first = key == "mae"
            speed = _speed(group) if first else ""
            label = _name(group) if first else ""
            rows.append([label, name, *map(_cell, regions), speed])
    return Table(
        f"Test errors by region of the target, epoch: {_RULES[rule]}",
        ["method (seeds)", "", "all", *REGIONS, "examples/s"],
        rows,
    )


def _name(group: Group) -> str:
    mark = "" if group.finished else "†"
    return f"{group.label}{mark} ({len(group.counted)})"


def _speed(group: Group) -> str:
    rates = [throughput(run) for run in group.counted]
    return "" if None in rates else f"{np.mean(rates):,.0f}"


def _cell(number: Statistic | None) -> str:
    if number is None:
        return ""
    digits = 2 if abs(number.mean) >= 1 else 4
    spread = "" if number.std is None else f" ± {number.std:.{digits}f}"
    return f"{number.mean:.{digits}f}{spread}"


def _rich(table: Table) -> RichTable:
    drawn = RichTable(title=table.title)
    for i, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


# What is written


def _draw(section: Section, out: Path) -> list[tuple[str, str]]:
    """Draws what there is to draw; returns file names and captions."""
    stem = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
    drawn = []
    for picture in report_plots.PICTURES:
        path = out / f"{stem}-{picture.name}.png"
        path.unlink(missing_ok=True)
        if picture.draw(section, path):
            drawn.append((path.name, picture.caption))
    return drawn


def _markdown(
    section: Section, tables: Sequence[Table], pictures: Sequence[tuple[str, str]]
) -> list[str]:
    lines = [f"## {section.title}", ""]
    for table in tables:
        lines += [f"**{table.title}**", "", *_grid(table.columns, table.rows), ""]
    lines += _bullets(_legend(section))
    lines += _weights_text(section)
    for name, caption in pictures:
        lines += [f"![{caption}]({name})", "", caption, ""]
    return [*lines, "### How the numbers came about", "", *_provenance(section)]


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    aligned = ["---", *("---:" for _ in columns[1:])]
    return ["| " + " | ".join(row) + " |" for row in (columns, aligned, *rows)]


def _bullets(lines: Sequence[str]) -> list[str]:
    return [*(f"- {line}" for line in lines), ""] if lines else []


def _legend(section: Section) -> list[str]:
    """Explains what the tables show."""
    lines = ["Mean ± sample standard deviation over seeds."]
    if section.facts["shots"] is not None:
        many, few = section.facts["shots"]
        lines.append(
            f"Many: classes with more than {many} training examples; few: fewer than "
            f"{few}."
        )
    if section.is_regression:
        lines.append(
            "Many, medium, few: regions of the target by how common it is in training. "
            "GM: geometric mean of absolute errors. Units are those of the target."
        )
    lines.append(
        "Speed: examples trained on in a second, median over epochs, without "
        "compilation and evaluation; seeds trained side by side count together."
    )
    if not all(group.finished for group in section.groups):
        lines.append("†: unfinished, as it stands.")
    found = {g.label: published(g) for g in section.groups if published(g)[0]}
    if any(mark for _, mark in found.values()):
        lines.append(
            "‡: published for other settings than those of the run; not comparable."
        )
    for label, (number, _) in found.items():
        chosen = f", {number.chosen}" if number.chosen else ""
        lines.append(
            f"Published for {label}: {number.source} ({number.network}{chosen})."
        )
    return lines


def _provenance(section: Section) -> list[str]:
    lines = []
    for group in section.groups:
        facts = group.runs[0].facts
        changed = (
            f"{k} {_plain(here)} (preset: {_plain(there)})"
            for k, (here, there) in sorted(group.changed_settings.items())
        )
        versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
        lines += [f"**{group.label}**", ""]
        lines += _bullets(
            [
                f"preset {group.preset}; changed: {', '.join(changed) or 'nothing'}",
                f"seeds {', '.join(str(run.seeds[0]) for run in group.runs)}; split "
                + ", ".join(sorted({run.facts["digest"][:12] for run in group.runs})),
                f"device {_device(facts)}; {versions}",
                "commit "
                + ", ".join(sorted({str(run.facts["commit"]) for run in group.runs})),
                "runs " + " ".join(shlex.quote(str(run.path)) for run in group.runs),
            ]
        )
    return lines


def _device(facts: dict[str, Any]) -> str:
    device = facts["device"]
    cores = f", {device['cpu_cores']} cores" if device["platform"] == "cpu" else ""
    return f"{device['count']} x {device['kind']}{cores}"


def _plain(value: Any) -> str:
    return json.dumps(value)


def _weights_text(section: Section) -> list[str]:
    """Training examples by weight, for every method that exported weights."""
    lines = []
    for group in section.groups:
        found = _extremes(group)
        if found:
            rows = [[f"{v:.5g}" for v in row.values()] for row in found]
            seed = group.counted[0].seeds[0]
            lines += [
                f"**Training examples of lowest and highest weight: {group.label}, "
                f"seed {seed}**",
                "",
                *_grid(list(found[0]), rows),
                "",
            ]
    return lines


def _extremes(group: Group) -> list[dict[str, float]]:
    """The first and the last examples by rising weight, in the first run."""
    run = group.counted[0]
    if run.weights is None or group.config["method"]["weighting"]["name"] == "none":
        return []
    w = run.weights
    order, _ = report_plots.ranking(run)
    order = order[np.isfinite(w["weights"][order])]
    ranks = range(len(order))
    shown = dict.fromkeys([*ranks[:_LISTED], *ranks[-_LISTED:]])
    columns = {"index": "indices", "weight": "weights", "label": "labels"}
    if w["changed"].any():
        columns["clean label"] = "clean_labels"
    return [
        {"rank": i + 1} | {k: w[v][order[i]].item() for k, v in columns.items()}
        for i in shown
    ]


def _contents(section: Section, pictures: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A section as JSON."""
    return {
        "title": section.title,
        "data": section.facts["config"]["data"],
        "class_counts": section.facts["class_counts"],
        "pictures": [name for name, _ in pictures],
        "methods": [_method(group) for group in section.groups],
    }


def _method(group: Group) -> dict[str, Any]:
    number, mark = published(group)
    return {
        "label": group.label,
        "preset": group.preset,
        "changed_settings": {
            k: here for k, (here, _) in group.changed_settings.items()
        },
        "finished": group.finished,
        "seeds": [run.seeds[0] for run in group.counted],
        "results": {
            rule: {k: s._asdict() for k, s in results(group, rule).items()}
            for rule in (*_RULES, "parity")
            if results(group, rule)
        },
        "examples_per_second": [throughput(run) for run in group.counted],
        "published": None
        if number is None
        else number._asdict() | {"comparable": not mark},
        "example_weights": _extremes(group),
        "runs": [
            {"path": str(run.path), "seed": run.seeds[0], "finished": run.finished}
            | {k: run.facts[k] for k in ("device", "versions", "commit", "digest")}
            for run in group.runs
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
