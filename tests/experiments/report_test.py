"""Reports are held to run folders with known numbers, and to one real run."""

import json
import re

import numpy as np
import pytest
from matplotlib import image

from experiments import configs, report, train
from experiments.methods import Absgd, MethodConfig, SymmetricCrossEntropy
from experiments.records import files
from experiments.records import runs as records
from experiments.reporting import groups, mechanisms, series
from tests.experiments.folders import COUNTS, export_weights, make_run

ABSGD_ON_SCE = files.plain(
    MethodConfig(loss=SymmetricCrossEntropy(), weighting=Absgd())
)
CLASSIFICATION = {
    *("learning", "losses", "frequency", "reliability", "tightness", "fisher"),
}


def run_report(out, *paths):
    report.report(paths, out)
    return json.loads((out / "report.json").read_text()), (
        out / "report.md"
    ).read_text()


def groups_of(*paths):
    runs = [run for path in paths for run in records.read_runs(path)]
    sections, notes = groups.arrange(runs)
    return [group for section in sections for group in section.groups], notes


def test_statistics_over_seeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for seed, last in ((0, 0.5), (1, 0.7), (2, 0.9)):
        accuracy = (0.1, 0.2, 0.3 + seed / 10, 0.3, 0.4, last)
        make_run(tmp_path / f"seed{seed}", seed=seed, accuracy=accuracy)
    contents, text = run_report(tmp_path / "out", tmp_path)
    (method,) = contents["sections"][0]["methods"]
    assert method["seeds"] == [0, 1, 2]
    last = method["results"]["last"]["balanced_accuracy"]
    assert last["mean"] == pytest.approx(70)
    assert last["std"] == pytest.approx(20)
    # Epoch 3 is best on validation, and not on the test set.
    best = method["results"]["best"]["balanced_accuracy"]
    assert best["values"] == pytest.approx([30, 40, 50])
    last5 = method["results"]["last5"]["balanced_accuracy"]
    assert last5["values"][0] == pytest.approx(100 * (0.2 + 0.3 + 0.3 + 0.4 + 0.5) / 5)
    assert method["results"]["last"]["few"]["mean"] == pytest.approx(35)
    expected = "| CE (3) | 40.00 ± 10.00 | 40.00 ± 6.00 | 70.00 ± 20.00 |  | 500 |"
    assert expected in text
    assert "70.00 ± 20.00" in capsys.readouterr().out


def test_single_run_without_validation(tmp_path):
    make_run(tmp_path / "a", val=None)
    contents, text = run_report(tmp_path / "out", tmp_path / "a")
    (method,) = contents["sections"][0]["methods"]
    assert "best" not in method["results"]
    assert method["results"]["last"]["accuracy"]["std"] is None
    assert "| CE (1) | 38.33" not in text
    assert "| CE (1) | 40.00 | 50.00 |  | 500 |" in text
    names = {p.stem.rpartition("-")[2] for p in (tmp_path / "out").glob("*.png")}
    assert names == CLASSIFICATION


def test_pictures_of_every_kind(tmp_path):
    for seed in (0, 1):
        path = tmp_path / f"gdw{seed}"
        make_run(path, preset="gdw-cifar10-unif40-small", seed=seed)
        export_weights(path)
        make_run(tmp_path / f"ce{seed}", seed=seed)
    contents, text = run_report(tmp_path / "out", tmp_path)
    (section,) = contents["sections"]
    assert section["title"] == "CIFAR-10, 40 % uniform label noise"
    assert [m["label"] for m in section["methods"]] == ["CE", "GDW"]
    expected = CLASSIFICATION | {
        *("weights", "labels", "detection", "effective", "loss"),
    }
    assert {name.rpartition("-")[2] for name in section["pictures"]} == {
        f"{name}.png" for name in expected
    }
    for name in section["pictures"]:
        assert f"]({name})" in text
        assert image.imread(tmp_path / "out" / name).std() > 0.01
    lowest = section["methods"][1]["example_weights"][0]
    assert lowest["index"] == 102
    assert lowest["clean label"] == 9
    assert section["methods"][0]["example_weights"] == []


def test_weights_by_tenth_of_the_loss():
    losses = np.array([5.0, np.nan, *range(10, 28)])  # the lowest two tenths: 5, 10, 11
    weights = np.array([3.0, 9.0, *np.ones(18)])
    changed = np.zeros(20, bool)
    changed[[0, 3]] = True
    found = mechanisms.weights_by_loss(
        {"losses": losses, "weights": weights, "changed": changed}
    )
    assert found.shape == (2, 10)
    assert found[1, 0] == 3  # losses 5 and 10 are the first tenth
    assert found[0, 0] == 1
    assert found[1, 1] == 1
    assert np.isnan(found[1, 2:]).all()
    np.testing.assert_array_equal(found[0], 1)


def test_effective_share_is_the_square_of_the_mean_over_the_mean_square(tmp_path):
    # Weights of mean 2 and standard deviation 1.
    make_run(tmp_path / "gdw", preset="gdw-cifar10-unif40-small")
    (group,), _ = groups_of(tmp_path)
    epochs, shares = mechanisms.effective_shares(group)
    assert epochs.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(shares, np.full((1, 6), 80.0))


def test_many_classes_are_grouped(tmp_path):
    counts = np.linspace(500, 5, 100).astype(int).tolist()
    parts, names = series.class_parts(counts)
    assert [len(part) for part in parts] == [10] * 10
    assert names[0] == "500-455"
    make_run(tmp_path / "a", preset="gdw-cifar10-unif40", counts=counts)
    contents, _ = run_report(tmp_path / "out", tmp_path / "a")
    assert len(contents["sections"][0]["pictures"]) == 9


def test_regression(tmp_path):
    for name in ("mse", "gradtail"):
        make_run(tmp_path / name, preset=f"{name}-abalone")
    contents, text = run_report(tmp_path / "out", tmp_path)
    (section,) = contents["sections"]
    names = {name.rpartition("-")[2] for name in section["pictures"]}
    assert names == {
        *("learning.png", "losses.png", "weights.png", "regions.png", "effective.png"),
    }
    assert "| MSE (1) | MAE | 1.00 |  |  | 2.00 |" in text  # least error, epoch 1
    assert "|  | RMSE | 1.00 |  |  | 2.00 |  |" in text


def test_mixed_data_comes_in_sections(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", preset="ce-cifar10-unif60-small")
    make_run(tmp_path / "c", preset="mse-bike")
    contents, _ = run_report(tmp_path / "out", tmp_path)
    titles = [section["title"] for section in contents["sections"]]
    assert titles == [
        "CIFAR-10, 40 % uniform label noise",
        "CIFAR-10, 60 % uniform label noise",
        "bike",
    ]


def test_labels_tell_methods_apart(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", optimizer__weight_decay=0.25)
    make_run(tmp_path / "c", method=ABSGD_ON_SCE)
    make_run(tmp_path / "d", model__head="etf", method__post_hoc="additive")
    groups, _ = groups_of(tmp_path)
    assert [group.label for group in groups] == [
        "CE (weight_decay 0.0005)",
        "CE (weight_decay 0.25)",
        "ABSGD on SCE",
        "CE, ETF head, additive adjustment",
    ]


def test_unfinished_runs_are_marked(tmp_path, capsys):
    make_run(tmp_path / "a", accuracy=(0.5, 0.6), val=(0.5, 0.6), finished=False)
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "st')  # killed while writing
    contents, text = run_report(tmp_path / "out", tmp_path / "a")
    assert "| CE† (1) | 60.00 | 55.00 | 60.00 |" in text
    assert "unfinished (2 of 6 epochs)" in contents["notes"][0]
    assert "unfinished (2 of 6 epochs)" in capsys.readouterr().out


def test_unfinished_runs_do_not_count_beside_finished_ones(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=1, accuracy=(0.9,), val=(0.9,), finished=False)
    make_run(tmp_path / "c", seed=2, accuracy=(), val=(), finished=False)
    (group,), notes = groups_of(tmp_path)
    assert [run.path.name for run in group.counted] == ["a"]
    assert any("left out of the tables" in note for note in notes)
    assert any("no test results yet (0 of 6 epochs" in note for note in notes)


def test_a_repeated_run_counts_once(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    (group,), notes = groups_of(tmp_path, tmp_path / "a")
    assert len(group.counted) == 1
    assert len(notes) == 1
    assert "repeats" in notes[0]


def test_different_splits_are_noted(tmp_path):
    make_run(tmp_path / "a")
    path = make_run(tmp_path / "b", preset="gdw-cifar10-unif40-small")
    facts = json.loads((path / "config.json").read_text()) | {"digest": "e" * 64}
    files.write_json(path / "config.json", facts)
    _, notes = groups_of(tmp_path)
    assert any("not all methods had the same split" in note for note in notes)


def test_published_beside_ours(tmp_path):
    epochs = configs.PRESETS["gdw-cifar10-unif40"].config.epochs
    make_run(tmp_path / "a", preset="gdw-cifar10-unif40", epochs=epochs)
    make_run(tmp_path / "b", preset="mwnet-cifar10-unif40-small")
    make_run(tmp_path / "c", preset="ce-cifar10-unif40", epochs=epochs)
    _, text = run_report(tmp_path / "out", tmp_path)
    assert "| GDW (1) | 60.00 | 40.00 | 50.00 | 87.97 |" in text
    assert "| MW-Net (1) | 60.00 | 40.00 | 50.00 | 86.62‡ |" in text
    assert "| CE (1) | 60.00 | 40.00 | 50.00 |  |" in text
    assert "mean of the last 5 epochs" in text


def test_second_stages_of_different_first_ones_are_repetitions(tmp_path):
    name = "wb-two-stage-cifar100-lt100"
    epochs = configs.PRESETS[name].config.epochs
    for seed in (0, 1):
        init = f"runs/wb-wd-{seed}/best.npz"
        make_run(
            tmp_path / f"{seed}", preset=name, seed=seed, epochs=epochs, init_from=init
        )
    _, text = run_report(tmp_path / "out", tmp_path)
    assert re.search(r"\(2\) \| 60\.00.*\| 51\.98 \|", text)


def test_ranking_by_weight(tmp_path):
    path = make_run(tmp_path / "a")
    export_weights(path)
    order, found = series.ranking(records.read_runs(path)[0])
    assert order[:3].tolist() == [2, 0, 5]
    assert order[-1] == 6
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 1])


def test_probabilities_are_of_adjusted_logits(tmp_path):
    path = make_run(tmp_path / "a", method__post_hoc="additive")
    (run,) = records.read_runs(path)
    priors = np.asarray(COUNTS) / sum(COUNTS)
    powers = np.exp(run.final["test_logits"] - np.log(priors))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(series.probabilities(run), expected, rtol=1e-4)


def _break(path, name, content):
    make_run(path)
    (path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: None, "run is not a folder"),
        (lambda path: path.mkdir(), "run holds no run: .* config.json"),
        (lambda p: _break(p, "config.json", b"{"), "config.json cannot be read"),
        (lambda p: _break(p, "config.json", b"{}"), "config.json is not of a run"),
        (lambda p: _break(p, "metrics.jsonl", b"{\n{}\n"), "jsonl .* line 1"),
        (lambda p: _break(p, "metrics.jsonl", b""), "nothing to report.*0 of 6"),
        (lambda p: _break(p, "final.npz", b"PK\3\4"), "final.npz cannot be read"),
    ],
)
def test_broken_folders_are_named(tmp_path, capsys, spoil, message):
    spoil(tmp_path / "run")
    assert report.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "run") in error
    assert re.search(message, error, re.DOTALL)


def test_no_folder_is_an_error(capsys):
    assert report.main([]) == 1
    assert "no run folder" in capsys.readouterr().err


def test_help_explains(capsys):
    with pytest.raises(SystemExit):
        report.main(["--help"])
    help_text = capsys.readouterr().out
    assert "RUNS" in help_text
    assert "--out" in help_text


def test_a_real_run(tmp_path):
    command = ["smoke", "--out", str(tmp_path / "run"), "--seeds", "2"]
    command += ["--method.weighting", "absgd", "--data.noise", "uniform"]
    command += ["--data.noise-rate", "0.4", "--export-weights", "--no-progress"]
    assert train.main(command) == 0
    contents, text = run_report(tmp_path / "out", tmp_path / "run")
    (section,) = contents["sections"]
    (method,) = section["methods"]
    assert method["label"] == "ABSGD"
    assert method["finished"]
    assert method["seeds"] == [0, 1]
    # No curves of one epoch.
    kinds = ("frequency", "weights", "labels", "reliability", "tightness", "detection")
    assert section["pictures"] == [
        f"synthetic-40-uniform-label-noise-{kind}.png"
        for kind in (*kinds, "effective", "weight-by-loss")
    ]
    assert method["example_weights"]
    assert "data.noise_rate 0.4 (preset: 0.0)" in text
    shown = (tmp_path / "out" / "report.html").read_text()
    assert "Most suspicious labels: ABSGD" in shown
    assert shown.count('alt="label ') == 24  # no class is rare
    assert "--data.noise-rate 0.4" in shown
