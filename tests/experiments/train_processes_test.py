"""The trainer in processes of its own: killed and resumed, and several at once."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.experiments.runs import (
    DIGITS,
    ROOT,
    arrays,
    assert_same,
    rows,
    run,
    without_times,
)


def start(folder, *argv, cached=True):
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_ENABLE_COMPILATION_CACHE": str(cached),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *argv, "--out", str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def newest_checkpoint(folder):
    names = [p.name for p in (folder / "checkpoints").glob("*") if p.name.isdigit()]
    return max(map(int, names), default=0)


def kill_and_resume(tmp_path, settings, signals, rng, cached):
    """Kills a run at random moments; compares its end with an undisturbed one."""
    settings = (*DIGITS, *settings)
    finish(start(tmp_path / "whole", *settings, cached=cached))
    last = newest_checkpoint(tmp_path / "whole")
    reached = 0
    for number in signals:
        process = start(tmp_path / "killed", *settings, cached=cached)
        while newest_checkpoint(tmp_path / "killed") <= reached:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM), output
        reached = newest_checkpoint(tmp_path / "killed")
        assert reached < last
    output = finish(start(tmp_path / "killed", *settings, cached=cached))
    assert "continues at epoch" in output
    assert_same(arrays(tmp_path / "whole"), arrays(tmp_path / "killed"))
    assert_same(
        arrays(tmp_path / "whole", "best.npz"),
        arrays(tmp_path / "killed", "best.npz"),
    )
    assert without_times(rows(tmp_path / "whole")) == without_times(
        rows(tmp_path / "killed")
    )


GDW_STEPS = (
    *("--method.weighting", "gdw", "--scan", "False", "--checkpoint-steps", "2"),
    *("--meta-batch-size", "16", "--crop", "1"),
)


def test_killed_runs_end_with_the_same_bits(tmp_path):
    """All processes run the same compiled programs; below, each compiles its own."""
    signals = (signal.SIGKILL, signal.SIGTERM)
    settings = (*GDW_STEPS, "--epochs", "7", "--eval-every", "5")
    kill_and_resume(tmp_path, settings, signals, random.Random(0), cached=True)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["absgd", "gradtail", "mw_net"])
def test_runs_killed_often_end_with_the_same_bits(weighting, tmp_path):
    signals = [signal.SIGKILL] * 8
    settings = (*GDW_STEPS, "--method.weighting", weighting, "--epochs", "150")
    kill_and_resume(tmp_path, settings, signals, random.Random(1), cached=False)


def test_two_processes_give_the_numbers_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    settings = (*DIGITS, "--method.weighting", "gdw", "--meta-batch-size", "16")
    several = ("--coordinator", f"localhost:{port}", "--num-processes", "2")
    processes = [
        start(tmp_path / "two", *settings, *several, "--process-id", str(i))
        for i in range(2)
    ]
    for process in processes:
        finish(process)
    assert run(tmp_path / "one", *settings) == 0
    assert_same(
        arrays(tmp_path / "two"), arrays(tmp_path / "one"), rtol=1e-3, atol=1e-5
    )
    (two,), (one,) = rows(tmp_path / "two"), rows(tmp_path / "one")
    np.testing.assert_allclose(two["train/loss"], one["train/loss"], rtol=1e-4)
