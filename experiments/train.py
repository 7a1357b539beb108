"""Trains a model with any of the methods, on anything from a laptop to a TPU pod.

    python -m experiments.train --list
    python -m experiments.train PRESET [settings] [--help]

The same command goes on with a run that was interrupted, from its last checkpoint, and
ends with the very same parameters. See docs/training.md.
"""

import contextlib
import dataclasses
import json
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from experiments import configs, datasets
from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.methods import LOSSES, WEIGHTINGS
from experiments.records import logs
from experiments.training import evaluation
from experiments.training.checkpoint import Checkpoints
from experiments.training.evaluation import Predictions
from experiments.training.program import (
    Carry,
    Examples,
    Program,
    make_mesh,
    make_program,
    place,
)

_LAST = 5  # epochs in the mean that is reported
_EVAL_BATCH = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how a run runs: no change of results beyond rounding."""

    out: str | None = None
    """Run folder. Default: runs/PRESET."""
    overwrite: bool = False
    """Delete what is in the run folder and start over."""
    checkpoints: str | None = None
    """Folder of checkpoints, for several hosts one they share (gs://...). Default:
    inside the run folder."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the best and the last epoch are always saved."""
    checkpoint_steps: int | None = None
    """Save within epochs too, after this many steps."""
    devices: int | None = None
    """Use the first few devices only."""
    fsdp: bool = False
    """Split parameters and optimiser state over devices."""
    scan: bool | None = None
    """Run whole epochs in one program. Default: where that is fast."""
    workers: int = 0
    """Processes that read streamed images; 0 uses threads."""
    export_weights: bool = False
    """Write weights.npz: the last weight of every training example."""
    geometry: bool = False
    """Report Fisher ratio, tightness and cosines of the embeddings."""
    progress: bool = True
    """Show a progress bar."""
    distributed: bool = False
    """One of several processes; on TPU and Slurm the rest is found out."""
    coordinator: str | None = None
    """Several processes elsewhere: host:port of the first."""
    num_processes: int | None = None
    process_id: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line sets."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    machine: Annotated[Machine, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Machine
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kinds:
    """Which loss and weighting: what other settings there are depends on these."""

    loss: Annotated[
        tyro.extras.literal_type_from_choices(LOSSES),
        tyro.conf.arg(name="method.loss"),
    ]
    weighting: Annotated[
        tyro.extras.literal_type_from_choices(WEIGHTINGS),
        tyro.conf.arg(name="method.weighting"),
    ]


_KINDS = (
    "--method.loss NAME and --method.weighting NAME choose another loss or weighting, "
    f"with settings of its own. Losses: {', '.join(LOSSES)}. "
    f"Weightings: {', '.join(WEIGHTINGS)}."
)


class RunError(Exception):
    """A run cannot start or go on; the message says why and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if argv[0] == "--list":
        _print_presets()
        return 0
    console = Console(stderr=True)
    try:
        return _run_command(argv)
    except (RunError, datasets.DataNotFoundError) as error:
        console.print("[bold red]error[/] ", end="")
        console.print(str(error), markup=False, highlight=False)
        return 1


def _run_command(argv: Sequence[str]) -> int:
    name, *settings = argv
    if name not in configs.PRESETS:
        raise RunError(f"no preset is named {name!r}; --list shows their names.")
    with _explained():
        command = parse(configs.PRESETS[name], settings, name)
    machine = command.machine
    if machine.distributed or machine.coordinator is not None:
        jax.distributed.initialize(
            machine.coordinator, machine.num_processes, machine.process_id
        )
    run = Path(machine.out or f"runs/{name}")
    return train(command.config, machine, run, preset=name)


def parse(preset: configs.Preset, settings: Sequence[str], name: str) -> Command:
    """A preset with the settings of a command line."""
    prog = f"python -m experiments.train {name}"
    config, rest = _with_kinds(preset.config, settings, prog)
    return tyro.cli(
        # The kinds are chosen by now, and only their own settings are offered.
        tyro.conf.AvoidSubcommands[Command],
        prog=prog,
        description=f"{preset.about}\n\n{_KINDS}",
        args=rest,
        default=Command(config=config),
    )


def _with_kinds(
    config: TrainConfig, settings: Sequence[str], prog: str
) -> tuple[TrainConfig, list[str]]:
    """Takes ``--method.loss NAME`` and ``--method.weighting NAME`` out of settings."""
    method = config.method
    kinds, rest = tyro.cli(
        _Kinds,
        prog=prog,
        args=settings,
        default=_Kinds(loss=method.loss.name, weighting=method.weighting.name),
        return_unknown_args=True,
        add_help=False,
    )
    changes = {}
    if kinds.loss != method.loss.name:
        changes["loss"] = LOSSES[kinds.loss]()
    if kinds.weighting != method.weighting.name:
        changes["weighting"] = WEIGHTINGS[kinds.weighting]()
    if changes:
        method = dataclasses.replace(method, **changes)
        config = dataclasses.replace(config, method=method)
    return config, rest


def train(
    config: TrainConfig,
    machine: Machine,
    run: Path,
    *,
    preset: str | None = None,
    splits: Splits | None = None,
    make: Callable[..., Any] | None = None,
) -> int:
    """Trains, or goes on training, in a run folder.

    Args:
      config: what to compute.
      machine: where and how.
      run: the run folder.
      preset: the preset's name, for the record.
      splits: the data, if it does not come from ``config.data``.
      make: ``rngs -> model``, if it is not ``config.model``: a Flax NNX module like
        those of `experiments.models`.

    Returns:
      The exit status: 0 when done, 143 when told to stop (state saved).

    Raises:
      RunError: if the folder holds another run, or a loss is not finite.
      DataNotFoundError: if the data is not on this machine.
    """
    first = jax.process_index() == 0
    console = Console(quiet=not first, highlight=False)
    with _explained():
        splits = datasets.load(config.data) if splits is None else splits
        console.print(datasets.describe(splits), soft_wrap=True)
        mesh = make_mesh(machine.devices)
        program = make_program(
            config,
            splits,
            mesh,
            fsdp=machine.fsdp,
            scan=machine.scan,
            initial=_initial(config),
            make=make,
        )
    folders = _open_folders(config, machine, run, splits, preset)
    checkpoints = Checkpoints(machine.checkpoints or run / "checkpoints")
    feed = Feed(config, machine, splits, program, mesh)

    carry = program.init()
    epoch, step, history = 0, 0, [[] for _ in folders]
    if (restored := checkpoints.restore(carry)) is not None:
        carry, host = restored
        epoch, step, history = host["epoch"], host["step"], host["history"]
        feed.set_state(host["feed"])
        console.print(f"continues at epoch {epoch}, step {step}, of {run}")
    for folder, rows in zip(folders, history, strict=True):
        folder.rewind(rows)

    def save(epoch, step, score):
        host = {"epoch": epoch, "step": step, "history": history}
        host["feed"] = feed.get_state()
        number = epoch * program.steps_per_epoch + step
        checkpoints.save(number, carry, host, score=score)

    predictions = None
    best = max(
        (s for s in map(_score, zip(*history, strict=True)) if s is not None),
        default=None,
    )
    bar = _progress(console, config, program, epoch, step, shown=machine.progress)
    with bar as advance, _stop_signal() as stop_asked, contextlib.closing(feed):
        while epoch < config.epochs:
            if step == 0:
                carry = program.reset(carry)
            clock = _Clock()
            pending = None
            for size in _blocks(program, machine, step):
                carry, losses = feed.block(carry, epoch, step, size)
                # Looking at the block before keeps the device busy with this one.
                _check_finite(pending, epoch, checkpoints)
                pending = step, losses
                step += size
                clock.tick(size, losses)
                advance(size)
                if step < program.steps_per_epoch:
                    stop = stop_asked(epoch * program.steps_per_epoch + step)
                    every = machine.checkpoint_steps
                    if stop or (every and step % every == 0):
                        _check_finite(pending, epoch, checkpoints)
                        _check_parameters(carry, program, epoch, checkpoints)
                        save(epoch, step, -math.inf)
                    if stop:
                        return _stop(checkpoints, console)
            _check_finite(pending, epoch, checkpoints)
            _check_parameters(carry, program, epoch, checkpoints)
            seconds, rate = clock.read(config.batch_size * config.seeds)

            rows = _training_rows(carry, config, program, epoch)
            for row in rows:
                row |= {"seconds": seconds, "examples_per_second": rate}
            if _evaluates(config, epoch):
                predictions = _predict(carry, program, splits, mesh, machine)
                for row, parts in zip(rows, predictions, strict=True):
                    row |= evaluation.evaluate(
                        parts["val"],
                        parts["test"],
                        splits,
                        config.method,
                        geometry=machine.geometry,
                    )
            for past, folder, row in zip(history, folders, rows, strict=True):
                past.append(row)
                folder.append(row)
            console.print(_line(config, rows), soft_wrap=True)
            epoch, step = epoch + 1, 0
            score = _score(rows)
            improved = score is not None and (best is None or score > best)
            best = score if improved else best
            stop = stop_asked(epoch * program.steps_per_epoch)
            if (
                improved
                or stop
                or epoch == config.epochs
                or epoch % machine.checkpoint_every == 0
            ):
                save(epoch, step, -math.inf if score is None else score)
            if stop and epoch < config.epochs:
                return _stop(checkpoints, console)

    if predictions is None:
        predictions = _predict(carry, program, splits, mesh, machine)
    _finish(carry, program, checkpoints, folders, history, predictions, splits, machine)
    checkpoints.close()
    _print_summary(console, history, run)
    return 0


@contextlib.contextmanager
def _explained():
    """Turns what is wrong with settings into a message without a traceback."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


def _initial(config: TrainConfig) -> dict[str, np.ndarray] | None:
    """Weights to start from, by path."""
    if config.init_from is None:
        if config.trained == "classifier":
            raise RunError(
                "init_from must be given to train the classifier alone: best.npz or "
                "last.npz of the run whose other layers it is to use."
            )
        return None
    try:
        return dict(np.load(config.init_from))
    except OSError as error:
        raise RunError(f"init_from cannot be read: {error}") from error


class Feed:
    """Blocks of training steps on data that is on the device, or is read on the way."""

    def __init__(
        self,
        config: TrainConfig,
        machine: Machine,
        splits: Splits,
        program: Program,
        mesh: jax.sharding.Mesh,
    ):
        self._program = program
        self._order: tuple[int, Any] = (-1, None)
        self._streams = {}
        if splits.streaming:
            sizes = {"train": config.batch_size}
            if config.method.needs_meta:
                sizes["meta"] = config.meta_batch_size
            self._streams = {
                name: _stream(splits, name, size, machine, seed=config.seed)
                for name, size in sizes.items()
            }
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))

    def block(
        self, carry: Carry, epoch: int, step: int, size: int
    ) -> tuple[Carry, jax.Array]:
        """Takes ``size`` steps from ``step`` of ``epoch``; returns their losses."""
        if self._streams:
            batches = {name: self._next(name) for name in self._streams}
            return self._program.step(carry, batches["train"], batches.get("meta"))
        if self._order[0] != epoch:
            self._order = epoch, self._program.order(epoch)
        return self._program.block(carry, self._order[1], step, size)

    def get_state(self) -> dict[str, Any]:
        """Where the streams are; data on the device needs no more than the step."""
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        for name, stream in self._streams.items():
            stream.set_state(state[name])

    def close(self) -> None:
        """Ends readers."""
        for stream in self._streams.values():
            stream.close()

    def _next(self, name: str) -> Examples:
        batch = next(self._streams[name])
        return Examples(
            *(
                jax.make_array_from_process_local_data(self._sharding, batch[key])
                for key in ("inputs", "targets", "index")
            )
        )


class _Clock:
    """Speed without the first block of an epoch, which may include compilation."""

    def __init__(self):
        self._start = time.perf_counter()
        self._blocks = self._steps = 0

    def tick(self, steps: int, result: jax.Array) -> None:
        self._blocks += 1
        if self._blocks == 1:
            jax.block_until_ready(result)
            self._after_first = time.perf_counter()
        else:
            self._steps += steps

    def read(self, examples_per_step: int) -> tuple[float, float | None]:
        """Seconds of the epoch and examples per second; call when all is done."""
        now = time.perf_counter()
        rate = None
        if self._steps:
            rate = self._steps * examples_per_step / (now - self._after_first)
        return now - self._start, rate


def _blocks(program: Program, machine: Machine, start: int) -> Iterator[int]:
    """Sizes of the blocks that finish an epoch from a step on."""
    size = 1
    if program.scans:
        size = machine.checkpoint_steps or program.steps_per_epoch
    for step in range(start, program.steps_per_epoch, size):
        yield min(size, program.steps_per_epoch - step)


def _check_finite(pending: Any, epoch: int, checkpoints: Checkpoints) -> None:
    """Stops at the first loss that is not finite."""
    if pending is None:
        return
    start, losses = pending
    losses = np.asarray(losses)
    bad = ~np.isfinite(losses)
    if not bad.any():
        return
    seed, step = min(zip(*np.nonzero(bad), strict=True), key=lambda at: at[1])
    what = f"the loss is {losses[seed, step]} at step {start + step}"
    if step:
        what += f" ({losses[seed, step - 1]:.4g} one step before)"
    if len(losses) > 1:
        what += f" of seed number {seed}"
    _diverged(what, epoch, checkpoints)


def _check_parameters(
    carry: Carry, program: Program, epoch: int, checkpoints: Checkpoints
) -> None:
    """Keeps a step that broke the parameters out of evaluation and checkpoints."""
    if not np.asarray(program.finite(carry)).all():
        _diverged("parameters are not finite", epoch, checkpoints)


def _diverged(what: str, epoch: int, checkpoints: Checkpoints) -> None:
    checkpoints.close()
    raise RunError(
        f"{what} in epoch {epoch + 1}. The last good checkpoint is kept. Try a lower "
        "learning rate, a warm-up (--optimizer.warmup-epochs) or a bound on gradients "
        "(--optimizer.clip-norm), with --overwrite or another --out."
    )


@contextlib.contextmanager
def _stop_signal():
    """Yields ``stop_asked(step)``: whether SIGTERM has come, on all hosts alike."""
    if jax.process_count() > 1:
        # Its service catches the signal, and lets all hosts stop at the same step.
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(checkpoints: Checkpoints, console: Console) -> int:
    checkpoints.close()
    console.print("told to stop: state saved; the same command goes on from here")
    return 128 + signal.SIGTERM


# Records of an epoch


def _training_rows(
    carry: Carry, config: TrainConfig, program: Program, epoch: int
) -> list[logs.Row]:
    """What training itself says about an epoch, for every seed."""
    totals = jax.tree.map(np.asarray, carry.totals)
    rate = program.learning_rate(epoch * program.steps_per_epoch)
    rows = []
    for seed in range(config.seeds):
        t = jax.tree.map(lambda x, seed=seed: x[seed], totals)
        mean = t.group_weight.sum() / t.group_count.sum()
        variance = t.weight_square / t.steps - mean**2
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * program.steps_per_epoch,
            "learning_rate": float(rate),
            "train/loss": float(t.loss / t.steps),
            "train/weighted_loss": float(t.weighted_loss / t.steps),
            "train/loss_by_class": _means(t.group_loss, t.group_count),
            "weights/mean": float(mean),
            "weights/std": float(np.sqrt(np.maximum(variance, 0))),
            "weights/min": float(t.weight_min),
            "weights/max": float(t.weight_max),
            "weights/by_class": _means(t.group_weight, t.group_count),
        }
        if not config.method.is_regression:
            row["train/accuracy"] = float(t.hits / t.steps)
        if t.changed_count[1]:
            right, wrong = _means(t.changed_weight, t.changed_count)
            row |= {"weights/unchanged_labels": right, "weights/changed_labels": wrong}
        rows.append(row)
    return rows


def _means(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]


def _evaluates(config: TrainConfig, epoch: int) -> bool:
    due = (epoch + 1) % config.eval_every == 0
    return due or epoch >= config.epochs - _LAST


def _score(rows: Sequence[logs.Row], split: str = "val") -> float | None:
    """Mean over seeds of what the best epoch is chosen by."""
    scores = [evaluation.score(row, split=split) for row in rows]
    return None if None in scores else float(np.mean(scores))


def _predict(
    carry: Carry,
    program: Program,
    splits: Splits,
    mesh: jax.sharding.Mesh,
    machine: Machine,
) -> list[dict[str, Predictions | None]]:
    """Outputs on validation and test set, for every seed."""
    found = {}
    for name in ("val", "test"):
        batches = _batches(splits, name, mesh, machine)
        parts = [
            (program.forward(carry, inputs), targets, keep)
            for inputs, targets, keep in batches
        ]
        if not parts:
            continue
        outputs = [
            np.concatenate([np.asarray(x)[:, keep] for x, keep in chunk], axis=1)
            for chunk in zip(
                *([(x, keep) for x in out] for out, _, keep in parts), strict=True
            )
        ]
        targets = np.concatenate([targets[keep] for _, targets, keep in parts])
        found[name] = (*outputs, targets)
    seeds = len(found["test"][0])
    return [
        {
            name: Predictions(found[name][0][s], found[name][1][s], found[name][2])
            if name in found
            else None
            for name in ("val", "test")
        }
        for s in range(seeds)
    ]


def _batches(
    splits: Splits, name: str, mesh: jax.sharding.Mesh, machine: Machine
) -> Iterator[tuple[jax.Array, np.ndarray, np.ndarray]]:
    """``(inputs, targets, which are real)``, all of one shape."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    inputs, targets = getattr(splits, name)
    count = len(targets)
    size = -(-min(_EVAL_BATCH, count) // mesh.size) * mesh.size
    if count and splits.streaming:
        stream = _stream(splits, name, size, machine)
        starts = range(0, count, size)
        with contextlib.closing(stream):
            for start, batch in zip(starts, stream, strict=False):
                local = batch["inputs"]
                placed = jax.make_array_from_process_local_data(sharding, local)
                index = np.asarray(
                    multihost_utils.process_allgather(batch["index"], tiled=True)
                )
                del start
                yield placed, targets[index], index >= 0
        return
    for start in range(0, count, size):
        index = np.arange(start, start + size)
        keep = index < count
        index = np.minimum(index, count - 1)
        yield place(inputs[index], sharding), targets[index], keep


def _stream(
    splits: Splits, name: str, size: int, machine: Machine, seed: int = 0
) -> Any:
    from experiments.datasets.streaming import stream

    return stream(
        splits,
        name,
        batch_size=size,
        seed=seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=machine.workers,
    )


# The run folder


def _open_folders(
    config: TrainConfig,
    machine: Machine,
    run: Path,
    splits: Splits,
    preset: str | None,
) -> list[logs.RunFolder]:
    """A folder of records for each seed; refuses the folder of another run."""
    writes = jax.process_index() == 0
    plain = logs.plain(config)
    if writes:
        checkpoints = Path(machine.checkpoints) if machine.checkpoints else None
        if machine.overwrite:
            for folder in (run, checkpoints):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
        elif (run / "config.json").exists():
            _refuse_other(json.loads((run / "config.json").read_text()), plain, run)
        elif run.exists() and any(run.iterdir()):
            raise RunError(
                f"{run} is not empty and holds no run; choose another --out."
            )
    multihost_utils.sync_global_devices("run folder")
    facts = {
        "preset": preset,
        "config": plain,
        "machine": logs.plain(machine),
        **logs.environment(),
        "digest": splits.digest,
        "class_counts": None
        if splits.class_counts is None
        else splits.class_counts.tolist(),
        "shots": splits.shots,
    }
    if config.seeds == 1:
        folders = [logs.RunFolder(run, writes)]
    else:
        logs.RunFolder(run, writes).start(facts | {"seed": None}, splits.indices)
        names = (f"seed{config.seed + i}" for i in range(config.seeds))
        folders = [logs.RunFolder(run / name, writes) for name in names]
    for i, folder in enumerate(folders):
        folder.start(facts | {"seed": config.seed + i}, splits.indices)
    return folders


def _refuse_other(found: dict[str, Any], plain: dict[str, Any], run: Path) -> None:
    """Raises unless the folder is that of a run with the same settings."""
    before, now = (_flat(x) for x in (found["config"], plain))
    if before == now:
        return
    changes = ", ".join(
        f"{name} {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    )
    raise RunError(
        f"{run} holds a run with other settings ({changes}). Choose another --out, or "
        "--overwrite to delete it."
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _finish(
    carry: Carry,
    program: Program,
    checkpoints: Checkpoints,
    folders: Sequence[logs.RunFolder],
    history: Sequence[Sequence[logs.Row]],
    predictions: Sequence[dict[str, Predictions | None]],
    splits: Splits,
    machine: Machine,
) -> None:
    """Writes what a finished run leaves: selections, outputs and weights."""
    checkpoints.wait()
    weights = {"last.npz": _on_host(program.weights(carry))}
    if len(splits.val.targets):
        best, _ = checkpoints.restore_best(carry)
        weights["best.npz"] = _on_host(program.weights(best))
    example_weights = np.asarray(carry.example_weights)
    for i, folder in enumerate(folders):
        rows, parts = history[i], predictions[i]
        folder.write("summary.json", select(rows))
        final = {f"test_{k}": v for k, v in parts["test"]._asdict().items()}
        if parts["val"] is not None:
            final |= {
                "val_logits": parts["val"].logits,
                "val_targets": parts["val"].targets,
            }
        final |= {"tau": rows[-1]["tau"]} if "tau" in rows[-1] else {}
        if splits.class_counts is not None:
            final["class_counts"] = splits.class_counts
        folder.write("final.npz", final)
        for name, arrays in weights.items():
            folder.write(name, {k: v[i] for k, v in arrays.items()})
        if machine.export_weights:
            folder.write(
                "weights.npz",
                {
                    "indices": splits.indices["train"],
                    "weights": example_weights[i],
                    "labels": splits.train.targets,
                    "clean_labels": splits.clean_targets,
                    "changed": splits.train.targets != splits.clean_targets,
                },
            )
        folder.close()


def _on_host(weights: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """Arrays on the host, whole; all processes must take part."""
    gathered = {}
    for name, array in weights.items():
        if not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
        gathered[name] = np.asarray(array)
    return gathered


def select(rows: Sequence[logs.Row]) -> dict[str, logs.Row]:
    """The results of a run, by the rule that chose them.

    ``best`` is the best epoch on the validation set, ``last5`` the mean of the last
    five, ``last`` the last; ``parity`` is the best on the test set, for comparison with
    publications that chose so, and no honest result.
    """
    evaluated = [row for row in rows if evaluation.score(row, split="test") is not None]
    last = evaluated[-_LAST:]
    numbers = [k for k, v in last[-1].items() if isinstance(v, (int, float))]
    chosen = {
        "last": last[-1],
        "last5": {k: float(np.mean([row[k] for row in last])) for k in numbers},
        "parity": max(evaluated, key=lambda row: evaluation.score(row, split="test")),
    }
    if evaluation.score(last[-1]) is not None:
        chosen["best"] = max(evaluated, key=evaluation.score)
    return chosen


# What is printed


@contextlib.contextmanager
def _progress(
    console: Console,
    config: TrainConfig,
    program: Program,
    epoch: int,
    step: int,
    *,
    shown: bool,
):
    """A progress bar; yields ``advance(steps)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]} examples/s, ETA"),
        TimeRemainingColumn(),
    )
    total = config.epochs * program.steps_per_epoch
    done = epoch * program.steps_per_epoch + step
    per_step = config.batch_size * config.seeds
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task("steps", total=total, completed=done, speed="-")

        def advance(steps):
            speed = progress.tasks[0].speed
            text = "-" if speed is None else f"{speed * per_step:,.0f}"
            progress.update(task, advance=steps, speed=text)

        yield advance


def _line(config: TrainConfig, rows: Sequence[logs.Row]) -> str:
    """An epoch in a line; means over seeds."""

    def mean(name):
        return np.mean([row[name] for row in rows])

    row = rows[0]
    parts = [
        f"epoch {row['epoch']}/{config.epochs}",
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


def _print_summary(
    console: Console, history: Sequence[Sequence[logs.Row]], run: Path
) -> None:
    """The table of results: test metrics by rule of selection, means over seeds."""
    summaries = [select(rows) for rows in history]
    names = [
        f"test/{name}"
        for name in (
            *("accuracy", "balanced_accuracy", "many", "medium", "few"),
            *("top5_accuracy", "ece", "mae", "rmse", "geometric_mean"),
            *("many_mae", "medium_mae", "few_mae"),
        )
        if f"test/{name}" in summaries[0]["last"]
    ]
    table = Table(title=f"test results of {run}")
    for column in ("chosen", "epoch", *(n.removeprefix("test/") for n in names)):
        table.add_column(column.replace("_", " "))
    titles = {"best": "best", "last5": f"last {_LAST}", "last": "last"}
    for rule, title in (titles | {"parity": "parity"}).items():
        if rule not in summaries[0]:
            continue
        chosen = [summary[rule] for summary in summaries]
        epochs = sorted({int(row["epoch"]) for row in chosen})
        epoch = "-" if rule == "last5" else ", ".join(map(str, epochs))
        cells = []
        for name in names:
            values = [row[name] for row in chosen]
            cell = _format(name, np.mean(values))
            if len(values) > 1:
                cell += f" ± {_format(name, np.std(values, ddof=1))}"
            cells.append(cell)
        table.add_row(title, epoch, *cells)
    console.print(table)
    console.print(
        "best: epoch chosen on validation. parity: epoch chosen on the test set, as "
        "some publications do; no honest result."
    )


def _format(name: str, value: float) -> str:
    is_share = any(x in name for x in ("accuracy", "many", "medium", "few", "ece"))
    if is_share and not name.endswith("mae"):
        return f"{100 * value:.2f}"
    return f"{value:.4g}"


def _print_presets() -> None:
    table = Table(title="presets (append -small for the small twin, marked +)")
    table.add_column("preset", no_wrap=True)
    for column in ("", "what", "data", "published, %"):
        table.add_column(column)
    for name, preset in configs.PRESETS.items():
        if not name.endswith("-small"):
            twin = "+" if f"{name}-small" in configs.PRESETS else ""
            data = configs.needs(preset.config)
            known = preset.published
            figure = f"{known.accuracy:.2f}" if known else ""
            table.add_row(name, twin, preset.about, data, figure)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
