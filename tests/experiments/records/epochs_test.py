"""Which epochs are reported."""

import pytest

from experiments.records.epochs import select


def rows(speeds):
    return [
        {
            "epoch": i + 1,
            "test/balanced_accuracy": accuracy,
            "val/balanced_accuracy": -accuracy,
            "test/per_class_accuracy": [accuracy, 0.0],
            "examples_per_second": speed,
        }
        for i, (accuracy, speed) in enumerate(
            zip((0.9, 0.1, 0.2, 0.3, 0.4, 0.5), speeds, strict=True)
        )
    ]


def test_rules_of_selection():
    chosen = select(rows([100.0] * 6))
    assert chosen["last"]["epoch"] == 6
    assert chosen["parity"]["epoch"] == 1
    assert chosen["best"]["epoch"] == 2
    assert chosen["last5"]["test/balanced_accuracy"] == pytest.approx(0.3)
    assert "test/per_class_accuracy" not in chosen["last5"]


@pytest.mark.parametrize("epoch", range(6))
def test_an_epoch_of_one_block_has_no_speed(epoch):
    speeds = [100.0] * 6
    speeds[epoch] = None
    assert select(rows(speeds))["last5"]["examples_per_second"] == 100.0


def test_no_speed_at_all():
    assert "examples_per_second" not in select(rows([None] * 6))["last5"]
