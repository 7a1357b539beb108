"""What training has seen of every example: what its weights are exported with."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.datasets import Splits
from experiments.records.examples import detections, opinions, table


class Seen(NamedTuple):
    """Of every training example; means over pixels where these have labels."""

    weights: jax.Array  # [N]; the last one, NaN before the first
    losses: jax.Array  # [N]; alike
    margins: jax.Array  # [N]; sum over epochs
    epochs: jax.Array  # [N]; number of them


def nothing_seen(count: int) -> Seen:
    """Before the first step."""
    unknown, zeros = jnp.full(count, jnp.nan), jnp.zeros(count)
    return Seen(unknown, unknown, zeros, zeros)


def with_batch(seen: Seen, metrics: Mapping[str, jax.Array], index: jax.Array) -> Seen:
    """One more step."""
    weights, losses, margins = (
        metrics[name].reshape(len(index), -1).mean(1)
        for name in ("weights", "losses", "margins")
    )
    return Seen(
        weights=seen.weights.at[index].set(weights),
        losses=seen.losses.at[index].set(losses),
        margins=seen.margins.at[index].add(margins),
        epochs=seen.epochs.at[index].add(1.0),
    )


def exported(seen: Seen, logits: np.ndarray | None, splits: Splits) -> dict[str, Any]:
    """Files of a run folder about the training examples, by name.

    They hold what was seen of each example, its labels, the network's opinion of these
    and, where some were changed, how well this finds them.

    Args:
      seen: of one seed, on the host.
      logits: ``[N, C]`` of the trained network on the training set, where it has
        classes and lies in memory.
      splits: the data.
    """
    labels = splits.train.targets
    found = {
        "indices": splits.indices["train"],
        "weights": seen.weights,
        "losses": seen.losses,
        # The area under the margin; NaN where never seen.
        "margins": seen.margins / np.where(seen.epochs > 0, seen.epochs, np.nan),
        "labels": labels,
        "clean_labels": splits.clean_targets,
        "changed": labels != splits.clean_targets,
    }
    if logits is not None:
        found |= opinions(logits, labels)
    files: dict[str, Any] = {"example_weights.npz": found}
    if not splits.dense:
        for suffix in ("csv", "parquet"):
            files[f"example_weights.{suffix}"] = table(found, splits.files)
        if found["changed"].any():
            files["detection.json"] = detections(found)
    return files
