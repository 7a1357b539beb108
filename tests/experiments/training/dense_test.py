"""A run on scenes: pixels are counted, weighed and evaluated."""

import json

import numpy as np
import pytest

from experiments import train
from ltjax import metrics
from tests.experiments.datasets import formats

SETTINGS = (
    *("--data.train-size", "12", "--data.val-size", "6", "--data.image-size", "32"),
    *("--data.factor", "0.3", "--data.shots", "1500", "400", "--batch-size", "4"),
    *("--model.width", "4", "--epochs", "2", "--devices", "1", "--no-progress"),
)


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train", "t10k"):
        pixels = rng.integers(100, 256, (100, 28, 28)).astype(np.uint8)
        labels = (np.arange(100) % 10).astype(np.uint8)
        formats.idx_file(tmp_path / f"{name}-images-idx3-ubyte", pixels)
        formats.idx_file(tmp_path / f"{name}-labels-idx1-ubyte", labels)
    return str(tmp_path)


def test_a_run_on_scenes(tmp_path, mnist):
    out = tmp_path / "run"
    argv = ["evidence-scenes-mnist-gradtail", *SETTINGS, "--data.path", mnist]
    argv += ["--method.weighting.burn-in", "1", "--export-weights", "--out", str(out)]
    assert train.main(argv) == 0
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    final = np.load(out / "final.npz")
    labels, guess = final["test_targets"], final["test_logits"].argmax(axis=1)
    assert labels.shape == (6 * 32 * 32,)
    own = metrics.iou(guess, labels, 11)
    there = np.unique(labels)
    assert row["test/mean_iou"] == pytest.approx(own[there].mean())
    np.testing.assert_allclose(row["test/per_class_iou"], own)
    assert {"test/many_iou", "test/few_iou"} <= row.keys()
    facts = json.loads((out / "config.json").read_text())
    assert sum(facts["class_counts"]) == 12 * 32 * 32
    assert row["weights/mean"] == pytest.approx(1, abs=0.2)
    assert row["weights/std"] > 0
    exported = np.load(out / "example_weights.npz")
    assert exported["weights"].shape == (12,)
    assert np.isfinite(exported["weights"]).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("--flip",), "crop, flip and rotate must be off for labels by pixel"),
        (("--model.name", "mlp"), "model.name='mlp' does not fit data.name='scenes'"),
    ],
)
def test_what_does_not_fit_pixels(tmp_path, mnist, setting, message, capsys):
    argv = ["evidence-scenes-mnist-ce", *SETTINGS, *setting, "--data.path", mnist]
    assert train.main([*argv, "--out", str(tmp_path / "run")]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
