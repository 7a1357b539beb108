"""Run folders with known numbers, as training leaves them."""

import json

import numpy as np

from experiments import configs
from experiments.datasets import DataConfig
from experiments.datasets.sets import bundled
from experiments.records import files
from experiments.records.folder import RunFolder
from experiments.reporting import numbers

EPOCHS = 6
COUNTS = [500, 300, 200, 120, 80, 50, 30, 18, 10, 5]


def make_run(
    path,
    *,
    preset="ce-cifar10-unif40-small",
    seed=0,
    accuracy=(0.1, 0.2, 0.6, 0.3, 0.4, 0.5),
    val=(0.1, 0.2, 0.7, 0.3, 0.4, 0.5),
    finished=True,
    counts=COUNTS,
    class_names=None,
    **changes,
):
    """A run folder as training leaves it; accuracies by epoch."""
    config = files.plain(configs.PRESETS[preset].config) | {
        "seed": seed,
        "epochs": EPOCHS,
    }
    for name, value in changes.items():
        part, _, field = name.partition("__")
        config[part] = config[part] | {field: value} if field else value
    folder = RunFolder(path, True)
    regression = config["method"]["loss"]["name"] == "mse"
    facts = {
        "preset": preset,
        "seed": seed,
        "config": config,
        "versions": {"jax": "1.2.3"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "cpu_cores": 2},
        "commit": "abc",
        "digest": "d" * 64,
        "class_counts": None if regression else list(counts),
        "class_names": class_names,
        "shots": None if regression else [100, 20],
    }
    folder.start(facts, {"train": np.arange(4)})
    classes = 3 if regression else len(counts)
    rows = []
    for i, (test, validation) in enumerate(zip(accuracy, val or accuracy, strict=True)):
        row = {
            "epoch": i + 1,
            "step": 10 * (i + 1),
            "train/loss": 2.0 - test,
            "train/weighted_loss": 1.0 - test,
            "weights/mean": 2.0,
            "weights/std": 1.0,
            "weights/by_class": [None, *(np.arange(1, classes) / 2)],
            "seconds": 100.0 if i == 0 else 2.0,
            "examples_per_second": None,
        }
        for split, value in (("test", test), ("val", validation)):
            if split == "val" and val is None:
                continue
            if regression:
                row |= {f"{split}/{e}": 10 * value for e in numbers.ERRORS}
                row |= {f"{split}/few_{e}": 20 * value for e in numbers.ERRORS}
            else:
                row |= {"weights/unchanged_labels": 2.5, "weights/changed_labels": 1.0}
                row |= {f"{split}/{k}": value for k in ("accuracy", "ece", "loss")}
                row[f"{split}/balanced_accuracy"] = value
                row[f"{split}/few"] = value / 2
                row |= {f"{k}/fisher_ratio": 1 + value for k in (split, "train")}
                row[f"{split}/per_class_accuracy"] = [value] * classes
        rows.append(row)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files.write_text(path / "metrics.jsonl", lines)
    if finished:
        rng = np.random.default_rng(seed)
        labels = np.arange(6 * classes) % classes
        final = {
            "test_logits": rng.normal(size=(labels.size, classes)),
            "test_embeddings": rng.normal(size=(labels.size, 3)),
            "test_targets": labels,
            "class_counts": np.asarray(counts),
            "tau": 1.0,
        }
        folder.write("final.npz", final)
        folder.write("summary.json", {})
    return path


def export_weights(path):
    """Half of the labels are wrong, and these weigh little; one was never seen."""
    weights = np.array([0.2, 1.0, 0.1, 1.5, 1.4, 0.3, np.nan, 1.1], np.float32)
    changed = np.array([1, 0, 1, 0, 0, 1, 1, 0], bool)
    arrays = {"indices": np.arange(8) + 100, "weights": weights, "changed": changed}
    labels = np.arange(8) % 4
    arrays["losses"] = np.where(np.isnan(weights), np.nan, 1 / (weights + 1e-6))
    arrays |= {"labels": labels, "clean_labels": np.where(changed, 9, labels)}
    files.write_npz(path / "example_weights.npz", arrays)


def export_digits(path):
    """Of 300 handwritten digits every fifth label is wrong and has a low weight."""
    labels = bundled.digits(DataConfig(name="digits")).parts["train"].labels
    indices = np.arange(100, 400)
    clean = labels[indices]
    changed = np.arange(300) % 5 == 0
    given = np.where(changed, (clean + 1) % 10, clean)
    weights = np.where(changed, 0.1, 1.0) + np.linspace(0, 0.5, 300)
    arrays = {
        "indices": indices,
        "weights": weights.astype(np.float32),
        "losses": (2 - weights).astype(np.float32),
        "margins": np.where(changed, -1.0, 1.0) - np.linspace(0, 0.5, 300),
        "labels": given,
        "clean_labels": clean,
        "changed": changed,
        "predictions": clean,
    }
    files.write_npz(path / "example_weights.npz", arrays)
