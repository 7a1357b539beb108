"""The script of full-size rows runs by itself, stops in time and continues."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import queue, train
from experiments.configs import PRESETS
from tests.experiments.datasets import formats

ROOT = Path(train.__file__).parents[1]
ROWS = ROOT / "experiments" / "paper_scale.txt"
TINY = (
    "--epochs 2 --model.name mlp --model.hidden 8 --crop 0 --no-flip --devices 1 "
    "--batch-size 10 --meta-batch-size 10 --data.val-size 10 --data.meta-size 10 "
    "--data.recipe none --data.factor 1.0"
)


def _script(tmp_path, **environment):
    # The script says python; it is to be this one.
    (tmp_path / "bin").mkdir(exist_ok=True)
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / "experiments" / "paper_scale.sh"), str(tmp_path / "out")],
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
    )


def test_its_rows_are_presets_of_whole_networks():
    rows = queue.read(ROWS)
    assert len(rows) == 6
    assert {PRESETS[row.name].config.model.name for row in rows} == {"resnet32"}


def test_it_stops_in_time_with_a_status_that_says_so(tmp_path):
    found = _script(tmp_path, MINUTES="0", SETTINGS="--epochs 2")
    assert found.returncode == 124, found.stderr
    rows = (tmp_path / "out" / "rows.txt").read_text().splitlines()
    assert sum(row.endswith("--epochs 2") for row in rows) == 6
    assert rows[0].startswith("#")


@pytest.mark.slow
def test_it_runs_all_rows_and_reports_them(tmp_path):
    formats.cifar10(tmp_path, "webp")
    found = _script(tmp_path, SETTINGS=TINY, LTJAX_DATA=str(tmp_path))
    assert found.returncode == 0, found.stdout + found.stderr
    assert len(list((tmp_path / "out" / "records").iterdir())) == 6
    assert "GDW" in (tmp_path / "out" / "report" / "report.md").read_text()
    again = _script(tmp_path, SETTINGS=TINY, LTJAX_DATA=str(tmp_path))
    assert "6 runs, 6 finished" in again.stdout
