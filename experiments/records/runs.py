"""Reads run folders back: a `Run` is the records of one seed."""

import dataclasses
import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.records.epochs import Row, select


class RecordError(Exception):
    """A run folder cannot be read; the message names it and says why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The records of one seed."""

    path: Path
    facts: dict[str, Any]
    """Of ``config.json``."""
    rows: list[Row]
    """Of ``metrics.jsonl``: one per epoch."""

    @property
    def config(self) -> dict[str, Any]:
        """The settings, nested as in `TrainConfig`."""
        return self.facts["config"]

    @property
    def seeds(self) -> tuple[int, int]:
        """Of the run and of its split."""
        return self.facts["seed"], self.config["data"]["seed"]

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "summary.json").exists()

    @functools.cached_property
    def evaluated(self) -> list[Row]:
        """The epochs with test results."""
        return [r for r in self.rows if "test/accuracy" in r or "test/mae" in r]

    @functools.cached_property
    def selected(self) -> dict[str, Row]:
        """Results by the rule that chose the epoch; empty before the first ones."""
        return select(self.evaluated) if self.evaluated else {}

    @functools.cached_property
    def final(self) -> dict[str, np.ndarray]:
        """Outputs of the finished model on the test set; empty before."""
        return self._arrays("final.npz")

    @functools.cached_property
    def example_weights(self) -> dict[str, np.ndarray]:
        """Weights of the training examples; empty if they were not exported."""
        return self._arrays("example_weights.npz")

    @functools.cached_property
    def detection(self) -> dict[str, dict[str, float]] | None:
        """How well each score found the changed labels, if that was measured."""
        path = self.path / "detection.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        path = self.path / name
        if not path.exists():
            return {}
        try:
            with open(path, "rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise RecordError(f"{path} cannot be read: {error}.") from error


def read_runs(path: Path) -> list[Run]:
    """The runs in a run folder, or in a folder of such folders.

    Raises:
      RecordError: if there is none, or one is broken.
    """
    if not path.is_dir():
        raise RecordError(f"{path} is not a folder.")
    if (path / "config.json").exists():
        facts = _read_json(path / "config.json")
        if facts["seed"] is not None:
            return [Run(path, facts, _read_rows(path / "metrics.jsonl"))]
    # A run with several seeds has a folder for each, and so has a folder of runs.
    inner = sorted(p.parent for p in path.glob("*/config.json"))
    if not inner:
        raise RecordError(
            f"{path} holds no run: neither it nor a folder in it has a config.json."
        )
    return [run for folder in inner for run in read_runs(folder)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
        missing = {"config", "seed", "preset", "digest", "class_counts"} - {*facts}
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(f"{path} cannot be read: {error}.") from error
    if missing:
        raise RecordError(f"{path} is not of a run: it lacks {sorted(missing)}.")
    return facts


def _read_rows(path: Path) -> list[Row]:
    """The epochs so far; a line still being written is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RecordError(
                f"{path} cannot be read: line {number}: {error}."
            ) from error
    return rows
