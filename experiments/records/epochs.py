"""The record of an epoch, and the choice of the epoch whose results are reported."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]  # name such as "test/accuracy": a number, or a list of numbers
REGIONS = ("many", "medium", "few")
LAST = 5  # epochs in the mean that is reported


def score(row: Row, *, split: str = "val") -> float:
    """What the best epoch is chosen by, higher is better; -inf without that split."""
    if f"{split}/balanced_accuracy" in row:
        return row[f"{split}/balanced_accuracy"]
    return -row.get(f"{split}/mae", math.inf)


def select(rows: Sequence[Row]) -> dict[str, Row]:
    """The results of a run, by the rule that chose them.

    ``best`` is the best epoch on the validation set, ``last5`` the mean of the last
    five, ``last`` the last; ``parity`` is the best on the test set, for comparison with
    publications that chose so, and not an honest result.
    """
    evaluated = [row for row in rows if score(row, split="test") > -math.inf]
    last = evaluated[-LAST:]
    chosen = {
        "last": last[-1],
        "last5": _mean(last),
        "parity": max(evaluated, key=lambda row: score(row, split="test")),
    }
    if score(last[-1]) > -math.inf:
        chosen["best"] = max(evaluated, key=score)
    return chosen


def _mean(rows: Sequence[Row]) -> Row:
    """Mean of every number; of speed, over the epochs in which it was measured."""
    found = {}
    for name, value in rows[-1].items():
        values = [row[name] for row in rows if row[name] is not None]
        if values and not isinstance(value, list):
            found[name] = float(np.mean(values))
    return found
