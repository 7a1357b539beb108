"""What the host does for one step: a model so small that little else remains."""

from collections.abc import Callable, Sequence

from benchmarks import steps, timing
from benchmarks.models import TINY, make_batch


def measure(
    methods: Sequence[str], *, repeats: int, advance: Callable[[], None] = lambda: None
) -> dict[str, timing.Timing]:
    """Time of a step of a tiny model, and its ratio to a plain jitted SGD step."""
    batch = make_batch(TINY, TINY.batch_size, seed=0)
    runs = {}
    for name in dict.fromkeys(("sgd", *methods)):
        step = steps.make_step(name, TINY)
        run = timing.compile_step(step, batch, batch).run
        runs[name] = timing.stepper(run, step.state, batch, batch)
    return timing.interleave(
        runs,
        baselines=dict.fromkeys(runs, "sgd"),
        repeats=repeats,
        seconds=30.0,
        advance=advance,
    )
