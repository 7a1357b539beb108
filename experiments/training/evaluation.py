"""Metrics of a model from its outputs on a split."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.methods import MethodConfig
from experiments.methods.post_hoc import adjusted, class_priors
from experiments.records.epochs import LAST, REGIONS, Row
from ltjax import heads, metrics

_TAUS = np.linspace(0.0, 3.0, 61, dtype=np.float32)
_TARGET_BINS = 20


class Predictions(NamedTuple):
    """A model's outputs on one split, on the host; pixels with labels count as N."""

    logits: np.ndarray  # [N, C]; [N, 1] in regression
    embeddings: np.ndarray  # [N, E]
    targets: np.ndarray  # [N]


def is_due(config: TrainConfig, epoch: int) -> bool:
    """Whether an epoch, counted from 1, ends in an evaluation."""
    return epoch % config.eval_every == 0 or epoch > config.epochs - LAST


def evaluate(
    val: Predictions | None,
    test: Predictions,
    splits: Splits,
    method: MethodConfig,
    *,
    geometry: bool = False,
    train: Predictions | None = None,
) -> Row:
    """Metrics of both splits, by names such as ``test/balanced_accuracy``.

    With a post-hoc adjustment they are those of the adjusted logits, with ``plain_``
    before the accuracies of the logits as trained; the strength is chosen on ``val``.
    Of ``train`` there is only the geometry.
    """
    parts = {"val": val, "test": test} if val is not None else {"test": test}
    if splits.num_classes is None:
        return _prefixed({k: _regression(p, splits) for k, p in parts.items()})
    found: Row = {}
    if method.post_hoc != "none":
        tau = _tau(val, splits, method)
        found = {"tau": tau}
        for split, part in parts.items():
            plain = _classification(part, splits)
            found[f"{split}/plain_accuracy"] = plain["accuracy"]
            found[f"{split}/plain_balanced_accuracy"] = plain["balanced_accuracy"]
        parts = {
            k: p._replace(
                logits=adjusted(
                    p.logits, splits.classes.counts, mode=method.post_hoc, tau=tau
                )
            )
            for k, p in parts.items()
        }
    found |= _prefixed({k: _classification(p, splits) for k, p in parts.items()})
    if geometry:
        parts |= {"train": train} if train is not None else {}
        found |= _prefixed({k: _geometry(p, splits) for k, p in parts.items()})
    return found


def final_outputs(
    parts: Mapping[str, Predictions], row: Row, splits: Splits
) -> dict[str, Any]:
    """Outputs on the held-out splits as they are recorded, by name.

    Args:
      parts: outputs of the last epoch's model by split.
      row: the record of that epoch.
      splits: the data.
    """
    found = {f"test_{k}": v for k, v in parts["test"]._asdict().items()}
    if "val" in parts:
        found["val_logits"] = parts["val"].logits
        found["val_targets"] = parts["val"].targets
    if "tau" in row:
        found["tau"] = row["tau"]
    if splits.class_counts is not None:
        found["class_counts"] = splits.class_counts
    return found


def target_groups(targets: np.ndarray, splits: Splits) -> np.ndarray:
    """Group of each training example in averages, ``[N]`` int32.

    The label; in regression 0, 1 or 2 for a target from a many-, medium- or few-shot
    region.
    """
    if splits.num_classes is not None:
        return targets.astype(np.int32)
    masks = _target_shots(targets, splits)
    return np.select(masks, range(3)).astype(np.int32)


def _classification(part: Predictions, splits: Splits) -> Row:
    counts, (many, few) = splits.classes
    classes = len(counts)
    logits, labels = part.logits.astype(np.float64), part.targets
    guess = logits.argmax(axis=1)
    shots = metrics.class_shots(counts, many=many, few=few)
    by_shot = metrics.shot_accuracy(guess, labels, counts, many=many, few=few)
    shifted = logits - logits.max(axis=1, keepdims=True)
    probs = np.exp(shifted)
    probs /= probs.sum(axis=1, keepdims=True)
    log_likelihood = np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-30))
    found = {
        "accuracy": float((guess == labels).mean()),
        "balanced_accuracy": metrics.balanced_accuracy(guess, labels, classes),
        "loss": float(-log_likelihood.mean()),
        "ece": metrics.expected_calibration_error(probs, labels),
        "per_class_accuracy": metrics.per_class_accuracy(
            guess, labels, classes
        ).tolist(),
    }
    if classes > 5:
        found["top5_accuracy"] = metrics.top_k_accuracy(logits, labels, k=5)
    for region, accuracy, mask in zip(REGIONS, by_shot, shots, strict=True):
        if mask.any():
            found[region] = accuracy
    return found | _overlap(guess, labels, shots) if splits.dense else found


def _overlap(guess: np.ndarray, labels: np.ndarray, shots: metrics.Shots) -> Row:
    """Intersection over union: of every class, and means over classes."""
    own = metrics.iou(guess, labels, len(shots.many))
    there = np.bincount(labels, minlength=len(own)) > 0
    found = {"mean_iou": float(own[there].mean()), "per_class_iou": own.tolist()}
    for region, shot in zip(REGIONS, shots, strict=True):
        if (mask := shot & there).any():
            found[f"{region}_iou"] = float(own[mask].mean())
    return found


def _regression(part: Predictions, splits: Splits) -> Row:
    """Errors in the units of the data."""
    guess, truth = (
        x.astype(np.float64) * splits.target_std + splits.target_mean
        for x in (part.logits[:, 0], part.targets)
    )
    errors = metrics.regression_errors(guess, truth)
    found = _errors(errors, "")
    shots = _target_shots(part.targets, splits)
    for region, mask in zip(REGIONS, shots, strict=True):
        if mask.any():
            errors = metrics.regression_errors(guess, truth, where=mask)
            found |= _errors(errors, f"{region}_")
    return found


def _errors(errors: metrics.RegressionErrors, prefix: str) -> Row:
    return {
        f"{prefix}{name}": getattr(errors, name)
        for name in ("mae", "rmse", "geometric_mean")
    }


def _target_shots(targets: np.ndarray, splits: Splits) -> metrics.Shots:
    """Regions by training examples in the same twentieth of the target's range."""
    share = len(splits.train.targets) / _TARGET_BINS
    return metrics.target_shots(
        targets, splits.train.targets, bins=_TARGET_BINS, many=share, few=share / 5
    )


def _geometry(part: Predictions, splits: Splits) -> Row:
    h, y, classes = part.embeddings, part.targets, len(splits.classes.counts)
    tightness = metrics.tightness(h, y, classes)
    cosines = metrics.cosine_statistics(h, y, classes)
    return {
        "fisher_ratio": metrics.fisher_discriminant_ratio(h, y, classes),
        "tightness": tightness.overall,
        "tightness_by_class": tightness.per_class.tolist(),
        "cosine": cosines.overall,
        "cosine_within": cosines.within,
        "cosine_between": cosines.between,
    }


def _tau(val: Predictions | None, splits: Splits, method: MethodConfig) -> float:
    """The strength of the adjustment: as set, or the best on the validation set."""
    if method.post_hoc_tau is not None:
        return method.post_hoc_tau
    if val is None:
        raise ValueError(
            "post_hoc_tau must be given where there is no validation set to choose it "
            "on, got None."
        )
    priors = class_priors(splits.classes.counts)
    tau, _ = _search(val.logits, val.targets, priors, mode=method.post_hoc)
    return float(tau)


@jax.jit(static_argnames="mode")
def _search(logits, labels, priors, *, mode):
    taus = jnp.asarray(_TAUS)
    return heads.search_tau(logits, labels, priors, taus, mode=mode)


def _prefixed(found: dict[str, Row]) -> Row:
    return {f"{k}/{name}": v for k, part in found.items() for name, v in part.items()}
