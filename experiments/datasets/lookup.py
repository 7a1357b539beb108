"""Where the files of a set may lie. Nothing is ever downloaded."""

import os
from pathlib import Path

from experiments.datasets.config import DataConfig


class DataNotFoundError(FileNotFoundError):
    """A set is not on this machine; the message says how to get it."""


def folders(config: DataConfig) -> list[Path]:
    """Where sets are looked for: the given path, or the usual places."""
    if config.path is not None:
        return [Path(config.path).expanduser()]
    tfds = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    places = [p for p in (os.environ.get("LTJAX_DATA"), tfds) if p]
    return [Path(p).expanduser() for p in places]


def find(config: DataConfig, *patterns: str) -> Path | None:
    """The first file or folder of these names; a path may also name it itself."""
    for folder in folders(config):
        if config.path and folder.name in (Path(p).name for p in patterns):
            return folder if folder.exists() else None
        for pattern in patterns:
            if found := sorted(folder.glob(pattern)):
                return found[-1]  # the newest version
    return None


def find_tfds(config: DataConfig, name: str) -> Path | None:
    """A prepared version directory of a tensorflow-datasets set."""
    patterns = (f"{name}/*/dataset_info.json", f"{name}/*/*/dataset_info.json")
    info = find(config, "dataset_info.json", *patterns)
    return info and info.parent


def missing(config: DataConfig, files: str, get: str) -> DataNotFoundError:
    """The error for a set that is not there."""
    looked = ", ".join(map(str, folders(config)))
    return DataNotFoundError(
        f"No {config.name} data in {looked} (nothing is downloaded automatically).\n"
        f"  Needed: {files}\n"
        f"  Get it: {get}\n"
        "  Put it into a folder and name that folder: data.path on the command line "
        "(--data.path FOLDER), or\n"
        "    export LTJAX_DATA=FOLDER"
    )


def own(config: DataConfig, what: str) -> Path:
    """The path of own data, which must be given and exist."""
    if config.path is None:
        raise ValueError(f"data {config.name!r} needs path={what}, got None.")
    path = Path(config.path).expanduser()
    if not path.exists():
        raise DataNotFoundError(f"No {path}; data {config.name!r} needs {what}.")
    return path


def image_root(config: DataConfig, folder: Path) -> Path:
    """What image lists are relative to."""
    return folder if config.images is None else Path(config.images).expanduser()
