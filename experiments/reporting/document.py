"""A report on disk: Markdown, JSON and pictures."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.reporting.figures import PICTURES
from experiments.reporting.groups import Group, Section
from experiments.reporting.mechanisms import MECHANISMS
from experiments.reporting.numbers import (
    RULES,
    extremes,
    published,
    results,
    throughput,
)
from experiments.reporting.tables import Table


def draw(section: Section, out: Path) -> list[tuple[str, str]]:
    """Draws what there is to draw; returns file names and captions."""
    stem = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
    drawn = []
    for picture in (*PICTURES, *MECHANISMS):
        path = out / f"{stem}-{picture.name}.png"
        path.unlink(missing_ok=True)
        if picture.draw(section, path):
            drawn.append((path.name, picture.caption))
    return drawn


def markdown(
    section: Section, tables: Sequence[Table], pictures: Sequence[tuple[str, str]]
) -> list[str]:
    """The lines of a section."""
    lines = [f"## {section.title}", ""]
    for table in tables:
        lines += [f"**{table.title}**", "", *grid(table.columns, table.rows), ""]
    lines += bullets(legend(section))
    lines += _weights_text(section)
    for name, caption in pictures:
        lines += [f"![{caption}]({name})", "", caption, ""]
    lines += ["### How the numbers came about", ""]
    for group in section.groups:
        lines += [f"**{group.label}**", "", *bullets(provenance(group))]
    return lines


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    aligned = ["---", *("---:" for _ in columns[1:])]
    return ["| " + " | ".join(row) + " |" for row in (columns, aligned, *rows)]


def bullets(lines: Sequence[str]) -> list[str]:
    """A Markdown list and the empty line behind it."""
    return [*(f"- {line}" for line in lines), ""] if lines else []


def legend(section: Section) -> list[str]:
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
    found = [(group.label, *published(group)) for group in section.groups]
    if any(mark for _, number, mark in found if number is not None):
        lines.append(
            "‡: published for other settings than those of the run; not comparable."
        )
    for label, number, _ in found:
        if number is None:
            continue
        chosen = f", {number.chosen}" if number.chosen else ""
        lines.append(
            f"Published for {label}: {number.source} ({number.network}{chosen})."
        )
    return lines


def provenance(group: Group) -> list[str]:
    """How the numbers of a method came about, in lines."""
    facts = group.runs[0].facts
    changed = (
        f"{k} {json.dumps(here)} (preset: {json.dumps(there)})"
        for k, (here, there) in sorted(group.changed_settings.items())
    )
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    return [
        f"preset {group.preset}; changed: {', '.join(changed) or 'nothing'}",
        f"seeds {', '.join(str(run.seeds[0]) for run in group.runs)}; split "
        + ", ".join(sorted({run.facts["digest"][:12] for run in group.runs})),
        f"device {_device(facts)}; {versions}",
        "commit " + ", ".join(sorted({str(run.facts["commit"]) for run in group.runs})),
        "runs " + " ".join(shlex.quote(str(run.path)) for run in group.runs),
    ]


def _device(facts: dict[str, Any]) -> str:
    device = facts["device"]
    cores = f", {device['cpu_cores']} cores" if device["platform"] == "cpu" else ""
    return f"{device['count']} x {device['kind']}{cores}"


def _weights_text(section: Section) -> list[str]:
    """Training examples by weight, for every method that exported weights."""
    lines = []
    for group in section.groups:
        found = extremes(group)
        if found:
            rows = [[f"{v:.5g}" for v in row.values()] for row in found]
            seed = group.counted[0].seeds[0]
            lines += [
                f"**Training examples of lowest and highest weight: {group.label}, "
                f"seed {seed}**",
                "",
                *grid(list(found[0]), rows),
                "",
            ]
    return lines


def contents(section: Section, pictures: Sequence[tuple[str, str]]) -> dict[str, Any]:
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
            for rule in (*RULES, "parity")
            if results(group, rule)
        },
        "examples_per_second": [throughput(run) for run in group.counted],
        "published": None
        if number is None
        else number._asdict() | {"comparable": not mark},
        "example_weights": extremes(group),
        "runs": [
            {"path": str(run.path), "seed": run.seeds[0], "finished": run.finished}
            | {k: run.facts[k] for k in ("device", "versions", "commit", "digest")}
            for run in group.runs
        ],
    }
