"""Statistics of training: sums over the steps of an epoch, and their record."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.records.epochs import Row
from experiments.training.batches import Data, Examples


class Totals(NamedTuple):
    """Sums over the steps of an epoch; groups are classes, or regions of a target."""

    steps: jax.Array  # shape=()
    loss: jax.Array  # shape=()
    weighted_loss: jax.Array  # shape=()
    hits: jax.Array  # shape=(); training examples classified as labelled
    weight_square: jax.Array  # shape=()
    weight_min: jax.Array  # shape=()
    weight_max: jax.Array  # shape=()
    group_count: jax.Array  # [G]
    group_weight: jax.Array  # [G]
    group_loss: jax.Array  # [G]
    changed_count: jax.Array  # [2]; of right and of changed labels
    changed_weight: jax.Array  # [2]


def zero_totals(groups: int) -> Totals:
    """Totals before the first step of an epoch."""
    shapes: list[tuple[int, ...]] = [*[()] * 7, *[(groups,)] * 3, *[(2,)] * 2]
    zeros = Totals(*map(jnp.zeros, shapes))
    return zeros._replace(weight_min=jnp.float32(jnp.inf))


def add_step(
    totals: Totals, metrics: Mapping[str, jax.Array], batch: Examples, data: Data
) -> Totals:
    """Sums that include one more step."""
    weights, losses = metrics["weights"], metrics["losses"]
    group, changed = data.group[batch.position], data.changed[batch.position]
    hits = jnp.mean(metrics["predictions"] == batch.targets)
    return Totals(
        steps=totals.steps + 1,
        loss=totals.loss + metrics["loss"],
        weighted_loss=totals.weighted_loss + metrics["weighted_loss"],
        hits=totals.hits + hits,
        weight_square=totals.weight_square + jnp.mean(weights**2),
        weight_min=jnp.minimum(totals.weight_min, weights.min()),
        weight_max=jnp.maximum(totals.weight_max, weights.max()),
        group_count=totals.group_count.at[group].add(1.0),
        group_weight=totals.group_weight.at[group].add(weights),
        group_loss=totals.group_loss.at[group].add(losses),
        changed_count=totals.changed_count.at[changed].add(1.0),
        changed_weight=totals.changed_weight.at[changed].add(weights),
    )


def record(totals: Totals, *, regression: bool) -> Row:
    """Means over an epoch, for one seed."""
    t = totals
    mean = t.group_weight.sum() / t.group_count.sum()
    variance = t.weight_square / t.steps - mean**2
    row = {
        "train/loss": float(t.loss / t.steps),
        "train/weighted_loss": float(t.weighted_loss / t.steps),
        "train/loss_by_class": _means(t.group_loss, t.group_count),
        "weights/mean": float(mean),
        "weights/std": float(np.sqrt(np.maximum(variance, 0))),
        "weights/min": float(t.weight_min),
        "weights/max": float(t.weight_max),
        "weights/by_class": _means(t.group_weight, t.group_count),
    }
    if not regression:
        row["train/accuracy"] = float(t.hits / t.steps)
    if t.changed_count[1]:
        right, wrong = _means(t.changed_weight, t.changed_count)
        row |= {"weights/unchanged_labels": right, "weights/changed_labels": wrong}
    return row


def _means(sums: jax.Array, counts: jax.Array) -> list[float | None]:
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
