"""Fills the page of results from the records of finished runs.

    python -m experiments.results

What stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` in the page is
replaced: tables of every question, and the pictures beside them. Presets that have not
been run stay blank. Records are what ``python -m experiments.queue --keep`` leaves.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro

from experiments.records.files import write_text
from experiments.records.runs import RecordError, read_runs
from experiments.reporting import answers, plots
from experiments.reporting.answers import Found
from experiments.reporting.document import bullets, grid
from experiments.reporting.questions import NOISE, QUESTIONS, Question
from experiments.reporting.reasons import REASONS, Reason

_ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the command line sets."""

    records: Path = _ROOT / "benchmarks/results/evidence"
    """Folder of the records of runs."""
    page: Path = _ROOT / "docs/results.md"
    """The page; its pictures are in ``images`` beside it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = tyro.cli(
        Arguments, prog="python -m experiments.results", description=__doc__, args=argv
    )
    page = arguments.page
    try:
        found = answers.finished_rows(read_runs(arguments.records))
        text = filled(page.read_text(), parts(found))
    except (RecordError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    for question in QUESTIONS:
        draw(question, found, images)
    for reason in REASONS:
        explain(reason, found, images)
    write_text(page, text)
    print(f"written: {page} and its pictures")
    return 0


def parts(found: Found) -> dict[str, str]:
    """The generated parts of the page by name."""
    made = {"provenance": "\n".join(bullets(answers.provenance(found))).strip()}
    for question in QUESTIONS:
        name, measured = question.name, answers.measured(question, found)
        lines = _table(answers.overview(question, found))
        if measured:
            caption = f"{question.unit}: seeds, mean and standard error"
            lines += ["", f"![{caption}](images/{_picture(name)})"]
        made[name] = "\n".join(lines)
        for comparison in question.comparisons:
            made[comparison.prefix] = "No run yet."
            if found.keys() & comparison.presets.keys():
                table = answers.details(question, comparison, found)
                made[comparison.prefix] = "\n".join(_table(table))
    weights = answers.gradtail_weights(found)
    made["gradtail"] = "\n".join(_table(weights)) if weights.rows else "No run yet."
    for reason in REASONS:
        picture = f"![{reason.caption}](images/{_picture(reason.name)})"
        made[reason.name] = picture if reason.lines(found) else "No run yet."
    tables = [answers.detections(comparison, found) for comparison in NOISE.comparisons]
    lines = [line for table in tables if table for line in [*_table(table), ""]]
    made["detection"] = "\n".join(lines).strip() or "No run yet."
    return made


def filled(page: str, made: Mapping[str, str]) -> str:
    """The page with these parts.

    Raises:
      ValueError: if the page does not have a place for each of them.
    """
    for name, text in made.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        place = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        before, *after = place.split(page)
        if len(after) != 1:
            raise ValueError(f"the page must have one place for {name}: {start} {end}")
        page = f"{before}{start}\n\n{text}\n\n{end}{after[0]}"
    return page


def draw(question: Question, found: Found, folder: Path) -> None:
    """The picture of a question, if anything has been run for it."""
    measured = answers.measured(question, found)
    path = folder / _picture(question.name)
    path.unlink(missing_ok=True)
    if measured:
        first = question.comparisons[0]
        plots.comparisons(
            path,
            measured,
            title="",
            xlabel=question.unit,
            baseline=first.presets[f"{first.prefix}-{question.baseline}"],
        )


def explain(reason: Reason, found: Found, folder: Path) -> None:
    """The picture of why a method helps, if its runs are there."""
    path = folder / _picture(reason.name)
    path.unlink(missing_ok=True)
    if lines := reason.lines(found):
        reason.draw(lines, path)


def _picture(name: str) -> str:
    return f"results-{name}.png"


def _table(table: answers.Table) -> list[str]:
    return [
        f"{table.title[0].upper()}{table.title[1:]}:",
        "",
        *grid(table.columns, table.rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
