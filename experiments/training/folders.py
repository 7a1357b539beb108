"""The folders of a run, one per seed: opened, or refused if they hold another run."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.records.environment import environment
from experiments.records.files import flat, plain
from experiments.records.folder import RunFolder
from experiments.training.errors import RunError
from experiments.training.machine import Machine


def open_folders(
    config: TrainConfig,
    machine: Machine,
    run: Path,
    splits: Splits,
    preset: str | None,
) -> list[RunFolder]:
    """A folder of records for each seed; refuses the folder of another run."""
    writes = jax.process_index() == 0
    if writes:
        _claim(run, plain(config), machine)
    multihost_utils.sync_global_devices("run folder")
    facts = {
        "preset": preset,
        "config": plain(config),
        "machine": plain(machine),
        **environment(),
        "digest": splits.digest,
        "class_counts": None
        if splits.class_counts is None
        else splits.class_counts.tolist(),
        "class_names": splits.class_names,
        "shots": splits.shots,
    }
    if config.seeds == 1:
        folders = [RunFolder(run, writes)]
    else:
        RunFolder(run, writes).start(facts | {"seed": None}, splits.indices)
        names = (f"seed{config.seed + i}" for i in range(config.seeds))
        folders = [RunFolder(run / name, writes) for name in names]
    for i, folder in enumerate(folders):
        folder.start(facts | {"seed": config.seed + i}, splits.indices)
    return folders


def _claim(run: Path, settings: dict[str, Any], machine: Machine) -> None:
    """Empties the folder if that is wanted; refuses it if it is not this run's."""
    checkpoints = [Path(machine.checkpoints)] if machine.checkpoints else []
    if machine.overwrite:
        for folder in (run, *checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
    elif (run / "config.json").exists():
        found = json.loads((run / "config.json").read_text())
        before, now = flat(found["config"]), flat(settings)
        changes = ", ".join(
            f"{name} {before.get(name)!r} -> {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        )
        if changes:
            raise RunError(
                f"{run} holds a run with other settings ({changes}). Choose another "
                "--out, or --overwrite to delete it."
            )
    elif run.exists() and any(run.iterdir()):
        raise RunError(f"{run} is not empty and holds no run; choose another --out.")
