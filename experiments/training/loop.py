"""The training loop: steps, evaluation and checkpoints of a run, in this order."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from experiments import datasets
from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.records.epochs import Row, score, select
from experiments.records.folder import RunFolder
from experiments.training import evaluation, totals
from experiments.training.checkpoint import Checkpoints
from experiments.training.devices import make_mesh, on_host
from experiments.training.errors import RunError, explained
from experiments.training.evaluation import Predictions
from experiments.training.feed import Feed
from experiments.training.folders import open_folders
from experiments.training.machine import Machine, stop_signal
from experiments.training.parameters import initial_arrays
from experiments.training.program import Program
from experiments.training.screen import (
    Clock,
    epoch_line,
    progress_bar,
    results_table,
)
from experiments.training.seen import exported

STOPPED = 128 + signal.SIGTERM  # exit status


def train(
    config: TrainConfig,
    machine: Machine,
    run: Path,
    *,
    preset: str | None = None,
    splits: Splits | None = None,
    make: Callable[..., Any] | None = None,
) -> int:
    """Trains, or resumes training, in a run folder.

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
      RunError: if the folder holds another run, a loss is not finite, or a checkpoint
        cannot be written or read.
      DataNotFoundError: if the data is not on this machine.
    """
    console = Console(quiet=jax.process_index() > 0, highlight=False)
    splits, mesh, program = prepare(config, machine, splits=splits, make=make)
    console.print(datasets.describe(splits), soft_wrap=True)
    folders = open_folders(config, machine, run, splits, preset)
    return Trainer(config, machine, run, splits, mesh, program, folders, console).run()


def prepare(
    config: TrainConfig,
    machine: Machine,
    *,
    splits: Splits | None = None,
    make: Callable[..., Any] | None = None,
) -> tuple[Splits, Mesh, Program]:
    """The data of a run, the devices, and the functions to be compiled.

    The arguments and errors are those of `train`.
    """
    with explained():
        splits = datasets.load(config.data) if splits is None else splits
        mesh = make_mesh(machine.devices)
        program = Program(
            config,
            splits,
            mesh,
            fsdp=machine.fsdp,
            scan=machine.scan,
            initial=initial_arrays(config),
            make=make,
        )
    return splits, mesh, program


class Trainer:
    """The state of a run: what has been trained, evaluated and recorded."""

    def __init__(
        self,
        config: TrainConfig,
        machine: Machine,
        run: Path,
        splits: Splits,
        mesh: Mesh,
        program: Program,
        folders: Sequence[RunFolder],
        console: Console,
    ):
        self._config, self._machine, self._run = config, machine, run
        self._splits, self._program = splits, program
        self._folders, self._console = folders, console
        self._feed = Feed(config, machine, splits, program, mesh)
        self._checkpoints = Checkpoints(
            machine.checkpoints or run / "checkpoints", self._say
        )
        self._carry = program.init()
        self._epoch = self._step = 0
        self._history: list[list[Row]] = [[] for _ in folders]  # of each seed
        self._predictions: list[dict[str, Predictions]] | None = None
        self._advance: Callable[[int], None] = lambda steps: None
        self._stop_asked: Callable[[int], bool] = lambda step: False

    def run(self) -> int:
        """Trains to the end, or until told to stop; returns the exit status."""
        self._restore()
        with self._watched():
            while self._epoch < self._config.epochs:
                clock = Clock()
                if self._train_epoch(clock):
                    return self._stop()
                rows = self._evaluate(clock)
                if self._close_epoch(rows):
                    return self._stop()
            self._finish()
        return 0

    # A step

    def _train_epoch(self, clock: Clock) -> bool:
        """Takes the epoch's steps that are left; returns whether to stop within it."""
        if self._step == 0:
            self._carry = self._program.reset(self._carry)
        before = None
        for size, block in self._feed.blocks(self._epoch, self._step):
            self._carry, losses = self._program.train(self._carry, block)
            # Looking at the block before keeps the device busy with this one.
            self._check_finite(before)
            before = self._step, losses
            self._step += size
            clock.tick(size, losses)
            self._advance(size)
            if self._step < self._program.steps_per_epoch and self._pause(before):
                return True
        self._check_finite(before)
        self._check_parameters()
        return False

    def _pause(self, last: tuple[int, jax.Array]) -> bool:
        """Saves within an epoch where that is due; returns whether to stop."""
        stop = self._stop_asked(self._total_steps)
        every = self._machine.checkpoint_steps
        if stop or (every and self._step % every == 0):
            self._check_finite(last)
            self._check_parameters()
            self._save(-math.inf)
        return stop

    def _check_finite(self, block: tuple[int, jax.Array] | None) -> None:
        """Stops at the first loss that is not finite."""
        if block is None:
            return
        start, losses = block[0], np.asarray(block[1])
        bad = ~np.isfinite(losses)
        if not bad.any():
            return
        seed, step = min(zip(*np.nonzero(bad), strict=True), key=lambda at: at[1])
        what = f"the loss is {losses[seed, step]} at step {start + step}"
        if step:
            what += f" ({losses[seed, step - 1]:.4g} one step before)"
        if len(losses) > 1:
            what += f" of seed number {seed}"
        self._diverged(what)

    def _check_parameters(self) -> None:
        """Keeps a step that broke the parameters out of evaluation and checkpoints."""
        if not self._program.finite(self._carry):
            self._diverged("parameters are not finite")

    def _diverged(self, what: str) -> None:
        self._checkpoints.close()
        raise RunError(
            f"{what} in epoch {self._epoch + 1}. The last good checkpoint is kept. Try "
            "a lower learning rate, a warm-up (--optimizer.warmup-epochs) or a bound "
            "on gradients (--optimizer.clip-norm), with --overwrite or another --out."
        )

    # Evaluation

    def _evaluate(self, clock: Clock) -> list[Row]:
        """The record of the epoch, for each seed; with metrics where they are due."""
        config, epoch = self._config, self._epoch + 1
        speed = clock.read(config.batch_size * config.seeds)
        sums = jax.tree.map(np.asarray, self._carry.totals)
        rows = [
            {
                "epoch": epoch,
                "step": epoch * self._program.steps_per_epoch,
                "learning_rate": self._program.learning_rate(self._epoch),
                **totals.record(
                    jax.tree.map(lambda x, seed=seed: x[seed], sums),
                    regression=config.method.is_regression,
                ),
                **speed,
            }
            for seed in range(config.seeds)
        ]
        if evaluation.is_due(config, epoch):
            extra = self._machine.geometry and not self._splits.streaming
            names = ("val", "test", "train") if extra else ("val", "test")
            self._predictions = self._predict(names)
            for row, parts in zip(rows, self._predictions, strict=True):
                row |= evaluation.evaluate(
                    parts.get("val"),
                    parts["test"],
                    self._splits,
                    config.method,
                    geometry=self._machine.geometry,
                    train=parts.get("train"),
                )
        return rows

    def _predict(
        self, splits: Sequence[str] = ("val", "test")
    ) -> list[dict[str, Predictions]]:
        """Outputs on the validation and test sets, or others, for each seed."""
        found: list[dict[str, Predictions]] = [{} for _ in self._folders]
        for split in splits:
            parts = [
                (self._program.forward(self._carry, inputs), targets[real], real)
                for inputs, targets, real in self._feed.held_out(split)
            ]
            if not parts:
                continue
            logits, embeddings = (
                np.concatenate(
                    [np.asarray(out[i])[:, real] for out, _, real in parts], axis=1
                )
                for i in range(2)
            )
            targets = np.concatenate([targets for _, targets, _ in parts]).ravel()
            for seed, own in enumerate(found):
                z, h = (x[seed].reshape(-1, x.shape[-1]) for x in (logits, embeddings))
                own[split] = Predictions(z, h, targets)
        return found

    # Records and checkpoints

    def _close_epoch(self, rows: list[Row]) -> bool:
        """Records an epoch and saves where that is due; returns whether to stop."""
        best = self._best()
        for past, folder, row in zip(self._history, self._folders, rows, strict=True):
            past.append(row)
            folder.append(row)
        self._console.print(epoch_line(rows, self._config.epochs), soft_wrap=True)
        self._epoch, self._step = self._epoch + 1, 0
        own = _mean_score(rows)
        stop = self._stop_asked(self._total_steps)
        last = self._epoch == self._config.epochs
        if (
            own > best
            or stop
            or last
            or self._epoch % self._machine.checkpoint_every == 0
        ):
            self._save(own)
        return stop and not last

    def _best(self) -> float:
        """The highest score so far, of all seeds together."""
        scores = map(_mean_score, zip(*self._history, strict=True))
        return max(scores, default=-math.inf)

    def _save(self, own_score: float) -> None:
        host = {"epoch": self._epoch, "step": self._step, "history": self._history}
        host["feed"] = self._feed.get_state()
        self._checkpoints.save(self._total_steps, self._carry, host, score=own_score)

    def _restore(self) -> None:
        """Continues from the last checkpoint, if there is one."""
        if (restored := self._checkpoints.restore(self._carry)) is not None:
            self._carry, host = restored
            self._epoch, self._step = host["epoch"], host["step"]
            self._history = host["history"]
            self._feed.set_state(host["feed"])
            where = f"epoch {self._epoch}, step {self._step}, of {self._run}"
            self._say(f"continues at {where}")
        for folder, rows in zip(self._folders, self._history, strict=True):
            folder.rewind(rows)

    def _stop(self) -> int:
        self._checkpoints.close()
        self._say("told to stop: state saved; the same command resumes from here")
        return STOPPED

    def _finish(self) -> None:
        """Writes what a finished run leaves: selections, outputs and parameters."""
        self._checkpoints.wait()
        predictions = self._predictions or self._predict()
        arrays = {"last": on_host(self._program.model_arrays(self._carry))}
        if len(self._splits.val.targets):
            best = self._checkpoints.restore_best(self._carry)
            if best is not None:
                arrays["best"] = on_host(self._program.model_arrays(best[0]))
        exports = self._exports() if self._machine.export_weights else []
        summaries = [select(rows) for rows in self._history]
        for seed, folder in enumerate(self._folders):
            row = self._history[seed][-1]
            outputs = evaluation.final_outputs(predictions[seed], row, self._splits)
            folder.write("final.npz", outputs)
            for name, found in arrays.items():
                own = {path: x[seed] for path, x in found.items()}
                folder.write(f"{name}.npz", own)
            if exports:
                for name, content in exports[seed].items():
                    folder.write(name, content)
            folder.write("summary.json", summaries[seed])  # last: the run is finished
            folder.close()
        self._checkpoints.close()
        self._console.print(results_table(summaries, self._run))

    def _exports(self) -> list[dict[str, Any]]:
        """Files about the training examples by name, for each seed."""
        splits = self._splits
        seen = jax.tree.map(np.asarray, self._carry.seen)
        classes = splits.num_classes is not None and not splits.dense
        trained = None
        if classes and not splits.streaming:
            trained = self._predict(("train",))
        return [
            exported(
                jax.tree.map(lambda x, seed=seed: x[seed], seen),
                None if trained is None else trained[seed]["train"].logits,
                splits,
            )
            for seed in range(len(self._folders))
        ]

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Shows progress and listens for the signal to stop; ends readers after."""
        bar = progress_bar(
            self._console,
            total=self._config.epochs * self._program.steps_per_epoch,
            done=self._total_steps,
            examples_per_step=self._config.batch_size * self._config.seeds,
            shown=self._machine.progress,
        )
        signals, feed = stop_signal(), contextlib.closing(self._feed)
        with bar as self._advance, signals as self._stop_asked, feed:
            yield

    @property
    def _total_steps(self) -> int:
        return self._epoch * self._program.steps_per_epoch + self._step

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)


def _mean_score(rows: Sequence[Row]) -> float:
    """Mean over seeds of what the best epoch is chosen by."""
    return float(np.mean([score(row) for row in rows]))
