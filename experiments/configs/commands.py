"""The words of a command line that lead to given settings."""

import dataclasses
import shlex
import typing
from collections.abc import Mapping
from typing import Any

from experiments.configs.settings import TrainConfig
from experiments.methods import LOSSES, WEIGHTINGS
from experiments.records.files import plain

_KINDS: dict[str, Mapping[str, type]] = {
    "method.loss": LOSSES,
    "method.weighting": WEIGHTINGS,
}


def training(preset: str, start: TrainConfig, config: Mapping[str, Any]) -> str:
    """The command that trains with these settings.

    Args:
      preset: name of the preset to begin with.
      start: its settings.
      config: the settings wanted, as records have them. Those that this version does
        not know are left out.
    """
    words = ["python", "-m", "experiments.train", preset, *changes(start, config)]
    return shlex.join(words)


def changes(start: Any, config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The words that turn the settings of a dataclass into those of ``config``."""
    words = []
    types = typing.get_type_hints(type(start))
    for field in dataclasses.fields(start):
        if field.name not in config:
            continue
        path, wanted = prefix + field.name, config[field.name]
        own = getattr(start, field.name)
        if path in _KINDS and wanted["name"] != own.name:
            words += [_option(path), wanted["name"]]
            own = _KINDS[path][wanted["name"]]()
        if dataclasses.is_dataclass(own):
            words += changes(own, wanted, f"{path}.")
        elif plain(own) != wanted:
            words += _setting(path, wanted, is_switch=types[field.name] is bool)
    return words


def _setting(path: str, value: Any, *, is_switch: bool) -> list[str]:
    if is_switch:
        before, _, name = path.rpartition(".")
        switch = name if value else f"no_{name}"
        return [_option(f"{before}.{switch}" if before else switch)]
    values = value if isinstance(value, (list, tuple)) else [value]
    return [_option(path), *map(str, values)]


def _option(path: str) -> str:
    return "--" + path.replace("_", "-")
