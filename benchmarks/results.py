"""What the benchmarks find, as plain data for JSON and the reports."""

import dataclasses
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("ltjax", "jax", "jaxlib", "flax", "optax", "numpy")
_PEER_PACKAGES = ("torch", "opacus", "backpack-for-pytorch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one model in one dtype; ratios are to plain SGD."""

    model: str
    dtype: str
    method: str
    skipped: str | None = None  # why there are no figures
    flops: float | None = None
    temporary_bytes: int | None = None
    compile_seconds: float | None = None
    flops_ratio: float | None = None  # None where loops hide operations
    memory_ratio: float | None = None
    seconds: float | None = None
    wall_ratio: float | None = None
    wall_low: float | None = None
    wall_high: float | None = None
    cpu_ratio: float | None = None
    rounds: int | None = None


def machine(*, peers: bool = False) -> dict[str, Any]:
    """Where the figures come from."""
    names = _PACKAGES + (_PEER_PACKAGES if peers else ())
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "architecture": platform.machine(),
        "cores": threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    }


def threads() -> int:
    """Cores that this process may use, which is also XLA's number of threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
