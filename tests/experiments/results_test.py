"""The page of results is what the committed records say, and the numbers are right."""

import json
import re

import numpy as np
import pytest
from matplotlib import image
from matplotlib.axes import Axes

from experiments import results
from experiments.configs import PRESETS
from experiments.records import files
from experiments.records.runs import read_runs
from experiments.reporting import answers
from experiments.reporting.questions import LONG_TAIL, QUESTIONS, Column
from experiments.reporting.reasons import REASONS, Line

DEFAULT = results.Arguments()
CE, LA = "evidence-lt100-cifar10-ce", "evidence-lt100-cifar10-la"


def _record(folder, preset, seed, best, last, *, finished=True, **changes):
    """Records of a run of two epochs, the first best on validation."""
    config = files.plain(PRESETS[preset].config) | {"seed": seed} | changes
    config["data"] = config["data"] | {"seed": seed}
    facts = {
        "preset": preset,
        "seed": seed,
        "config": config,
        "versions": {"jax": "1.2.3"},
        "device": {"kind": "cpu", "cpu_cores": 2},
        "commit": "abcdef0123456789",
        "digest": "d",
        "class_counts": [3, 2, 1],
        "shots": [2, 1],
    }
    rows = [
        {
            "epoch": epoch,
            "val/balanced_accuracy": val,
            **{
                f"test/{key}": test
                for key in ("accuracy", "balanced_accuracy", "ece", "few")
            },
            **{f"{split}/fisher_ratio": 1 + test for split in ("train", "test")},
            "test/tightness_by_class": [test, 0.2, 0.1],
            "weights/by_class": [0.5, 1.0, 2.0],
            "train/loss_by_class": [0.5, 1.0, 2.0 - 0.1 * epoch],
            "weights/mean": 1.0,
            "weights/std": 0.5,
            "weights/changed_labels": val,
            "weights/unchanged_labels": test,
        }
        for epoch, val, test in ((1, 0.9, best), (2, 0.8, last))
    ]
    path = folder / f"{preset}-{seed}-{len(list(folder.glob('*')))}"
    files.write_json(path / "config.json", facts)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files.write_text(path / "metrics.jsonl", lines)
    if finished:
        files.write_json(path / "summary.json", {})


@pytest.fixture
def found(tmp_path):
    for seed, ce, la in ((0, 0.50, 0.60), (1, 0.54, 0.61), (2, 0.52, 0.65)):
        _record(tmp_path, CE, seed, ce, 0.4)
        if seed:
            _record(tmp_path, LA, seed, la, 0.3)
    _record(tmp_path, LA, 0, 0.99, 0.99, epochs=7)  # with other settings
    _record(tmp_path, LA, 5, 0.99, 0.99, finished=False)
    _record(tmp_path, LA, 6, 0.68, 0.3)  # without its baseline
    return answers.finished_rows(read_runs(tmp_path))


def test_the_page_agrees_with_the_records():
    page = DEFAULT.page.read_text()
    made = results.parts(answers.finished_rows(read_runs(DEFAULT.records)))
    assert results.filled(page, made) == page, "run python -m experiments.results"
    for name in re.findall(r"images/(results-[\w-]+\.png)", page):
        assert image.imread(DEFAULT.page.parent / "images" / name).size


def test_records_name_no_folder_of_a_machine():
    for path in DEFAULT.records.glob("*/config.json"):
        absolute = re.findall(r'"(?:/|[A-Za-z]:\\)[^"]*"', path.read_text())
        assert not absolute, f"{path}: {absolute}"


def test_mean_standard_error_and_paired_difference(found):
    column = LONG_TAIL.columns[0]
    assert answers.by_seeds(found[CE], column) == pytest.approx(
        {(0, 0): 50, (1, 1): 54, (2, 2): 52}
    )
    last = Column("", "balanced_accuracy", "last")
    assert set(answers.by_seeds(found[CE], last).values()) == {40}
    gain = answers.difference(found[LA], found[CE], column)
    assert gain.values == pytest.approx([7, 13])
    assert gain.error == pytest.approx(np.std([7, 13], ddof=1) / np.sqrt(2))
    assert answers.difference(found[CE], found[CE], Column("", "no such")) is None


def test_tables_leave_blank_what_was_not_run(found):
    comparison = LONG_TAIL.comparisons[0]
    table = answers.details(LONG_TAIL, comparison, found)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert len(rows) == len(comparison.presets)
    assert rows["CE"]["seeds"] == "3"
    assert rows["CE"]["balanced"] == "52.0 ± 1.2"
    assert rows["CE"]["over CE"] == ""
    assert rows["CE"]["many"] == ""  # not in these records
    assert rows["Logit adjustment"]["seeds"] == "3"  # 1, 2 and 6
    assert rows["Logit adjustment"]["over CE"] == "+10.0 ± 3.0"
    assert rows["Logit adjustment"]["last epoch"] == "30.0 ± 0.0"
    assert rows["Logit adjustment"]["preset"] == "`la`"
    assert not any(rows["GDW"][name] for name in table.columns[1:-1])
    first = answers.overview(LONG_TAIL, found)
    cells = {row[0]: row[1:] for row in first.rows}
    assert cells["CE"] == ["52.0 ± 1.2", "", ""]
    assert cells["ELM, center"] == ["", "", ""]


def test_a_page_is_filled_and_its_picture_drawn(found, tmp_path):
    made = results.parts(found)
    page = "".join(f"a\n<!-- {n} -->x<!-- end of {n} -->\nb\n" for n in made)
    text = results.filled(page, made)
    assert results.filled(text, made) == text
    assert text.count("x") < page.count("x")
    assert "No run yet." in made["evidence-noise-human"]
    assert "No run yet." not in made["evidence-lt100-cifar10"]
    results.draw(LONG_TAIL, found, tmp_path)
    assert image.imread(tmp_path / "results-long-tail.png").std() > 0
    assert "](images/results-long-tail.png)" in made["long-tail"]
    assert "results-noise.png" not in made["noise"]
    with pytest.raises(ValueError, match="one place for long-tail"):
        results.filled(text.replace("<!-- long-tail -->", ""), made)


def test_runs_from_before_a_setting_came_are_counted(tmp_path):
    preset = "evidence-regression-bike-gradtail"
    for seed in (0, 1):
        _record(tmp_path, preset, seed, 0.5, 0.4)
    (path,) = tmp_path.glob(f"{preset}-0-*/config.json")
    facts = json.loads(path.read_text())
    del facts["config"]["method"]["weighting"]["shuffled"]
    files.write_json(path, facts)
    found = answers.finished_rows(read_runs(tmp_path))
    assert [run.seeds[0] for run in found[preset].counted] == [0, 1]


def test_anchors_without_a_partner_are_counted_without_replacement(
    tmp_path, monkeypatch
):
    _record(tmp_path, CE, 0, 0.5, 0.4, batch_size=2)
    found = answers.finished_rows(read_runs(tmp_path))
    drawn = {}
    plot = Axes.plot
    monkeypatch.setattr(
        Axes,
        "plot",
        lambda ax, x, y, *rest, **style: (
            drawn.setdefault(style.get("label"), np.asarray(y)),
            plot(ax, x, y, *rest, **style),
        )[1],
    )
    reason = REASONS[0]
    reason.draw(
        [Line("CE", answers.Group("CE", read_runs(tmp_path)), "#000000")],
        tmp_path / "picture.png",
    )
    assert CE not in found  # the batch size is not that of the preset
    # 6 images in classes of 3, 2 and 1, and one other image in the batch.
    np.testing.assert_allclose(drawn[None], [40.0, 20.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(drawn["CE"], [0.4, 0.2, 0.1])


def test_pictures_of_why_methods_help_are_drawn_from_the_records(tmp_path):
    records, images = tmp_path / "records", tmp_path / "images"
    images.mkdir()
    geometry = {
        "layers": [
            {"name": name, "cosine_between": 0.5, "cosine_noise": 0.9}
            for name in ("stem", "block")
        ],
        "classifier_norms": [3.0, 2.0, 1.0],
        "adjustment": {
            "taus": [0.0, 1.0],
            "additive": [0.5, 0.6],
            "multiplicative": [0.5, 0.4],
        },
    }
    for preset in (CE, LA, "evidence-lt100-cifar10-absgd", "evidence-noise-human-gdw"):
        _record(records, preset, 0, 0.5, 0.4)
    (run,) = records.glob(f"{CE}-0-*")
    files.write_json(run / "geometry.json", geometry)
    found = answers.finished_rows(read_runs(records))
    made = results.parts(found)
    for reason in REASONS:
        assert f"](images/results-{reason.name}.png)" in made[reason.name]
        results.explain(reason, found, images)
        assert image.imread(images / f"results-{reason.name}.png").std() > 0
        results.explain(reason, {}, images)  # nothing to draw: an old one is removed
    assert not any(images.iterdir())
    assert all(results.parts({})[reason.name] == "No run yet." for reason in REASONS)


def test_scores_of_wrong_labels_come_from_the_records(tmp_path):
    for seed, auroc in ((0, 0.5), (1, 0.75)):
        _record(tmp_path, "evidence-noise-unif40-gdw", seed, 0.5, 0.5)
        found = {"weight": {"auroc": auroc, "precision": 0.25}}
        (run,) = tmp_path.glob(f"*-{seed}-*")
        files.write_json(run / "detection.json", found)
    _record(tmp_path, "evidence-noise-unif40-ce", 0, 0.5, 0.5)
    made = results.parts(answers.finished_rows(read_runs(tmp_path)))["detection"]
    assert "| GDW | 2 | 62.5 (25.0) |  |" in made
    assert "| CE |" not in made
    assert "60% uniform" not in made


def test_what_gradtails_weights_follow_comes_from_the_records(tmp_path):
    for preset in ("evidence-noise-human", "evidence-lt100-cifar10"):
        for seed in (0, 1):
            _record(tmp_path, f"{preset}-gradtail-classifier", seed, 0.5, 0.4)
    _record(tmp_path, CE, 0, 0.5, 0.4)
    # In one of the runs the weight of the rarest class falls with its loss, then rises.
    (run,) = tmp_path.glob("evidence-lt100-cifar10-gradtail-classifier-1-*")
    (_, last) = read_runs(run)[0].rows
    weights = (1.0, 3.0, 2.0, 2.5, 1.0)
    rows = [
        last
        | {"epoch": i + 1, "weights/by_class": [0.1, 0.2, w]}
        | {"train/loss_by_class": [1.0, 1.0, 3.0 - 0.5 * i]}
        for i, w in enumerate(weights)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files.write_text(run / "metrics.jsonl", lines)
    table = answers.gradtail_weights(answers.finished_rows(read_runs(tmp_path)))
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["data"] for row in rows] == [
        "CIFAR-10, ratio 100",
        "labels by people, 40% wrong",
    ]
    assert {row["weight and size"] for row in rows} == {"-1.00 (-1.00 to -1.00)"}
    fading = rows[0]["weight and loss of the rarest"]
    assert fading == "0.40 (0.00 to 0.80)"  # ranks 4 2 3 1 and 4 3 2 1
    assert rows[1]["wrong : right"] == "2.00 (2.00 to 2.00)"  # 0.8 over 0.4
    assert not answers.gradtail_weights({}).rows


def test_every_preset_of_the_evidence_is_a_row():
    rows = {p for q in QUESTIONS for c in q.comparisons for p in c.presets}
    assert rows == {name for name in PRESETS if name.startswith("evidence-")}
