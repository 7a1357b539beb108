"""Numbers from CSV files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_MOST_LEVELS = 100
_MISSING = {"", "?", "NA", "N/A", "NaN", "nan"}


class Table(NamedTuple):
    """Columns of numbers made from a table of text."""

    features: np.ndarray  # [N, F] float64, NaN where a number is missing
    target: np.ndarray  # [N] text


def rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file as stripped text, blank lines left out."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [[v.strip() for v in row] for row in csv.reader(file) if row]


def encode(
    table: Sequence[Sequence[str]],
    names: Sequence[str],
    target: str,
    *,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> Table:
    """Numbers from text: one column per number, one per level of a category.

    A column with any text in it is a category, as is one named in ``categorical``.
    A missing number is NaN; a missing category has none of the levels.
    """
    unknown = [name for name in (target, *drop) if name not in names]
    if unknown:
        raise ValueError(f"No column {unknown[0]!r} among {', '.join(names)}.")
    for i, row in enumerate(table, 1):
        if len(row) != len(names):
            raise ValueError(
                f"row {i} has {len(row)} values, expected {len(names)} "
                f"({', '.join(names)})."
            )
    features = []
    for name, column in zip(names, zip(*table, strict=True), strict=True):
        if name == target or name in drop:
            continue
        numbers = None if name in categorical else _numbers(column)
        if numbers is not None:
            features.append(numbers)
            continue
        levels = sorted(set(column) - _MISSING)
        if len(levels) > _MOST_LEVELS:
            raise ValueError(
                f"Column {name!r} has {len(levels)} different texts, too many for "
                "categories: drop it."
            )
        features += [np.asarray([v == lv for v in column], float) for lv in levels]
    targets = np.asarray([row[list(names).index(target)] for row in table])
    absent = np.flatnonzero(np.isin(targets, list(_MISSING)))
    if absent.size:
        raise ValueError(f"row {absent[0] + 1} has no {target!r}, which is the target.")
    if not features:
        raise ValueError(f"There is no column beside the target {target!r}.")
    return Table(np.stack(features, 1), targets)


def _numbers(column: Sequence[str]) -> np.ndarray | None:
    """The column as float64, NaN where missing; None if it has text or nothing."""
    if _MISSING.issuperset(column):
        return None
    try:
        return np.asarray([np.nan if v in _MISSING else float(v) for v in column])
    except ValueError:
        return None
