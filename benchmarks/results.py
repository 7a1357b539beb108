"""What the benchmarks find, as plain data for JSON and the reports."""

import dataclasses
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_PEER_PACKAGES = ("torch", "opacus", "backpack-for-pytorch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one model in one dtype; ratios are to plain SGD."""

    model: str
    dtype: str
    method: str
    flops: float | None  # None where loops hide operations
    temporary_bytes: int
    compile_seconds: float
    flops_ratio: float | None
    memory_ratio: float
    seconds: float
    wall_ratio: float
    wall_low: float
    wall_high: float
    cpu_ratio: float
    rounds: int


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
