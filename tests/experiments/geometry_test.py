import json

import numpy as np
import pytest

from experiments import geometry, train
from experiments.records.runs import read_runs
from ltjax import metrics

TINY = ("--data.train-size", "208", "--data.val-size", "64", "--epochs", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = ("--model.name", "patchify", "--model.width", "4", "--no-progress")
    assert train.main(["smoke", *TINY, *settings, "--out", str(path)]) == 0
    return path


def test_measures_every_layer_of_a_finished_run(run, capsys):
    assert geometry.main([str(run)]) == 0
    found = json.loads((run / "geometry.json").read_text())
    names = [row["name"] for row in found["layers"]]
    assert names == ["stem", "blocks 0", "blocks 1", "blocks 2"]
    kernel = np.load(run / "last.npz")["head.kernel"]
    np.testing.assert_allclose(
        found["classifier_norms"], np.linalg.norm(kernel, axis=0), rtol=1e-5
    )
    assert "blocks 2" in capsys.readouterr().out


def test_accuracies_by_strength_begin_with_that_of_the_run(run):
    assert geometry.main([str(run)]) == 0
    found = json.loads((run / "geometry.json").read_text())["adjustment"]
    summary = json.loads((run / "summary.json").read_text())
    plain = summary["last"]["test/balanced_accuracy"]
    for mode in ("additive", "multiplicative"):
        assert len(found[mode]) == len(found["taus"])
        np.testing.assert_allclose(found[mode][0], plain, atol=1e-5)


@pytest.mark.parametrize("name", ["patchify", "mlp", "conv6"])
def test_the_last_layer_is_what_the_classifier_sees(tmp_path, name):
    settings = ("--model.name", name, "--no-progress", "--out", str(tmp_path))
    small = ("--model.width", "4") if name != "mlp" else ("--model.hidden", "8", "6")
    assert train.main(["smoke", *TINY, *settings, *small]) == 0
    with np.load(tmp_path / "final.npz") as final:
        features, labels = final["test_embeddings"], final["test_targets"]
        classes = len(final["class_counts"])
    last = geometry.measured(read_runs(tmp_path)[0], len(labels))["layers"][-1]
    cosines = metrics.cosine_statistics(features, labels, classes)
    np.testing.assert_allclose(last["cosine_within"], cosines.within, rtol=1e-4)
    np.testing.assert_allclose(last["cosine_between"], cosines.between, rtol=1e-4)
    fisher = metrics.fisher_discriminant_ratio(features, labels, classes)
    np.testing.assert_allclose(last["fisher_ratio"], fisher, rtol=1e-3)


def test_noise_has_the_scale_of_the_inputs():
    inputs = np.random.default_rng(1).integers(90, 110, (64, 8, 8, 3)).astype(np.uint8)
    noise = geometry._noise_like(inputs)
    assert noise.dtype == inputs.dtype
    assert noise.shape == inputs.shape
    np.testing.assert_allclose(noise.mean(), inputs.mean(), rtol=0.01)
    np.testing.assert_allclose(noise.std(), inputs.std(), rtol=0.05)
    assert abs(np.corrcoef(noise.ravel(), inputs.ravel())[0, 1]) < 0.05


def test_refuses_a_run_that_is_not_finished(run, tmp_path, capsys):
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text((run / name).read_text())
    assert geometry.main([str(tmp_path)]) == 1
    assert "not finished" in capsys.readouterr().out
    assert geometry.main([str(run), "--count", "1"]) == 1
    assert "at least 2" in capsys.readouterr().out
