"""What a run leaves behind: a folder of records.

A run folder holds ``config.json`` (settings, versions, device, commit, digest of the
split), ``splits.npz`` (source index of every example), ``metrics.jsonl`` (one object
per epoch), ``tensorboard/`` and, once it is done, ``summary.json``, ``final.npz``
(outputs on the test set), the model's parameters (``last.npz`` and
``best.npz``) and, where asked for, ``example_weights.npz``, the same as ``.csv`` and
``.parquet``, and ``detection.json`` where some labels are known to be wrong.
``python -m experiments.geometry`` adds ``geometry.json``.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.records.epochs import Row
from experiments.records.files import (
    write_csv,
    write_json,
    write_npz,
    write_parquet,
    write_text,
)

_WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".json": write_json,
    ".npz": write_npz,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


class RunFolder:
    """Records of one seed of a run; methods do nothing on all but one process."""

    def __init__(self, path: Path, writes: bool):
        self.path = path
        self._writes = writes
        self._tensorboard: Any = None

    def start(
        self, facts: Mapping[str, Any], indices: Mapping[str, np.ndarray]
    ) -> None:
        """Writes what is known before the first step."""
        if self._writes:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "config.json", facts)
            write_npz(self.path / "splits.npz", indices)

    def rewind(self, history: Sequence[Row]) -> None:
        """Truncates the logs to the epochs that a checkpoint knows of."""
        if not self._writes:
            return
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_text(self.path / "metrics.jsonl", lines)
        import tensorboardX  # takes seconds where it finds PyTorch; --help need not

        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        self._tensorboard = tensorboardX.SummaryWriter(str(self.path / "tensorboard"))
        for row in history:
            self._plot(row)

    def append(self, row: Row) -> None:
        """Adds an epoch."""
        if self._writes:
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")
            self._plot(row)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes ``name``, whole or not at all; its suffix, one of four, says how."""
        if self._writes:
            path = self.path / name
            _WRITERS[path.suffix](path, content)

    def close(self) -> None:
        """Stops background work."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _plot(self, row: Row) -> None:
        for name, value in row.items():
            if isinstance(value, (int, float)):
                self._tensorboard.add_scalar(name, value, row["epoch"])
            elif isinstance(value, list):
                known = np.asarray([v for v in value if v is not None])
                self._tensorboard.add_histogram(name, known, row["epoch"])
        self._tensorboard.flush()
