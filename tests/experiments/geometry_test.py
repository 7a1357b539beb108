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
    assert geometry.main([str(run), "--out", str(run / "other.json")]) == 0
    found = json.loads((run / "other.json").read_text())["adjustment"]
    summary = json.loads((run / "summary.json").read_text())
    plain = summary["last"]["test/balanced_accuracy"]
    for mode in ("additive", "multiplicative"):
        assert len(found[mode]) == len(found["taus"])
        np.testing.assert_allclose(found[mode][0], plain, atol=1e-5)


def test_the_last_layer_is_what_the_classifier_sees(run):
    with np.load(run / "final.npz") as final:
        features, labels = final["test_embeddings"], final["test_targets"]
        classes = len(final["class_counts"])
    last = geometry.measured(read_runs(run)[0], len(labels))["layers"][-1]
    cosines = metrics.cosine_statistics(features, labels, classes)
    np.testing.assert_allclose(last["cosine_within"], cosines.within, rtol=1e-4)
    fisher = metrics.fisher_discriminant_ratio(features, labels, classes)
    np.testing.assert_allclose(last["fisher_ratio"], fisher, rtol=1e-3)


def test_refuses_a_run_that_is_not_finished(run, tmp_path, capsys):
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text((run / name).read_text())
    assert geometry.main([str(tmp_path)]) == 1
    assert "not finished" in capsys.readouterr().out
