"""What a run leaves behind for people: a folder of records, and lines on the screen.

A run folder holds ``config.json`` (settings, versions, device, commit, digest of the
split), ``splits.npz`` (source index of every example), ``metrics.jsonl`` (one object
per epoch), ``tensorboard/`` and, once it is done, ``summary.json``, ``final.npz``
(outputs on the test set) and the weights, ``last.npz`` and ``best.npz``.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

Row = dict[str, Any]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


class RunFolder:
    """Records of one seed of a run; methods do nothing on all but one process."""

    def __init__(self, path: Path, writes: bool):
        self.path = path
        self._writes = writes
        self._tensorboard = None

    def start(
        self, facts: Mapping[str, Any], indices: Mapping[str, np.ndarray]
    ) -> None:
        """Writes what is known before the first step."""
        if self._writes:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "config.json", facts)
            write_npz(self.path / "splits.npz", indices)

    def rewind(self, history: Sequence[Row]) -> None:
        """Makes the logs those of the epochs that a checkpoint knows of."""
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
        """Writes ``name`` as JSON or as arrays, whole or not at all."""
        if self._writes:
            writer = write_npz if name.endswith(".npz") else write_json
            writer(self.path / name, content)

    def close(self) -> None:
        """Ends background work."""
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


def environment() -> dict[str, Any]:
    """Versions, device and commit of this process."""
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
            "cpu_cores": os.cpu_count(),
        },
        "commit": _commit(),
    }


def plain(value: Any) -> Any:
    """A dataclass as JSON has it; ``name`` says which of several kinds a part is."""
    if dataclasses.is_dataclass(value):
        name = {"name": value.name} if hasattr(value, "name") else {}
        fields = (field.name for field in dataclasses.fields(value))
        return name | {field: plain(getattr(value, field)) for field in fields}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def write_json(path: Path, content: Any) -> None:
    """Replaces a file by JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replaces a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces a file by arrays, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def _commit() -> str | None:
    """The commit that runs, with ``+`` if files differ from it."""
    root = Path(__file__).parent

    def git(*args):
        return subprocess.run(
            ["git", *args], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
