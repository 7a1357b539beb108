"""Random programs against dense rows.

    python -m tests.jacobian.random_programs --count 10000 --seed 0 --jobs 2

Each program is determined by the seed and its index. What fails is printed with both,
as the source of a smaller program that fails in the same way;
``--only INDEX`` runs a single one again. Refusals are counted by what they say.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax

from tests import quick_compilation

CHUNK = 20  # programs between two looks at the clock; compiled ones are then dropped


class Result(NamedTuple):
    """One program, for the record."""

    index: int
    kind: str  # "ok", "refused", "wrong", "crash" or "unfit"
    refused: tuple[str, ...]
    report: str  # what failed, and the program


def run(seed: int, index: int, *, attempts: int = 5, shrink_it: bool = True) -> Result:
    """Draws and checks one program; one that says nothing is drawn again."""
    from tests.jacobian.programs import check, generate

    for attempt in range(attempts):
        program = generate.program(seed, index, attempt)
        try:
            outcome = check.check(program, (seed, index))
        except check.Unfit:
            continue
        refused = tuple(_kind(k, v) for k, v in outcome.refused.items())
        report = ""
        if outcome.failed:
            if shrink_it:
                program = _smallest(program, (seed, index), outcome.failed)
            lines = [f"seed {seed} index {index}: {outcome.method}"]
            lines += [f"  {name}: {text}" for name, text in outcome.failed.items()]
            report = "\n".join([*lines, str(program)])
        return Result(index, outcome.kind, refused, report)
    return Result(index, "unfit", (), "")


def _smallest(program, seed, failed):
    """A small program of which some product fails in the same way."""
    from tests.jacobian.programs import check, shrink

    ways = {_kind(k, v) for k, v in failed.items()}

    def fails(smaller):
        try:
            found = check.check(smaller, seed).failed
        except check.Unfit:
            return False
        return bool(ways & {_kind(k, v) for k, v in found.items()})

    return shrink.shrink(program, fails)


def _kind(product: str, text: str) -> str:
    """A failure or refusal without what differs from program to program."""
    if text.startswith("got"):
        return f"{product}: wrong"
    return f"{product}: {re.sub(r'[0-9]+', '#', text)[:110]}"


def _chunk(seed: int, indices: list[int]) -> list[Result]:
    with jax.enable_x64(True):
        found = [run(seed, index) for index in indices]
    jax.clear_caches()
    return found


def _results(seed: int, indices: list[int], jobs: int) -> Iterator[Result]:
    chunks = [indices[i : i + CHUNK] for i in range(0, len(indices), CHUNK)]
    if jobs == 1:
        for chunk in chunks:
            yield from _chunk(seed, chunk)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        futures = [pool.submit(_chunk, seed, chunk) for chunk in chunks]
        for future in concurrent.futures.as_completed(futures):
            yield from future.result()


def summary(results: Iterable[Result]) -> str:
    """Counts of what became of the programs, and of the refusals."""
    results = list(results)
    kinds = collections.Counter(r.kind for r in results)
    refusals = collections.Counter(text for r in results for text in r.refused)
    lines = [", ".join(f"{n} {kind}" for kind, n in kinds.most_common())]
    lines += [f"{n:6} refused {text}" for text, n in refusals.most_common(40)]
    return "\n".join(lines)


def main() -> None:
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first index")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this index alone")
    args = parser.parse_args()
    indices = list(range(args.start, args.start + args.count))
    if args.only is not None:
        indices = [args.only]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # of processes started from here
    jax.config.update("jax_num_cpu_devices", int(os.environ["JAX_NUM_CPU_DEVICES"]))
    quick_compilation.set_flags()
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn())
    results = []
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("programs", total=len(indices))
        for result in _results(args.seed, indices, args.jobs):
            results.append(result)
            progress.advance(task)
            if result.report:
                progress.console.print(result.report, markup=False, soft_wrap=True)
    print(summary(results))
    raise SystemExit(any(r.report for r in results))


if __name__ == "__main__":
    main()
