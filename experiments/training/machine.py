"""Where and how a run runs, and the signal that stops it."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how to run; results do not depend on it beyond rounding."""

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
    """Write example_weights.npz, .csv and .parquet: weight, loss and margin of every
    training example, and what the trained network says of its label."""
    geometry: bool = False
    """Report Fisher ratio, tightness and cosines of the embeddings, of the training set
    too where it is in memory."""
    progress: bool = True
    """Show a progress bar."""
    distributed: bool = False
    """One of several processes; on TPU and Slurm the rest is detected."""
    coordinator: str | None = None
    """Several processes elsewhere: host:port of the first."""
    num_processes: int | None = None
    process_id: int | None = None


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
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
