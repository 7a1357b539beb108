"""Compiling steps, counting what they cost, and timing them against each other."""

import math
import re
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from benchmarks.steps import Step
from experiments.methods import Batch, State
from experiments.models import xla

_SAMPLE_SECONDS = 0.05  # shorter steps are repeated within one sample
_MIN_ROUNDS = 3

Name = TypeVar("Name", bound=Hashable)


class Compiled(NamedTuple):
    """A compiled step and what the compiler says about it."""

    run: Callable[[State, Batch, Batch | None], State]
    text: str
    flops: float
    bytes_accessed: float
    temporary_bytes: int
    compile_seconds: float

    @property
    def has_loops(self) -> bool:
        """Whether `flops` counts the bodies of loops only once."""
        return re.search(r"\bwhile\(", self.text) is not None


class Timing(NamedTuple):
    """Medians of interleaved samples, with quartiles of the ratio."""

    seconds: float
    cpu_seconds: float  # processor time, which other processes disturb less
    ratio: float
    low: float
    high: float
    cpu_ratio: float
    rounds: int


def compile_step(step: Step, batch: Batch, meta_batch: Batch | None) -> Compiled:
    """Compiles a step, its state donated, with the options that suit the device."""
    start = time.perf_counter()
    compiled: Any = (
        xla.jit(step.fun, donate_argnums=0).lower(step.state, batch, meta_batch)
    ).compile()
    seconds = time.perf_counter() - start
    cost = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    return Compiled(
        run=compiled,
        text=compiled.as_text(),
        flops=cost.get("flops", math.nan),
        bytes_accessed=cost.get("bytes accessed", math.nan),
        temporary_bytes=memory.temp_size_in_bytes,
        compile_seconds=seconds,
    )


def stepper(run: Callable[..., Any], state: Any, *args: Any) -> Callable[[], None]:
    """A function that takes one step and waits for it."""
    state = jax.tree.map(lambda x: x.copy(), state)  # the original is not donated

    def step():
        nonlocal state
        state = run(state, *args)
        jax.tree.leaves(state)[0].block_until_ready()  # all are ready at once

    return step


def interleave(
    steps: Mapping[Name, Callable[[], None]],
    *,
    baselines: Mapping[Name, Name],
    repeats: int,
    seconds: float,
    advance: Callable[[], None] = lambda: None,
) -> dict[Name, Timing]:
    """Times steps in interleaved rounds: A B A C A ...

    Every sample is compared with the mean of its baseline's samples just before and
    just after it, so that slow drifts of a shared machine cancel.

    Args:
      steps: functions that take one step and wait for it.
      baselines: for each name, the name of what it is compared with.
      repeats: rounds at most.
      seconds: no round after the third starts later than this.
      advance: called after every round.
    """
    counts = {name: _steps_per_sample(step) for name, step in steps.items()}
    samples: dict[Name, list[tuple[float, ...]]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    for completed in range(repeats):
        if completed >= _MIN_ROUNDS and time.perf_counter() > end:
            break
        before: dict[Name, np.ndarray] = {}
        for name, base in baselines.items():
            if base not in before:
                before[base] = _sample(steps[base], counts[base])
            if name == base:
                samples[name].append((*before[base], 1.0, 1.0))
                continue
            own = _sample(steps[name], counts[name])
            after = _sample(steps[base], counts[base])
            ratios = own / ((before[base] + after) / 2)
            samples[name].append((*own, *ratios))
            before[base] = after
        advance()
    return {name: _summary(np.asarray(rows)) for name, rows in samples.items()}


def _summary(rows: np.ndarray) -> Timing:
    """``rows`` holds wall and processor seconds, then the ratios of both."""
    seconds, cpu_seconds, ratio, cpu_ratio = map(float, np.median(rows, axis=0))
    low, high = map(float, np.quantile(rows[:, 2], [0.25, 0.75]))
    return Timing(seconds, cpu_seconds, ratio, low, high, cpu_ratio, len(rows))


def _steps_per_sample(step: Callable[[], None]) -> int:
    step()  # the first one may be slow
    fastest = min(_sample(step, 1)[0] for _ in range(3))
    return math.ceil(_SAMPLE_SECONDS / fastest)


def _sample(step: Callable[[], None], count: int) -> np.ndarray:
    """Wall and processor seconds for one step."""
    start = np.array([time.perf_counter(), time.process_time()])
    for _ in range(count):
        step()
    return (np.array([time.perf_counter(), time.process_time()]) - start) / count
