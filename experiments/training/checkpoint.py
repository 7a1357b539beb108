"""Checkpoints that survive being killed: all of a run's state, or none of it.

A checkpoint holds two things under one step number: arrays (a tree, sharded or not)
and a small JSON object (position in the data, history of metrics). It is written in
the background from a copy, to a temporary folder that is renamed when everything is
on disk, so a kill at any moment leaves the previous one in force.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

_KEEP = 2  # one to fall back to while the other is being replaced


class Checkpoints:
    """Checkpoints of one run in one folder: the latest, and the best by score.

    All processes of a run use one folder, which they share: on several hosts a network
    file system or a bucket (``gs://...``).
    """

    def __init__(self, folder: PathLike | str):
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
          host: whatever else is needed to go on, as JSON has it.
          score: what the best checkpoint is chosen by, higher is better.
        """
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_named(_copy(state))),
                host=ocp.args.JsonSave(dict(host)),
            ),
            metrics={"score": score},
        )

    def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """The latest complete checkpoint, or None where there is none.

        Args:
          template: tree like the saved one, whose arrays tell shapes, dtypes and
            shardings.
        """
        self._drop_incomplete()
        step = self._manager.latest_step()
        return None if step is None else self._read(step, template)

    def restore_best(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """The checkpoint with the highest score, or None where there is none."""
        step = self._manager.best_step()
        return None if step is None else self._read(step, template)

    def wait(self) -> None:
        """Returns when everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then ends background work."""
        self._manager.close()

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


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"]


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path: what is on disk does not depend on our Python classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
