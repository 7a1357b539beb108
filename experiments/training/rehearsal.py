"""A rehearsal of a run: what it would do, and how long that would take."""

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from experiments import datasets
from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.records.files import flat, plain
from experiments.training.evaluation import is_due
from experiments.training.feed import Feed
from experiments.training.loop import prepare
from experiments.training.machine import Machine
from experiments.training.program import Program

_SECONDS = 5.0  # of training steps that are timed, at least one block


class Times(NamedTuple):
    """What was measured, in seconds."""

    start: float  # until the first block of steps is done: compilation, above all
    step: float
    timed_steps: int
    evaluation: float  # all held-out examples once


def rehearse(config: TrainConfig, machine: Machine, run: Path) -> None:
    """Prints settings, data, sizes and an estimate of the time; writes nothing.

    The estimate is measured: the first steps and the first batch of each held-out part
    are computed, and thrown away.

    Raises:
      RunError: if the settings cannot run.
      DataNotFoundError: if the data is not on this machine.
    """
    console = Console(highlight=False)

    def say(text):
        console.print(text, soft_wrap=True, markup=False)

    say("Settings:")
    for name, value in flat(plain(config)).items():
        say(f"  {name} = {value}")
    say("Data:")
    splits, mesh, program = prepare(config, machine)
    say(datasets.describe(splits))
    feed = Feed(config, machine, splits, program, mesh)
    try:
        times = _measure(splits, program, feed)
    finally:
        feed.close()
    say("Run:")
    say(f"  {_sizes(config, program)}")
    folder = "resumes what is there" if (run / "config.json").exists() else "new"
    say(f"  written to {run} ({folder})")
    for line in estimate(config, program.steps_per_epoch, times):
        say(line)


def estimate(config: TrainConfig, steps_per_epoch: int, times: Times) -> list[str]:
    """The time of a whole run, and what it is made of."""
    steps = config.epochs * steps_per_epoch
    evaluations = sum(is_due(config, epoch) for epoch in range(1, config.epochs + 1))
    total = times.start + steps * times.step + evaluations * times.evaluation
    return [
        f"Estimated time: {_duration(total)}: {_duration(times.start)} to start, "
        f"{steps:,} steps of {_duration(times.step)}, "
        f"{evaluations:,} evaluations of {_duration(times.evaluation)}.",
        f"It was measured: {times.timed_steps} steps were taken here and thrown away, "
        "and a batch of each held-out part. Checkpoints are not included.",
    ]


def _measure(splits: Splits, program: Program, feed: Feed) -> Times:
    carry, start = _timed(program.init)
    blocks = itertools.chain.from_iterable(
        feed.blocks(epoch, 0) for epoch in itertools.count()
    )
    (carry, _), first = _timed(lambda: program.train(carry, next(blocks)[1]))
    steps, spent = 0, 0.0
    while not steps or spent < _SECONDS:
        size, block = next(blocks)
        (carry, _), seconds = _timed(program.train, carry, block)
        steps, spent = steps + size, spent + seconds
    evaluation = 0.0
    for part in ("val", "test"):
        count = len(getattr(splits, part).targets)
        for inputs, targets, _ in itertools.islice(feed.held_out(part), 1):
            _timed(program.forward, carry, inputs)  # compiles
            _, seconds = _timed(program.forward, carry, inputs)
            evaluation += seconds * count / len(targets)
    return Times(start + first, spent / steps, steps, evaluation)


def _timed(fun: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = jax.block_until_ready(fun(*args))
    return result, time.perf_counter() - start


def _sizes(config: TrainConfig, program: Program) -> str:
    arrays = jax.tree.leaves(program.shapes.state.params)
    parameters = sum(math.prod(x.shape[1:]) for x in arrays)  # the first axis is seeds
    steps = program.steps_per_epoch
    return (
        f"{config.model.name}, {parameters:,} trained parameters; {config.epochs:,} "
        f"epochs of {steps:,} steps of {config.batch_size:,} examples; "
        f"{config.seeds} seed{'s' * (config.seeds > 1)}"
    )


def _duration(seconds: float) -> str:
    """Three digits in the unit that suits."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"
