"""Runs that are stopped, damaged or out of space, and then resumed."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import train
from experiments.training import loop

ROOT = Path(__file__).parents[3]
SETTINGS = (
    *("smoke", "--model.hidden", "8", "--no-progress", "--crop", "0", "--no-flip"),
    *("--data.name", "digits", "--data.meta-size", "50", "--batch-size", "256"),
    *("--epochs", "6", "--devices", "1", "--scan", "False"),
)
# When one array fails, those still being read report to an event loop that is gone.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
TIMES = ("seconds", "examples_per_second")


def run(folder, *argv):
    return train.main([*SETTINGS, *argv, "--out", str(folder)])


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines
    ]


def parameters(folder, name="last"):
    return dict(np.load(folder / f"{name}.npz"))


def assert_same_run(a, b):
    assert records(a) == records(b)
    for name in ("last", "best"):
        for path, array in parameters(a, name).items():
            np.testing.assert_array_equal(array, parameters(b, name)[path], path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(folder) == 0
    return folder


@pytest.mark.parametrize("epochs", [(1, 2, 3, 4), (5,)], ids=["earlier", "last"])
def test_stopped_before_the_last_block_of_late_epochs(
    whole, epochs, tmp_path, monkeypatch
):
    per_epoch = records(whole)[0]["step"]
    stops = [(epoch + 1) * per_epoch - 1 for epoch in epochs]

    @contextlib.contextmanager
    def stop_signal():
        yield lambda step: step in stops

    monkeypatch.setattr(loop, "stop_signal", stop_signal)
    for _ in epochs:
        assert run(tmp_path / "run") == loop.STOPPED
    assert run(tmp_path / "run") == 0
    assert_same_run(whole, tmp_path / "run")
    written = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    timed = [json.loads(line)["examples_per_second"] is not None for line in written]
    assert timed == [epoch not in epochs for epoch in range(6)]


def test_damaged_newest_checkpoint_is_repeated(whole, tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    steps = records(whole)[-1]["step"]
    newest = tmp_path / "run" / "checkpoints" / str(steps)
    for path in (newest / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "run" / "summary.json").unlink()
    capsys.readouterr()
    assert run(tmp_path / "run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"warning: the checkpoint of step {steps} cannot be read" in said
    assert "continues at epoch 5, step 0" in said
    assert_same_run(whole, tmp_path / "run")


FULL_DISK = """
import resource, sys
from experiments import train
if sys.argv[1] == "full":  # files that grow larger fail like those on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
sys.exit(train.main(sys.argv[2:]))
"""


def test_full_disk_is_one_message_and_the_run_resumes(tmp_path):
    settings = (*SETTINGS, "--model.hidden", "512", "--out", str(tmp_path / "run"))

    def start(space):
        return subprocess.run(
            [sys.executable, "-c", FULL_DISK, space, *settings],
            cwd=ROOT,
            env=os.environ
            | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                "JAX_ENABLE_COMPILATION_CACHE": "false",  # its files are full, too
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    failed = start("full")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    message = " ".join(failed.stderr.split())
    assert "error a checkpoint cannot be written to" in message
    assert "resumes from the last checkpoint once there is space" in message
    assert len(failed.stderr.splitlines()) < 12
    assert start("enough").returncode == 0
    assert len(records(tmp_path / "run")) == 6
