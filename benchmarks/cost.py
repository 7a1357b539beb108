"""Cost of every method against plain SGD, and against other libraries.

Without a section, this measures the table: one training step of every method on
every model, as ratios to a plain SGD step of the same model in the same run. The steps
take turns (A B A C A ...), each compared with the SGD steps just before and after it,
so that the ratios hold on a busy machine. FLOPs and temporary memory are the compiler's
own figures for the compiled step.

Each figure stands beside its target. Results are printed, and written to --out as
JSON, Markdown and PNG.
"""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal, get_args

import jax
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks import (
    device,
    exactness,
    models,
    overhead,
    peers,
    report,
    results,
    scaling,
    steps,
    timing,
)
from benchmarks.models import Dtype
from experiments.records.environment import environment
from experiments.records.files import write_json

Model = Literal["mlp", "resnet32-bn", "resnet32-gn", "vit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    models: tuple[Model, ...] = ("mlp", "resnet32-bn", "resnet32-gn", "vit")
    """Networks: an MLP 784-512-512-10 and two ResNet-32, batch and group norm, with
    128 examples, and a ViT of 6 blocks of width 192 with 64."""
    methods: tuple[steps.MethodName, ...] = get_args(steps.MethodName)
    """Methods; plain SGD is always there."""
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    """Types of activations and matrix products; parameters stay in float32."""
    repeats: int = 15
    """Rounds of interleaved samples."""
    seconds: float = 60.0
    """No round after the third starts later than this, for each model and dtype."""
    out: Path = Path("runs/cost")
    """Directory for the results."""
    quick: bool = False
    """Only the MLP in float32, with 3 rounds: less than a minute on two cores."""
    peers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Section: per-example gradients and GDW in PyTorch, clipping by example in
    jax_privacy and optax (needs the extra `bench`)."""
    scaling: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Section: collectives on 1, 2, 4 and 8 devices (virtual ones on CPU)."""
    device: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Section: step times, images/s and the share of the roofline on the default
    device, by batch size; meant for a GPU, at most ten minutes."""
    device_batches: tuple[int, ...] = (128, 1024, 4096)
    """Batch sizes of the section --device."""


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, description=__doc__)
    if options.quick:
        options = dataclasses.replace(
            options, models=("mlp",), dtypes=("float32",), repeats=3
        )
    if options.scaling:
        jax.config.update("jax_num_cpu_devices", max(scaling.DEVICE_COUNTS))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if not (options.peers or options.scaling or options.device):
        table(options, console)
    if options.peers:
        compare_peers(options, console)
    if options.scaling:
        scale(options, console)
    if options.device:
        time_device(options, console)


def table(options: Options, console: Console) -> None:
    """All methods x models x dtypes, the error against float64, the host's share."""
    names = tuple(dict.fromkeys(("sgd", *options.methods)))
    cells, exact = [], {}
    groups = [(m, d) for m in options.models for d in options.dtypes]
    with _progress(console) as progress:
        total = len(groups) * (len(names) + options.repeats + 1) + options.repeats
        task = progress.add_task("", total=total)
        for model, dtype in groups:
            spec = models.with_dtype(models.SPECS[model], dtype)

            def advance(what, name=f"{model} {dtype}"):
                progress.update(task, advance=1, description=f"{name}: {what}")

            cells += measure(
                names, model, spec, options.repeats, options.seconds, advance
            )
            exact[f"{model} {dtype}"] = exactness.errors(spec)
            advance("exactness")
        host = overhead.measure(
            repeats=options.repeats,
            advance=lambda: progress.update(
                task, advance=1, description="host overhead"
            ),
        )
        progress.update(task, completed=total, description="done")
    found = {
        "environment": environment(),
        "cells": [dataclasses.asdict(c) for c in cells],
        "exactness": exact,
        "host": {
            name: {kind: t._asdict() for kind, t in o._asdict().items()}
            for name, o in host.items()
        },
    }
    write_json(options.out / "cost.json", found)
    report.print_table(console, cells)
    report.print_exactness(console, exact)
    report.print_host(console, host)
    (options.out / "cost.md").write_text(report.markdown(cells, exact, host))
    report.draw(cells, options.out / "cost.png")
    console.print(f"Written to {options.out}: cost.json, cost.md, cost.png")


def measure(names, model, spec, repeats, seconds, advance) -> list[results.Cell]:
    """The cells of one model in one dtype."""
    batch = models.make_batch(spec, spec.batch_size, seed=0)
    dtype = spec.config.dtype
    compiled, runs = {}, {}
    for name in names:
        step = steps.make_step(name, spec)
        size = max(1, round(spec.batch_size * steps.METHODS[name].meta_share))
        meta = models.make_batch(spec, size, seed=1)
        compiled[name] = timing.compile_step(step, batch, meta)
        runs[name] = timing.stepper(compiled[name].run, step.state, batch, meta)
        advance(f"compiled {name}")
    timings = timing.interleave(
        runs,
        baselines=dict.fromkeys(runs, "sgd"),
        repeats=repeats,
        seconds=seconds,
        advance=lambda: advance("timing"),
    )
    base = compiled["sgd"]
    return [
        results.Cell(
            model=model,
            dtype=dtype,
            method=name,
            flops=None if c.has_loops else c.flops,
            temporary_bytes=c.temporary_bytes,
            compile_seconds=c.compile_seconds,
            flops_ratio=None if c.has_loops else c.flops / base.flops,
            memory_ratio=c.temporary_bytes / base.temporary_bytes,
            seconds=t.seconds,
            wall_ratio=t.ratio,
            wall_low=t.low,
            wall_high=t.high,
            cpu_ratio=t.cpu_ratio,
            rounds=t.rounds,
        )
        for (name, c), t in zip(compiled.items(), timings.values(), strict=True)
    ]


def compare_peers(options: Options, console: Console) -> None:
    """Section --peers."""
    with _progress(console) as progress:
        task = progress.add_task("peers", total=None)
        rows, missing = peers.measure(
            [m for m in options.models if m != "vit"],
            repeats=options.repeats,
            seconds=options.seconds,
            advance=lambda what: progress.update(task, advance=1, description=what),
        )
    for message in missing:
        console.print(f"[yellow]left out: {message}")
    write_json(
        options.out / "peers.json",
        {"environment": environment(*peers.PACKAGES), "rows": rows, "missing": missing},
    )
    report.print_peers(console, rows)


def scale(options: Options, console: Console) -> None:
    """Section --scaling."""
    rows = scaling.measure(options.methods, "mlp")
    write_json(
        options.out / "scaling.json", {"environment": environment(), "rows": rows}
    )
    report.print_scaling(console, rows)


def time_device(options: Options, console: Console) -> None:
    """Section --device."""
    with _progress(console) as progress:
        task = progress.add_task("device", total=None)
        roofs, rows, left_out = device.measure(
            options.models,
            options.dtypes,
            options.device_batches,
            advance=lambda what: progress.update(task, advance=1, description=what),
        )
    name = jax.devices()[0].device_kind.lower().replace(" ", "-")
    write_json(
        options.out / f"{name}.json",
        {
            "environment": environment(),
            "roofs": roofs,
            "rows": rows,
            "left_out": left_out,
        },
    )
    report.print_device(console, roofs, rows)
    for what in left_out:
        console.print(f"[yellow]left out: {what}")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    with warnings.catch_warnings():
        # Labels and other small inputs have no output to be donated to.
        warnings.filterwarnings("ignore", message="Some donated buffers")
        # Opacus and BackPACK hook modules whose inputs need no gradient.
        warnings.filterwarnings("ignore", message="Full backward hook")
        main()
