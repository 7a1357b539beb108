"""Trains a model with any of the methods, on anything from a laptop to a TPU pod.

    python -m experiments.train --list [WORDS]       # presets; those with all WORDS
    python -m experiments.train PRESET --help        # its settings
    python -m experiments.train PRESET --dry-run     # what it would do, and how long
    python -m experiments.train PRESET [settings]    # do it

Try `smoke` first: it takes seconds and reads no data. For your own CSV file or folder
of images take `table` or `images`, see docs/own_data.md.

The same command resumes a run that was interrupted, from its last checkpoint, and ends
with the very same parameters. See docs/training.md, also for completion by Tab.
"""

import dataclasses
import difflib
import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console
from rich.text import Text

from experiments import configs
from experiments.configs import TrainConfig
from experiments.datasets import DataNotFoundError
from experiments.methods import LOSSES, WEIGHTINGS
from experiments.training import Machine as Machine
from experiments.training import RunError as RunError
from experiments.training import rehearse as rehearse
from experiments.training import train as train
from experiments.training.errors import explained

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS = (
    "--method.loss NAME and --method.weighting NAME choose another loss or weighting, "
    f"with settings of its own. Losses: {', '.join(LOSSES)}. "
    f"Weightings: {', '.join(WEIGHTINGS)}."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line sets."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    machine: Annotated[Machine, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Machine
    )
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be done and for how long, and write nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kinds:
    """Which loss and weighting: what other settings there are depends on these."""

    loss: Annotated[
        str,
        tyro.conf.arg(
            name="method.loss",
            constructor=tyro.extras.literal_type_from_choices(LOSSES),
        ),
    ]
    weighting: Annotated[
        str,
        tyro.conf.arg(
            name="method.weighting",
            constructor=tyro.extras.literal_type_from_choices(WEIGHTINGS),
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if argv[0].startswith("--tyro-"):
        _print_completion(argv)
    try:
        if argv[0] == "--list":
            _print_presets(argv[1:])
            return 0
        return _run(argv)
    except (RunError, DataNotFoundError) as error:
        message = str(error)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        message = (
            f"the records of the run cannot be written: {error}. The same command "
            "resumes from the last checkpoint once there is space."
        )
    console = Console(stderr=True)
    console.print("[bold red]error[/] ", end="")
    console.print(message, markup=False, highlight=False)
    return 1


def _run(argv: Sequence[str]) -> int:
    name, *settings = argv
    if name not in configs.PRESETS:
        close = difflib.get_close_matches(name, configs.PRESETS)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise RunError(f"no preset is named {name!r}; --list shows their names.{hint}")
    with explained():
        command = parse(configs.PRESETS[name], settings, name)
    machine = command.machine
    if machine.distributed or machine.coordinator is not None:
        jax.distributed.initialize(
            machine.coordinator, machine.num_processes, machine.process_id
        )
    run = Path(machine.out or f"runs/{name}")
    if command.dry_run:
        rehearse(command.config, machine, run)
        return 0
    return train(command.config, machine, run, preset=name)


def parse(preset: configs.Preset, settings: Sequence[str], name: str) -> Command:
    """A preset with the settings of a command line."""
    prog = f"python -m experiments.train {name}"
    config, rest = _with_kinds(preset.config, settings, prog)
    return tyro.cli(
        # The kinds are chosen by now, and only their own settings are offered.
        tyro.conf.AvoidSubcommands[Command],
        prog=prog,
        description=f"{preset.about}\n\n{_KINDS}",
        args=rest,
        default=Command(config=config),
    )


def _with_kinds(
    config: TrainConfig, settings: Sequence[str], prog: str
) -> tuple[TrainConfig, list[str]]:
    """Takes ``--method.loss NAME`` and ``--method.weighting NAME`` out of settings."""
    method = config.method
    kinds, rest = tyro.cli(
        _Kinds,
        prog=prog,
        args=settings,
        default=_Kinds(loss=method.loss.name, weighting=method.weighting.name),
        return_unknown_args=True,
        add_help=False,
    )
    loss, weighting = method.loss, method.weighting
    if kinds.loss != loss.name:
        loss = LOSSES[kinds.loss]()
    if kinds.weighting != weighting.name:
        weighting = WEIGHTINGS[kinds.weighting]()
    method = dataclasses.replace(method, loss=loss, weighting=weighting)
    return dataclasses.replace(config, method=method), rest


def _print_completion(argv: Sequence[str]) -> None:
    """Completion of settings, for a shell function named ``train``."""
    tyro.cli(
        tyro.conf.AvoidSubcommands[Command],
        prog="train",
        args=argv,
        default=Command(config=configs.PRESETS["smoke"].config),
    )


def _print_presets(words: Sequence[str]) -> None:
    """One line a preset, never cut, so that it can be searched."""
    console = Console(soft_wrap=True, highlight=False)
    lines = {
        name: _described(name, preset)
        for name, preset in configs.PRESETS.items()
        if not name.endswith("-small")
    }
    found = [
        (name, line)
        for name, line in lines.items()
        if all(word.lower() in f"{name}{line}".lower() for word in words)
    ]
    if not found:
        raise RunError(f"no preset has all of {', '.join(words)} in its line.")
    for name, line in found:
        console.print(Text.assemble((name, "bold"), line))


def _described(name: str, preset: configs.Preset) -> str:
    twin = " (also -small)" if f"{name}-small" in configs.PRESETS else ""
    data, known = configs.needs(preset.config), preset.published
    figure = f"; published {known.accuracy:.2f} %" if known else ""
    return f"{twin}: {preset.about}; reads {data}{figure}"


if __name__ == "__main__":
    sys.exit(main())
