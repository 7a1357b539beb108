"""The blocks of training steps of an epoch, and batches of the held-out splits."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.training.batches import Examples
from experiments.training.devices import batch_split, place
from experiments.training.machine import Machine
from experiments.training.program import Program

_EVAL_BATCH = 512


class Feed:
    """What `Program.train` takes: positions in data on the device, or read examples."""

    def __init__(
        self,
        config: TrainConfig,
        machine: Machine,
        splits: Splits,
        program: Program,
        mesh: Mesh,
    ):
        self._config, self._machine = config, machine
        self._splits, self._program, self._mesh = splits, program, mesh
        self._streams = {}
        if splits.streaming:
            sizes = {"train": config.batch_size}
            if config.method.needs_meta:
                sizes["meta"] = config.meta_batch_size
            self._streams = {
                name: _stream(splits, name, size, machine, seed=config.seed)
                for name, size in sizes.items()
            }

    def blocks(self, epoch: int, start: int) -> Iterator[tuple[int, Any]]:
        """``(number of steps, block)`` from a step of an epoch to its end."""
        if self._streams:
            for _ in range(start, self._program.steps_per_epoch):
                yield 1, (self._next("train"), self._next("meta"))
            return
        order = self._program.order(epoch)
        size = 1
        if self._program.scans:
            size = self._machine.checkpoint_steps or self._program.steps_per_epoch
        for step in range(start, self._program.steps_per_epoch, size):
            block = order[:, step : step + size]
            yield block.shape[1], block

    def held_out(
        self, split: str
    ) -> Iterator[tuple[jax.Array, np.ndarray, np.ndarray]]:
        """``(inputs, targets, which are real)`` in order, all of one shape.

        ``split`` may be ``"train"`` where data are in memory.
        """
        inputs, targets = getattr(self._splits, split)
        sharding, devices = batch_split(self._mesh), self._mesh.size
        count = len(targets)
        size = -(-min(_EVAL_BATCH, count) // devices) * devices
        if count and self._splits.streaming:
            stream = _stream(self._splits, split, size, self._machine)
            with contextlib.closing(stream):
                for _, batch in zip(range(0, count, size), stream, strict=False):
                    placed = jax.make_array_from_process_local_data(
                        sharding, batch["inputs"]
                    )
                    index = np.asarray(
                        multihost_utils.process_allgather(batch["index"], tiled=True)
                    )
                    yield placed, targets[index], index >= 0
            return
        for start in range(0, count, size):
            index = np.arange(start, start + size)
            clipped = np.minimum(index, count - 1)
            yield place(inputs[clipped], sharding), targets[clipped], index < count

    def get_state(self) -> dict[str, Any]:
        """Where the streams are; data on the device needs no more than the step."""
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from there."""
        for name, stream in self._streams.items():
            stream.set_state(state[name])

    def close(self) -> None:
        """Stops the readers."""
        for stream in self._streams.values():
            stream.close()

    def _next(self, name: str) -> Examples | None:
        """A batch as a block of one step of one seed."""
        if name not in self._streams:
            return None
        batch = next(self._streams[name])
        sharding = batch_split(self._mesh, axis=2)
        return Examples(
            *(
                jax.make_array_from_process_local_data(sharding, batch[key][None, None])
                for key in ("inputs", "targets", "index")
            )
        )


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
