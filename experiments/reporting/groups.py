"""Groups runs that can be compared.

Runs whose settings differ by seeds and places alone make a `Group`, a method with
repetitions; groups on the same data make a `Section`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.configs import PRESETS
from experiments.methods import LOSSES, WEIGHTINGS
from experiments.records.files import flat, plain
from experiments.records.runs import Run

_NOT_SETTINGS = (
    *("seed", "seeds", "init_from"),
    *("data.seed", "data.path", "data.images"),
)
_OWN_DATA = ("arrays", "csv", "folder", "lists", "tfds")
_DATA = ("name", "recipe", "factor", "noise", "noise_rate", "target", "task")


@dataclasses.dataclass(frozen=True)
class Group:
    """Repetitions of one method with different seeds."""

    label: str
    runs: list[Run]

    @property
    def config(self) -> dict[str, Any]:
        """Settings that all runs share (and the first one's seeds)."""
        return self.runs[0].config

    @property
    def preset(self) -> str | None:
        """Name of the preset it began with."""
        return self.runs[0].facts["preset"]

    @property
    def finished(self) -> bool:
        """Whether its numbers are those of finished runs."""
        return any(run.finished for run in self.runs)

    @property
    def counted(self) -> list[Run]:
        """The runs to average over: finished ones if there are any."""
        return [run for run in self.runs if run.finished or not self.finished]

    @property
    def weighs(self) -> bool:
        """Whether its method weights examples."""
        return self.config["method"]["weighting"]["name"] != "none"

    @property
    def changed_settings(self) -> dict[str, tuple[Any, Any]]:
        """What differs from the preset: ``{name: (here, in the preset)}``."""
        if self.preset not in PRESETS:
            return {}
        here = settings(self.config)
        there = settings(plain(PRESETS[self.preset].config))
        # A setting that one of them lacks came or went between versions.
        return {
            k: (here[k], there[k])
            for k in here.keys() & there.keys()
            if here[k] != there[k]
        }


@dataclasses.dataclass(frozen=True)
class Section:
    """Groups on the same data."""

    title: str
    groups: list[Group]

    @property
    def facts(self) -> dict[str, Any]:
        """What is known about the data, by one of the runs."""
        return self.groups[0].runs[0].facts

    @property
    def is_regression(self) -> bool:
        """Whether targets are numbers."""
        return self.facts["class_counts"] is None

    @property
    def rule(self) -> str:
        """The rule of selection that all its runs have: on validation if possible."""
        runs = [run for group in self.groups for run in group.counted]
        return "best" if all("best" in run.selected for run in runs) else "last5"


def arrange(runs: Sequence[Run]) -> tuple[list[Section], list[str]]:
    """Sections of what can be compared, and notes on what was left out."""
    notes = []
    by_settings: dict[str, dict[tuple[int, int], Run]] = {}
    for run in runs:
        group = by_settings.setdefault(_key(_completed(run)), {})
        if not run.evaluated:
            notes.append(
                f"{run.path} has no test results yet "
                f"({_epochs(run)} trained) and is left out."
            )
        elif run.seeds not in group:
            group[run.seeds] = run
        elif group[run.seeds].path.resolve() != run.path.resolve():
            notes.append(
                f"{run.path} repeats {group[run.seeds].path} (same settings and seed) "
                "and is left out."
            )
    by_data: dict[str, list[list[Run]]] = {}
    for group in by_settings.values():
        if group:
            members = [group[seeds] for seeds in sorted(group)]
            by_data.setdefault(_key(_data(members[0])), []).append(members)
    sections = [_section(groups) for groups in by_data.values()]
    for section in sections:
        notes += _remarks(section)
    return sections, notes


def _completed(run: Run) -> dict[str, Any]:
    """Settings, with those that came after the run as its preset has them."""
    preset = run.facts["preset"]
    later = settings(plain(PRESETS[preset].config)) if preset in PRESETS else {}
    return later | settings(run.config)


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Flat settings, without seeds and places."""
    return {k: v for k, v in flat(config).items() if k not in _NOT_SETTINGS}


def _section(groups: list[list[Run]]) -> Section:
    names = [_method(runs[0].config) for runs in groups]
    labels = [
        name + _detail([g for g, n in zip(groups, names, strict=True) if n == name], i)
        for name, i in zip(names, _positions(names), strict=True)
    ]
    return Section(
        _title(groups[0][0]),
        [Group(label, runs) for label, runs in zip(labels, groups, strict=True)],
    )


def _positions(names: Sequence[str]) -> list[int]:
    """How often each name has come before."""
    return [names[:i].count(name) for i, name in enumerate(names)]


def _detail(alike: list[list[Run]], index: int) -> str:
    """What tells a group from others of the same method."""
    if len(alike) == 1:
        return ""
    found = [settings(runs[0].config) for runs in alike]
    differing = [k for k in found[0] if len({_key(f.get(k)) for f in found}) > 1]
    presets = [runs[0].facts["preset"] for runs in alike]
    if len(differing) > 2 and None not in presets and len({*presets}) == len(presets):
        return f" ({presets[index]})"
    parts = (f"{k.rpartition('.')[2]} {found[index].get(k)}" for k in differing)
    return f" ({', '.join(parts)})"


def _method(config: dict[str, Any]) -> str:
    """A short name of what is trained."""
    method, head = config["method"], config["model"]["head"]
    if method["feature_penalty"] and head == "etf" and method["post_hoc"] != "none":
        return "Weight balancing"
    loss = LOSSES[method["loss"]["name"]].label
    name = WEIGHTINGS[method["weighting"]["name"]].label or loss
    if name != loss and loss not in ("CE", "MSE"):
        name += f" on {loss}"
    if method["feature_penalty"]:
        name += " + feature penalty"
    if method["max_norm"] is not None:
        name += " + MaxNorm"
    if head != "linear":
        name += f", {'ETF' if head == 'etf' else head} head"
    if method["post_hoc"] != "none":
        name += f", {method['post_hoc']} adjustment"
    return name


def _data(run: Run) -> dict[str, Any]:
    data = run.config["data"]
    chosen = {k: data[k] for k in _DATA}
    return chosen | ({"path": data["path"]} if data["name"] in _OWN_DATA else {})


def _title(run: Run) -> str:
    data = run.config["data"]
    title = data["name"].replace("cifar", "CIFAR-").replace("mnist", "MNIST")
    if data["name"] in _OWN_DATA and data["path"]:
        title += f" {Path(data['path']).name}"
    if data["recipe"] != "none":
        recipe = {"step": "step-shaped", "exponential": "exponential"}.get(
            data["recipe"], f"exponential ({data['recipe'].replace('_', ' ')})"
        )
        title += f", {recipe} tail of ratio {1 / data['factor']:.4g}"
    if data["noise"].startswith("human"):
        title += f", labels by people ({data['noise'].removeprefix('human_')})"
    elif data["noise"] != "none":
        kind = {"uniform_other": "symmetric"}.get(data["noise"], data["noise"])
        title += f", {100 * data['noise_rate']:.4g} % {kind} label noise"
    return title


def _remarks(section: Section) -> list[str]:
    """What a reader of the section's numbers has to know."""
    notes = []
    for group in section.groups:
        unfinished = [run for run in group.runs if not run.finished]
        for run in unfinished:
            use = "left out of the tables" if group.finished else "taken as it stands"
            notes.append(
                f"{section.title}: {group.label} with seed {run.seeds[0]} is "
                f"unfinished ({_epochs(run)}) and {use}: {run.path}."
            )
    digests: dict[int, set[str]] = {}
    for run in (run for group in section.groups for run in group.runs):
        digests.setdefault(run.seeds[1], set()).add(run.facts["digest"])
    if any(len(found) > 1 for found in digests.values()):
        notes.append(
            f"{section.title}: not all methods had the same split (sizes of "
            "validation and meta sets differ, or the data does)."
        )
    return notes


def _epochs(run: Run) -> str:
    done = run.rows[-1]["epoch"] if run.rows else 0
    return f"{done} of {run.config['epochs']} epochs"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
