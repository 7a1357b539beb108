"""The table of training examples and the scores of their labels."""

import csv

import numpy as np
import pytest
from pyarrow import parquet

from experiments.records import examples, files

FOUND = {
    "indices": np.array([7, 3, 9, 1]),
    "weights": np.array([1.0, 0.5, np.nan, 0.5]),
    "losses": np.array([0.1, 0.2, np.nan, 0.9]),
    "margins": np.array([2.0, 1.0, np.nan, -1.0]),
    "labels": np.array([0, 1, 0, 1]),
    "clean_labels": np.array([0, 1, 0, 0]),
    "changed": np.array([False, False, False, True]),
}


def test_scores_are_high_where_labels_look_wrong():
    scores = examples.suspicion(FOUND)
    assert scores.keys() == {"weight", "loss", "margin"}
    for own in scores.values():
        assert own[2] == -np.inf  # never seen
        assert own[3] == own.max()
    flat = FOUND | {"weights": np.ones(4)}
    assert "weight" not in examples.suspicion(flat)
    assert examples.suspicion(FOUND | {"margins": np.full(4, np.nan)}).keys() == {
        "weight",
        "loss",
    }


def test_detections_by_score():
    found = examples.detections(FOUND)
    assert found["loss"] == {"auroc": 1.0, "precision": 1.0}
    assert found["weight"] == {"auroc": pytest.approx(5 / 6), "precision": 0.5}


def test_a_table_for_people(tmp_path):
    columns = examples.table(FOUND, ["a.png", "b.png", "c.png", "d,.png"])
    assert list(columns["rank"]) == [3, 2, 4, 1]
    files.write_csv(tmp_path / "x.csv", columns)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png", "d,.png"]
    assert rows[0]["index"] == "7"
    assert float(rows[3]["loss"]) == 0.9
    assert rows[3]["clean_label"] == "0"
    files.write_parquet(tmp_path / "x.parquet", columns)
    stored = parquet.read_table(tmp_path / "x.parquet")
    assert stored.column_names == list(columns)
    assert stored["file"].to_pylist()[3] == "d,.png"
    for name in ("index", "label", "weight", "loss", "rank"):
        found = stored[name].to_numpy()
        assert found.dtype == columns[name].dtype
        np.testing.assert_array_equal(found, columns[name])
    unchanged = FOUND | {"changed": np.zeros(4, bool)}
    assert "clean_label" not in examples.table(unchanged, None)
    assert "file" not in examples.table(unchanged, None)
