"""A dry run says what would be done and for how long, and leaves nothing behind."""

import pytest

from experiments import train
from experiments.configs import TrainConfig
from experiments.training import rehearsal
from experiments.training.rehearsal import Times, estimate


@pytest.fixture(autouse=True)
def _briefly(monkeypatch):
    """One block of steps is enough."""
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.0)


def test_a_dry_run_prints_a_plan_and_writes_nothing(tmp_path, capsys):
    argv = (
        *("smoke", "--model.hidden", "8", "--data.noise", "uniform"),
        *("--data.noise-rate", "0.2", "--epochs", "7", "--devices", "1"),
        *("--out", str(tmp_path / "run"), "--dry-run"),
    )
    assert train.main(argv) == 0
    printed = capsys.readouterr().out
    for said in (
        "data.noise_rate = 0.2",
        "method.loss.name = ce",
        "train, ",
        "24,674 trained parameters",  # 3072 * 8 + 8 * 10, and biases
        "7 epochs of 2 steps of 208 examples; 1 seed",
        f"written to {tmp_path / 'run'} (new)",
        "Estimated time: ",
        "14 steps of",
        "7 evaluations of",
        "2 steps were taken here and thrown away",
    ):
        assert said in " ".join(printed.split()), said
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_what_cannot_run_is_refused(tmp_path, capsys):
    argv = ("smoke", "--batch-size", "5000", "--out", str(tmp_path), "--dry-run")
    assert train.main(argv) == 1
    assert "batch_size must be at most" in capsys.readouterr().err


def test_the_estimate_counts_steps_and_evaluations():
    # Evaluated: epoch 4 and 8, and the last five, 6 to 10.
    config = TrainConfig(epochs=10, eval_every=4)
    times = Times(start=10.0, step=0.5, timed_steps=3, evaluation=2.0)
    total, how = estimate(config, 20, times)
    assert total == (
        "Estimated time: 2.03 min: 10 s to start, 200 steps of 500 ms, "
        "6 evaluations of 2 s."  # 10 + 100 + 12 s
    )
    assert "3 steps were taken" in how
    assert estimate(config, 20_000, times)[0].startswith("Estimated time: 27.8 h")
