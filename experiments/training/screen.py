"""What a run prints: a progress bar, a line for each epoch, a table at the end."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from experiments.records.epochs import LAST, Row


class Clock:
    """Speed without the first block of an epoch, which may include compilation."""

    def __init__(self):
        self._start = time.perf_counter()
        self._blocks = self._steps = 0

    def tick(self, steps: int, result: jax.Array) -> None:
        """Counts a block of steps."""
        self._blocks += 1
        if self._blocks == 1:
            jax.block_until_ready(result)
            self._after_first = time.perf_counter()
        else:
            self._steps += steps

    def read(self, examples_per_step: int) -> Row:
        """Seconds, and examples per second if there was more than one block.

        Call it when all is done.
        """
        now = time.perf_counter()
        rate = None
        if self._steps:
            rate = self._steps * examples_per_step / (now - self._after_first)
        return {"seconds": now - self._start, "examples_per_second": rate}


@contextlib.contextmanager
def progress_bar(
    console: Console, *, total: int, done: int, examples_per_step: int, shown: bool
) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(steps)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]} examples/s, ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task("steps", total=total, completed=done, speed="-")

        def advance(steps):
            speed = progress.tasks[0].speed
            text = "-" if speed is None else f"{speed * examples_per_step:,.0f}"
            progress.update(task, advance=steps, speed=text)

        yield advance


def epoch_line(rows: Sequence[Row], epochs: int) -> str:
    """An epoch in a line; means over seeds."""

    def mean(name):
        return np.mean([row[name] for row in rows])

    row = rows[0]
    parts = [
        f"epoch {row['epoch']}/{epochs}",
        f"loss {mean('train/loss'):.4f}",
        f"weighted {mean('train/weighted_loss'):.4f}",
        f"lr {row['learning_rate']:.2g}",
    ]
    for split in ("val", "test"):
        for name in ("accuracy", "balanced_accuracy", "mae"):
            if f"{split}/{name}" in row:
                text = _format(name, mean(f"{split}/{name}"))
                parts.append(f"{split} {name.replace('_', ' ')} {text}")
    if row["examples_per_second"] is not None:
        parts.append(f"{row['examples_per_second']:,.0f} examples/s")
    parts.append(f"{row['seconds']:.1f} s")
    return "  ".join(parts)


def results_table(summaries: Sequence[Mapping[str, Row]], run: Path) -> Table:
    """Test metrics by rule of selection; mean and standard deviation over seeds."""
    names = [
        f"test/{name}"
        for name in (
            *("accuracy", "balanced_accuracy", "many", "medium", "few"),
            *("top5_accuracy", "ece", "mae", "rmse", "geometric_mean"),
            *("many_mae", "medium_mae", "few_mae", "mean_iou", "few_iou"),
        )
        if f"test/{name}" in summaries[0]["last"]
    ]
    table = Table(
        title=f"test results of {run}",
        caption="best: epoch chosen on validation. parity: epoch chosen on the test "
        "set, as some publications do; not an honest result.",
    )
    for column in ("chosen", "epoch", *(n.removeprefix("test/") for n in names)):
        table.add_column(column.replace("_", " "))
    titles = {"best": "best", "last5": f"last {LAST}", "last": "last"}
    for rule, title in (titles | {"parity": "parity"}).items():
        if rule not in summaries[0]:
            continue
        chosen = [summary[rule] for summary in summaries]
        epochs = sorted({int(row["epoch"]) for row in chosen})
        epoch = "-" if rule == "last5" else ", ".join(map(str, epochs))
        cells = [_cell(name, [row[name] for row in chosen]) for name in names]
        table.add_row(title, epoch, *cells)
    return table


def _cell(name: str, values: Sequence[float]) -> str:
    cell = _format(name, float(np.mean(values)))
    if len(values) > 1:
        cell += f" ± {_format(name, float(np.std(values, ddof=1)))}"
    return cell


def _format(name: str, value: float) -> str:
    is_share = any(
        x in name for x in ("accuracy", "many", "medium", "few", "ece", "iou")
    )
    if is_share and not name.endswith("mae"):
        return f"{100 * value:.2f}"
    return f"{value:.4g}"
