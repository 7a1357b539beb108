"""What a result depends on besides its settings: versions, device and commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "scikit-learn"),
)


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
            "machine": platform.machine(),
        },
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit that runs, with ``+`` if files differ from it."""
    root = Path(__file__).parents[1]

    def git(*args):
        return subprocess.run(
            ["git", *args], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
