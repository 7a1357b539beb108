"""Tables of a report, printed and written as Markdown alike."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table as RichTable

from experiments.records.epochs import REGIONS
from experiments.reporting.groups import Group, Section
from experiments.reporting.numbers import (
    ERRORS,
    RULES,
    SHARES,
    Statistic,
    published,
    results,
    throughput,
)

_NUMBER = re.compile(r"[+-]?\d[\d,]*\.?\d*(e[+-]?\d+)?")


class Table(NamedTuple):
    """What is printed, and written as Markdown."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(section: Section) -> list[Table]:
    """The first two are also printed."""
    if section.is_regression:
        return [_errors(section, rule) for rule in _rules(section)]
    details = [_details(section, rule) for rule in _rules(section)]
    return [_headline(section), *details]


def _rules(section: Section) -> list[str]:
    """All rules that some group has, that of the section first."""
    rules = [r for r in RULES if any(results(g, r) for g in section.groups)]
    return sorted(rules, key=lambda rule: rule != section.rule)


def _headline(section: Section) -> Table:
    rules = [r for r in RULES if r in _rules(section)]
    rows = []
    for group in section.groups:
        cells = [results(group, rule).get("balanced_accuracy") for rule in rules]
        number, mark = published(group)
        theirs = "" if number is None else f"{number.accuracy:.2f}{mark}"
        speed = _speed(group)
        rows.append([_name(group), *map(_cell, cells), theirs, speed])
    return Table(
        "Balanced test accuracy, %, by the epoch it is of",
        ["method (seeds)", *(RULES[r] for r in rules), "published", "images/s"],
        rows,
    )


def _details(section: Section, rule: str) -> Table:
    found = [results(group, rule) for group in section.groups]
    keys = [key for key in SHARES if any(key in f for f in found)]
    rows = [
        [_name(group), *(_cell(f.get(key)) for key in keys)]
        for group, f in zip(section.groups, found, strict=True)
    ]
    return Table(
        f"Test results, %, epoch: {RULES[rule]}",
        ["method (seeds)", *(SHARES[key] for key in keys)],
        rows,
    )


def _errors(section: Section, rule: str) -> Table:
    rows = []
    for group in section.groups:
        found = results(group, rule)
        for key, name in ERRORS.items():
            regions = [found.get(key), *(found.get(f"{r}_{key}") for r in REGIONS)]
            first = key == "mae"
            speed = _speed(group) if first else ""
            label = _name(group) if first else ""
            rows.append([label, name, *map(_cell, regions), speed])
    return Table(
        f"Test errors by region of the target, epoch: {RULES[rule]}",
        ["method (seeds)", "", "all", *REGIONS, "examples/s"],
        rows,
    )


def _name(group: Group) -> str:
    mark = "" if group.finished else "†"
    return f"{group.label}{mark} ({len(group.counted)})"


def _speed(group: Group) -> str:
    rates = [rate for run in group.counted if (rate := throughput(run)) is not None]
    return "" if len(rates) < len(group.counted) else f"{np.mean(rates):,.0f}"


def _cell(number: Statistic | None) -> str:
    if number is None:
        return ""
    digits = 2 if abs(number.mean) >= 1 else 4
    spread = "" if number.std is None else f" ± {number.std:.{digits}f}"
    return f"{number.mean:.{digits}f}{spread}"


def on_screen(table: Table) -> RichTable:
    """A table as it is printed."""
    drawn = RichTable(title=table.title)
    for i, column in enumerate(table.columns):
        numbers = leading_numbers([row[i] for row in table.rows])
        drawn.add_column(column, justify="left" if numbers is None else "right")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def leading_numbers(cells: Sequence[str]) -> list[float | None] | None:
    """The numbers that cells begin with, None for blank ones.

    It is None altogether if a cell is not blank and begins with none, or all are blank.
    """
    found = [_NUMBER.match(cell) for cell in cells]
    known = [
        match is not None or not cell for match, cell in zip(found, cells, strict=True)
    ]
    if not any(found) or not all(known):
        return None
    return [None if m is None else float(m[0].replace(",", "")) for m in found]
