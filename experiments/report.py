"""Turns runs into the tables and pictures of a paper.

    python -m experiments.report RUNS... --out DIR

RUNS are run folders of experiments.train, or folders of them. Runs whose settings
differ by seeds alone are averaged; runs on different data get separate
sections. Written to DIR: report.html, one page with everything in it; report.md,
report.json and the pictures. Unfinished runs are included and marked. See
docs/reports.md.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments.records.files import write_json, write_text
from experiments.records.runs import RecordError, read_runs
from experiments.reporting import page
from experiments.reporting.document import bullets, contents, draw, markdown
from experiments.reporting.groups import arrange
from experiments.reporting.parts import part
from experiments.reporting.tables import on_screen, tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the command line sets."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")
    ]
    """Run folders, or folders of run folders."""
    out: Path = Path("report")
    """Folder for report.html, report.md, report.json and the pictures. Files of an
    earlier report in it are replaced."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = tyro.cli(
        Arguments, prog="python -m experiments.report", description=__doc__, args=argv
    )
    try:
        report(arguments.runs, arguments.out)
    except RecordError as error:
        console = Console(stderr=True)
        console.print("[bold red]error[/] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def report(paths: Sequence[Path], out: Path) -> None:
    """Writes and prints a report on run folders.

    Raises:
      RecordError: if a folder is not one of runs, is broken, or if no run has been
        evaluated yet.
    """
    if not paths:
        raise RecordError("no run folder is given; --help says what to give.")
    runs = [run for path in paths for run in read_runs(path)]
    sections, notes = arrange(runs)
    if not sections:
        raise RecordError(" ".join(["there is nothing to report.", *notes]))
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    text = ["# Results", "", *bullets(notes)]
    found, parts = [], []
    for section in sections:
        made = tables(section)
        pictures = draw(section, out)
        found.append(contents(section, pictures))
        text += markdown(section, made, pictures)
        shown = [(out / name, caption) for name, caption in pictures]
        parts.append(part(section, made, shown))
        console.rule(section.title)
        for table in made[:2]:
            console.print(on_screen(table))
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    write_text(out / "report.md", "\n".join(text))
    write_json(out / "report.json", {"notes": notes, "sections": found})
    page.write(out / "report.html", "Results", parts, notes)
    console.print(
        f"written: {out / 'report.html'}, report.md, report.json and pictures",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
