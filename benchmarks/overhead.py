"""Host overhead of one step, on a model so small that little else remains."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from benchmarks import steps, timing
from benchmarks.models import TINY, make_batch

METHODS = ("sgd", "absgd", "elm", "gradtail-dots", "gradtail-cosine", "gdw", "l2rw")


class Overhead(NamedTuple):
    """A step of a tiny model, and a call with its arguments that computes nothing."""

    step: timing.Timing
    dispatch: timing.Timing


def measure(
    *, repeats: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Overhead]:
    """Times of steps of a tiny model, as ratios to a plain jitted SGD step.

    A step is one call of one compiled function. Its time is the dispatch of that call,
    which grows with the number of arrays in the state, and the tiny model's arithmetic,
    which grows as it does for any model; the second figure is the dispatch alone.
    """
    batch = make_batch(TINY, TINY.batch_size, seed=0)
    nothing = jax.jit(
        lambda state, batch, meta: state, donate_argnums=0, keep_unused=True
    )
    runs, baselines = {}, {}
    for name in METHODS:
        meta = batch if steps.METHODS[name].meta_share else None
        step = steps.make_step(name, TINY)
        for kind, run in (
            ("step", timing.compile_step(step, batch, meta).run),
            ("dispatch", nothing),
        ):
            runs[name, kind] = timing.stepper(run, step.state, batch, meta)
            baselines[name, kind] = ("sgd", kind)
    timings = timing.interleave(
        runs, baselines=baselines, repeats=repeats, seconds=30.0, advance=advance
    )
    return {
        name: Overhead(timings[name, "step"], timings[name, "dispatch"])
        for name in METHODS
    }
