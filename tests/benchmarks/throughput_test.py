import json
import os

import pytest

from benchmarks import throughput


@pytest.fixture
def small(monkeypatch):
    """Small images, and the process keeps its cores."""
    monkeypatch.setattr(throughput, "SHAPE", (8, 8, 3))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)


def _config(**changes):
    return throughput.Config(
        models=("patchify",), batch=4, steps=2, rounds=2, **changes
    )


def test_loop_and_scan_are_measured_and_written(small, tmp_path, capsys):
    config = _config(scan=True, untuned=False, out=tmp_path / "new" / "rates.json")
    report = throughput.main(config)
    assert json.loads(config.out.read_text())["results"] == report["results"]
    assert [row["epoch"] for row in report["results"]] == ["loop", "scan"]
    for row in report["results"]:
        assert len(row["rates"]) == 2
        assert 0 < row["slowest"] <= row["median"] <= row["fastest"]
    assert "patchify  loop" in capsys.readouterr().out


def test_loop_and_scan_compute_the_same_loss(small):
    epochs = throughput._epochs("patchify", _config(scan=True, untuned=False))
    assert epochs["loop"]() == pytest.approx(epochs["scan"](), rel=1e-3)


def test_torch_has_the_same_parameters_and_learns(small):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_resnet
    from experiments import models

    net = torch_resnet.resnet(models.RESNETS["resnet32"], 10)
    assert sum(p.numel() for p in net.parameters()) == 464_154
    threads = torch.get_num_threads()
    try:
        epoch = throughput._epochs("patchify", _config(peers=True))["torch"]
        first, *_, last = (epoch() for _ in range(5))
    finally:
        torch.set_num_threads(threads)
    assert last < first
