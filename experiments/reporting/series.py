"""Series of a report: what its pictures draw, as arrays."""

from collections.abc import Sequence

import numpy as np

from experiments.methods.post_hoc import adjusted
from experiments.records.runs import Run
from experiments.reporting.groups import Group
from ltjax import metrics

_MOST = 20  # classes that are drawn one by one
_PARTS = 10  # groups of classes otherwise


def class_parts(counts: Sequence[int]) -> tuple[list[np.ndarray], list[str]]:
    """Classes by falling frequency, in groups if there are many; and their counts."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    parts = np.array_split(order, len(order) if len(order) <= _MOST else _PARTS)
    names = []
    for part in parts:
        high, low = counts[part[0]], counts[part[-1]]
        names.append(f"{high}" if high == low else f"{high}-{low}")
    return parts, names


def ranking(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Training examples by rising weight, and the share of wrong labels found so far.

    Examples of equal weight come in random order; those never seen come last.
    """
    weights, changed = run.example_weights["weights"], run.example_weights["changed"]
    ties = np.random.default_rng(0).permutation(len(weights))
    order = np.lexsort((ties, np.nan_to_num(weights, nan=np.inf)))
    found = np.cumsum(changed[order]) / max(changed.sum(), 1)
    return order, np.concatenate([[0.0], found])


def over_epochs(
    group: Group, key: str, scale: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Epochs that all runs have been evaluated at, and values ``[seeds, T]``."""
    rows = list(zip(*(run.evaluated for run in group.counted), strict=False))
    epochs = np.array([row[0]["epoch"] for row in rows])
    values = [[scale * row[key] for row in epoch] for epoch in rows]
    return epochs, np.array(values).T


def relative_weights(group: Group, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and weights ``[seeds, T, ...]`` over the mean of all examples."""
    rows = list(zip(*(run.rows for run in group.counted), strict=False))
    values = [
        [
            np.asarray(row[key], np.float64) / max(row["weights/mean"], 1e-12)
            for row in epoch
        ]
        for epoch in rows
    ]
    return np.array([row[0]["epoch"] for row in rows]), np.swapaxes(values, 0, 1)


def by_part(
    values: Sequence[float | None] | np.ndarray, parts: Sequence[np.ndarray]
) -> np.ndarray:
    """Means over groups of classes, NaN where there is none."""
    known = np.asarray(values, np.float64)
    return np.array([known_mean(known[part]) for part in parts])


def known_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is known."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def tightness_by_part(run: Run, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Tightness of groups of classes at the last epoch, NaN where there is none."""
    final = run.final
    classes = len(final["class_counts"])
    found = metrics.tightness(final["test_embeddings"], final["test_targets"], classes)
    measured = np.bincount(final["test_targets"], minlength=classes) > 1
    return by_part(np.where(measured, found.per_class, np.nan), parts)


def probabilities(run: Run) -> np.ndarray:
    """Of the test set, after the adjustment of the logits if the run has one."""
    logits = run.final["test_logits"].astype(np.float32)
    mode = run.config["method"]["post_hoc"]
    if mode != "none":
        tau = float(run.final["tau"])
        logits = adjusted(logits, run.final["class_counts"], mode=mode, tau=tau)
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
