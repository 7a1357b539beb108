"""Checkpoints that survive being killed: all of a run's state, or none of it.

A checkpoint holds two things under one step number: arrays (a tree, sharded or not)
and a small JSON object (position in the data, history of metrics). It is written in
the background from a copy, to a temporary folder that is renamed when everything is
on disk, so a kill at any moment leaves the previous one intact.
"""

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from experiments.training.errors import RunError

_KEEP = 2  # one to fall back to while the other is being replaced


class Checkpoints:
    """Checkpoints of one run in one folder: the latest, and the best by score.

    All processes of a run use one folder, which they share: on several hosts a network
    file system or a bucket (``gs://...``).
    """

    def __init__(self, folder: PathLike | str, say: Callable[[str], None] = print):
        """Opens the folder; ``say`` is told of checkpoints that cannot be read."""
        self._say = say
        self._quiet = _quiet_background()
        self._folder = epath.Path(folder).absolute()  # Orbax takes no relative paths
        policy = ocp.checkpoint_managers
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(
                    [policy.LatestN(_KEEP), policy.BestN(get_metric_fn=_score, n=1)]
                ),
                best_fn=_score,  # without it scores are not even written
                cleanup_tmp_directories=True,
            ),
        )

    def save(
        self, step: int, state: Any, host: Mapping[str, Any], *, score: float
    ) -> None:
        """Starts writing a checkpoint; a second one of the same step changes nothing.

        Args:
          step: number of steps taken, larger than any before.
          state: tree of arrays. They are copied first, so that they may be donated.
          host: whatever else is needed to resume, as JSON has it.
          score: what the best checkpoint is chosen by, higher is better.

        Raises:
          RunError: if this one or the one before cannot be written.
        """
        if step in self._manager.all_steps():
            return
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_named(_copy(state))),
                    host=ocp.args.JsonSave(dict(host)),
                ),
                metrics={"score": score},
            )

    def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """The latest checkpoint that can be read, or None if no checkpoint exists.

        Later ones that are damaged are deleted, since their steps are repeated.

        Args:
          template: tree like the saved one, whose arrays tell shapes, dtypes and
            shardings.

        Raises:
          RunError: if there are checkpoints and none of them can be read.
        """
        self._drop_incomplete()
        damaged: list[int] = []
        problem = None
        for step in sorted(self._manager.all_steps(), reverse=True):
            found, problem = self._try_read(step, template)
            if found is not None:
                for later in damaged:
                    self._manager.delete(later)
                return found
            damaged.append(step)
            self._say(
                f"warning: the checkpoint of step {step} cannot be read ({problem}); "
                "the steps since the one before it are repeated"
            )
        if damaged:
            raise RunError(
                f"none of the checkpoints in {self._folder} can be read. Start over "
                "with --overwrite, or choose another --out."
            )
        return None

    def restore_best(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """The checkpoint with the highest score, or None where none can be read."""
        step = self._manager.best_step()
        if step is None:
            return None
        found, problem = self._try_read(step, template)
        if found is None:
            self._say(
                f"warning: the checkpoint of step {step}, the best, cannot be read "
                f"({problem}); its parameters are left out"
            )
        return found

    def wait(self) -> None:
        """Returns when everything saved so far is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then ends background work."""
        with self._writing():
            self._manager.close()
        self._quiet.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what keeps a checkpoint from being written into a message."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: from TensorStore
            raise RunError(
                f"a checkpoint cannot be written to {self._folder}: {_brief(error)}. "
                "Is the disk full? The same command resumes from the last checkpoint "
                "once there is space."
            ) from error

    def _try_read(self, step: int, template: Any) -> tuple[Any, str]:
        """What `_read` gives, or None and why; the same on all processes."""
        found, problem = None, "another process failed to read it"
        try:
            found = self._read(step, template)
        except Exception as error:  # which one depends on what is damaged
            problem = _brief(error)
        if not multihost_utils.process_allgather(np.asarray(found is not None)).all():
            return None, problem
        return found, ""

    def _read(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _named(template))
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()
            ),
        )
        leaves = [items["state"][name] for name in _named(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves), items["host"]

    def _drop_incomplete(self) -> None:
        """Removes what a kill left behind under a finished name."""
        for step in self._manager.all_steps():
            folder = self._folder / str(step)
            if not _complete(folder) and jax.process_index() == 0:
                folder.rmtree()
        ocp.multihost.sync_global_processes("incomplete checkpoints dropped")
        self._manager.reload()


def _complete(folder: epath.Path) -> bool:
    """Whether a checkpoint folder has been committed with all its parts."""
    parts = ("_CHECKPOINT_METADATA", "state", "host", "metrics")
    return ocp.utils.is_checkpoint_finalized(folder) and all(
        (folder / part).exists() for part in parts
    )


def _brief(error: Exception) -> str:
    """The first line of an error, which may be a page."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 160 else f"... {text[-160:]}"


def _quiet_background() -> contextlib.ExitStack:
    """Prints nothing of errors in the background: the next call raises them again.

    This holds until the result is closed. It outlives a run that fails, since tasks of
    Orbax's report when they are collected.
    """
    unraisable, excepthook = sys.unraisablehook, threading.excepthook

    def is_news(record):
        source = f"{record.pathname} {logging.Formatter().format(record)}"
        return record.levelno < logging.ERROR or "orbax" not in source

    def thread_failed(args):
        if args.thread is None or "orbax" not in type(args.thread).__module__:
            excepthook(args)

    def ignored(args):
        # When one array fails, the others report to an event loop that is gone.
        if "Event loop is closed" not in str(args.exc_value):
            unraisable(args)

    undo = contextlib.ExitStack()
    undo.callback(setattr, sys, "unraisablehook", unraisable)
    undo.callback(setattr, threading, "excepthook", excepthook)
    sys.unraisablehook, threading.excepthook = ignored, thread_failed
    # Of arrays that fail together, Orbax awaits the first; asyncio logs the others.
    for logger in (logging.getLogger("absl"), logging.getLogger("asyncio")):
        logger.addFilter(is_news)
        undo.callback(logger.removeFilter, is_news)
    undo.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", ".*serialize.* was never awaited")
    return undo


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"]


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path: what is on disk does not depend on our Python classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
