"""Trains a list of runs, one after the other, and resumes where it was stopped.

    python -m experiments.queue experiments/evidence.txt --out runs --keep records

Each line of the file is what would follow ``python -m experiments.train``: a preset and
its overrides. ``{out}`` in a line stands for the folder of runs, for lines that start
from the weights of an earlier one. Blank lines and what follows ``#`` are skipped.

A run that is finished is not repeated, one that was stopped continues from its last
checkpoint, and one that fails is reported before the next begins. Output of a run goes
to ``NAME.log`` beside its folder.
"""

import dataclasses
import datetime
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from experiments.configs import PRESETS
from experiments.records.files import write_json

_TRAIN = (sys.executable, "-m", "experiments.train")
_RECORDS = (
    *("config.json", "metrics.jsonl", "detection.json", "geometry.json"),
    "summary.json",  # last: a run with a summary counts as finished
)
_PLACES = ("--init-from", "--data.path", "--data.images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queue:
    """What the command line sets."""

    file: Annotated[Path, tyro.conf.Positional]
    """One run a line."""
    out: Path = Path("runs")
    """Folder of the run folders."""
    keep: Path | None = None
    """Copy the small records of finished runs (settings, results, history) here; runs
    with records here count as finished, wherever they ran."""


class Row(NamedTuple):
    """A line of the file."""

    name: str  # of the run folder
    words: list[str]


class QueueError(Exception):
    """The file cannot be run; the message says why."""


def main(argv: Sequence[str] | None = None, *, command: Sequence[str] = _TRAIN) -> int:
    """Runs the command line; returns the exit status."""
    queue = tyro.cli(Queue, prog="python -m experiments.queue", args=argv)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        rows = read(queue.file)
        return min(run(rows, queue.out, queue.keep, command=command), 1)
    except QueueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues from here")
        return 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def read(file: Path) -> list[Row]:
    """The rows of a file, which must name presets and differ from each other."""
    rows: list[Row] = []
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise QueueError(f"{file} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise QueueError(f"{file}, line {number}: {error}.") from error
        if not words:
            continue
        row = Row(_name(words), words)
        if words[0] not in PRESETS:
            raise QueueError(f"{file}, line {number}: no preset {words[0]!r}.")
        if any(word.partition("=")[0] == "--out" for word in words):
            raise QueueError(f"{file}, line {number}: --out is given to the queue.")
        if row.name in (other.name for other in rows):
            raise QueueError(f"{file}, line {number}: {row.name} is there twice.")
        rows.append(row)
    return rows


def run(
    rows: Sequence[Row],
    out: Path,
    keep: Path | None = None,
    *,
    command: Sequence[str] = _TRAIN,
) -> int:
    """Trains what is not finished; returns the number of runs that failed."""
    waiting = [row for row in rows if not _is_done(row, out, keep)]
    print(f"{len(rows)} runs, {len(rows) - len(waiting)} finished", flush=True)
    start, failed = time.monotonic(), 0
    for number, row in enumerate(waiting, 1):
        status = _train(row, out, command)
        if status == 0:
            _keep(row, out, keep)
            result = "done"
        else:
            failed += 1
            result = f"FAILED with status {status}, see {_log(row, out)}"
        elapsed = time.monotonic() - start
        left = elapsed / number * (len(waiting) - number)
        print(
            f"[{number}/{len(waiting)}] {row.name}: {result}; "
            f"elapsed {_hours(elapsed)}, expected {_hours(left)} more",
            flush=True,
        )
    return failed


def _name(words: Sequence[str]) -> str:
    """A folder name from a preset and its overrides, places left out."""
    kept, skip = [words[0]], False
    for word in words[1:]:
        place, _, value = word.partition("=")
        if not skip and place not in _PLACES:
            kept.append(word.removeprefix("--"))
        skip = place in _PLACES and not value
    return re.sub(r"[^\w.+-]+", "_", "_".join(kept))


def _is_done(row: Row, out: Path, keep: Path | None) -> bool:
    if _is_finished(out / row.name):
        _keep(row, out, keep)  # with what was measured since
        return True
    return keep is not None and _is_finished(keep / row.name)


def _is_finished(run: Path) -> bool:
    """Whether all seeds of a run have results."""
    seeds = [config.parent for config in run.glob("seed*/config.json")] or [run]
    return all((seed / "summary.json").exists() for seed in seeds)


def _train(row: Row, out: Path, command: Sequence[str]) -> int:
    """Exit status of a run; a stopped queue stops it first, and its state is saved."""
    out.mkdir(parents=True, exist_ok=True)
    words = [word.replace("{out}", str(out)) for word in row.words]
    words += ["--out", str(out / row.name), "--no-progress"]
    with (
        open(_log(row, out), "a") as log,
        subprocess.Popen([*command, *words], stdout=log, stderr=log) as process,
    ):
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            raise


def _keep(row: Row, out: Path, keep: Path | None) -> None:
    """Copies a finished run's small records, those of its seeds too.

    Nothing in the copies names a folder of this machine.
    """
    if keep is None:
        return
    for name in _RECORDS:
        for path in (out / row.name).glob(f"**/{name}"):
            target = keep / path.relative_to(out)
            if name == "config.json":
                write_json(target, _without_folders(json.loads(path.read_text())))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _without_folders(facts: Any) -> Any:
    """Absolute paths shortened to their last part: they mean nothing elsewhere."""
    if isinstance(facts, dict):
        return {name: _without_folders(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [_without_folders(value) for value in facts]
    if isinstance(facts, str) and Path(facts).is_absolute():
        return Path(facts).name
    return facts


def _log(row: Row, out: Path) -> Path:
    return out / f"{row.name}.log"


def _hours(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
