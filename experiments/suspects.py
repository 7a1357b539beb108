"""Lists the training examples of a run whose labels look most wrong.

    python -m experiments.suspects RUN [--by quality] [--count 20]

RUN is the folder of a run of ``python -m experiments.train ... --export-weights``.
Where the run's data say which labels were changed, a table says how well each score
finds them.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.records.examples import SCORES, detections, suspicion
from experiments.records.runs import RecordError, read_runs

_SHOWN = {"index": "indices", "label": "labels", "prediction": "predictions"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the command line sets."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    by: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(SCORES) + "}")] = "margin"
    """What the list is sorted by. weight: the method's last weight, low first. loss: of
    the last step. margin: the mean over epochs of the label's logit over the largest
    other. probability, quality: what the trained network gives the label, as it is and
    by confident learning."""
    count: int = 20
    """Examples to list."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = tyro.cli(
        Arguments, prog="python -m experiments.suspects", description=__doc__, args=argv
    )
    console = Console(highlight=False)
    try:
        for table in tables(arguments):
            console.print(table)
    except RecordError as error:
        console.print(f"[bold red]error[/] {error}", soft_wrap=True)
        return 1
    return 0


def tables(arguments: Arguments) -> list[Table]:
    """The examples, and how well each score finds changed labels if that is known."""
    run = read_runs(arguments.run)[0]
    examples = run.example_weights
    if not examples:
        raise RecordError(f"{run.path} has no weights: train it with --export-weights.")
    if examples["labels"].ndim > 1:
        raise RecordError(f"{run.path} has a label for every pixel, none to list.")
    scores = suspicion(examples)
    if arguments.by not in scores:
        raise RecordError(
            f"by must be one of {', '.join(scores)} for this run, got {arguments.by}."
        )
    order = np.argsort(-scores[arguments.by], kind="stable")[: arguments.count]
    shown = {name: examples[k] for name, k in _SHOWN.items() if k in examples}
    if examples["changed"].any():
        shown["clean label"] = examples["clean_labels"]
    shown |= {name: examples[SCORES[name][0]] for name in scores}
    listed = _table(
        f"Most suspicious by {arguments.by}: {run.path}",
        ["", *shown],
        [[i + 1, *(x[at] for x in shown.values())] for i, at in enumerate(order)],
    )
    if not examples["changed"].any():
        return [listed]
    found = detections(examples)
    share = 100 * examples["changed"].mean()
    return [
        listed,
        _table(
            f"Finding the {share:.1f}% wrong labels",
            ["score", "AUROC", "precision"],
            [[name, *own.values()] for name, own in found.items()],
        ),
    ]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            *(
                f"{x:.4g}" if isinstance(x, (float, np.floating)) else str(x)
                for x in row
            )
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
