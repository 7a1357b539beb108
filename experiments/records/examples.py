"""The table of a run's training examples, and which of their labels look wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltjax import metrics

Examples = Mapping[str, np.ndarray]  # as in example_weights.npz

SCORES = {
    "weight": ("weights", -1),
    "loss": ("losses", 1),
    "margin": ("margins", -1),
    "probability": ("probabilities", -1),
    "quality": ("quality", -1),
}
"""Scores of suspicion: an array of the export, and its sign. Weight and loss are of the
example's last step, the margin is the mean over epochs (AUM), probability and quality
are what the trained network gives the label."""


def opinions(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a network with these logits ``[N, C]`` says of the labels ``[N]``."""
    z = logits.astype(np.float64)
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return {
        "predictions": z.argmax(axis=1),
        "probabilities": probabilities[np.arange(len(labels)), labels],
        "quality": metrics.label_quality(probabilities, labels),
    }


def suspicion(examples: Examples) -> dict[str, np.ndarray]:
    """Scores by name, high where a label is probably wrong, -inf where unknown.

    Weights have a score only where they differ.
    """
    found = {}
    for name, (key, sign) in SCORES.items():
        values = sign * examples[key].astype(np.float64) if key in examples else None
        if values is None or np.isnan(values).all():
            continue
        if name != "weight" or np.nanstd(values) > 0:
            found[name] = np.where(np.isnan(values), -np.inf, values)
    return found


def detections(examples: Examples) -> dict[str, dict[str, float]]:
    """How well each score finds the labels that were changed."""
    return {
        name: metrics.detection(scores, examples["changed"])._asdict()
        for name, scores in suspicion(examples).items()
    }


def table(examples: Examples, files: Sequence[str] | None) -> dict[str, Any]:
    """Columns for people and other tools.

    ``rank`` is 1 for the lowest weight; of equal weights, the larger loss comes first.
    """
    order = np.lexsort((-examples["losses"], examples["weights"]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    columns: dict[str, Any] = {"index": examples["indices"]}
    if files is not None:
        columns["file"] = files
    columns |= {"label": examples["labels"]}
    if examples["changed"].any():
        columns["clean_label"] = examples["clean_labels"]
    columns |= {"weight": examples["weights"], "loss": examples["losses"]}
    others = {"margins": "margin", "predictions": "prediction"}
    others |= {"probabilities": "probability", "quality": "quality"}
    columns |= {name: examples[k] for k, name in others.items() if k in examples}
    return columns | {"rank": rank}
