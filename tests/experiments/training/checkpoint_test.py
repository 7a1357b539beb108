"""Checkpoints round-trip exactly, and half-written ones are never used."""

import asyncio
import gc
import itertools
import logging
import re
import sys
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.training.checkpoint import Checkpoints
from experiments.training.errors import RunError


class State(NamedTuple):
    step: jax.Array
    params: dict
    nothing: None = None


def state(value, dtype=jnp.float32):
    params = {"w": jnp.full((8, 2), value, dtype), "b": jnp.arange(3.0) * value}
    return State(jnp.asarray(int(value), jnp.int32), params)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "run")
    yield made
    made.close()


def test_round_trip_keeps_types_and_host_state(checkpoints):
    host = {"epoch": 3, "history": [{"loss": 0.1, "by_class": [1.5, None]}]}
    checkpoints.save(3, state(3.3, jnp.bfloat16), host, score=0.0)
    checkpoints.wait()
    restored, found = checkpoints.restore(state(0.0, jnp.bfloat16))
    equal(restored, state(3.3, jnp.bfloat16))
    assert found == host


def test_empty_folder_restores_nothing(checkpoints):
    assert checkpoints.restore(state(0.0)) is None


def test_keeps_the_last_two_and_the_best(checkpoints, tmp_path):
    for step, score in [(1, 0.2), (2, 0.9), (3, 0.5), (4, 0.4), (5, 0.1)]:
        checkpoints.save(step, state(step), {"epoch": step}, score=score)
    checkpoints.wait()
    assert checkpoints.restore(state(0))[1] == {"epoch": 5}
    assert checkpoints.restore_best(state(0))[1] == {"epoch": 2}
    kept = {p.name for p in (tmp_path / "run").iterdir() if p.name.isdigit()}
    assert kept == {"2", "4", "5"}


def test_saved_arrays_may_be_donated_at_once(checkpoints):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 + 7, s), donate_argnums=0)
    current = state(5.0)
    checkpoints.save(5, current, {}, score=0.0)
    jax.block_until_ready(step(current))
    checkpoints.wait()
    equal(checkpoints.restore(state(0.0))[0], state(5.0))


@pytest.mark.parametrize("missing", ["_CHECKPOINT_METADATA", "host", "state"])
def test_half_written_checkpoint_is_passed_over(tmp_path, missing):
    first = Checkpoints(tmp_path)
    for step in (1, 2):
        first.save(step, state(step), {"epoch": step}, score=0.0)
    first.close()
    damaged = tmp_path / "2" / missing
    if damaged.is_dir():
        damaged.rename(tmp_path / "2" / "lost")
    else:
        damaged.unlink()
    second = Checkpoints(tmp_path)
    restored, host = second.restore(state(0.0))
    equal(restored, state(1.0))
    assert host == {"epoch": 1}
    second.save(2, state(2.5), {"epoch": 2}, score=0.0)
    second.wait()
    equal(second.restore(state(0.0))[0], state(2.5))
    second.close()


def truncate(folder):
    """Damages the arrays of a committed checkpoint: every data file ends early."""
    files = [
        p for p in (folder / "state").rglob("*") if "/d/" in str(p) and p.is_file()
    ]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# When one array fails, those still being read report to an event loop that is gone.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def late_readers():
    """Waits for them, so that they do not report within another test."""
    yield
    time.sleep(1.0)
    gc.collect()


@pytest.mark.usefixtures("late_readers")
@pytest.mark.parametrize("part", ["arrays", "host"])
def test_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path, part):
    first = Checkpoints(tmp_path)
    for step in (1, 2):
        first.save(step, state(step), {"epoch": step}, score=0.0)
    first.close()
    if part == "arrays":
        truncate(tmp_path / "2")
    else:
        (path,) = (p for p in (tmp_path / "2" / "host").rglob("metadata"))
        path.write_text(path.read_text()[:5])
    said = []
    second = Checkpoints(tmp_path, said.append)
    restored, host = second.restore(state(0.0))
    equal(restored, state(1.0))
    assert host == {"epoch": 1}
    assert len(said) == 1
    assert re.search(
        "step 2 cannot be read .* since the one before it are rep", said[0]
    )
    second.save(2, state(2.5), {"epoch": 2}, score=0.0)  # the repeated step
    second.wait()
    equal(second.restore(state(0.0))[0], state(2.5))
    second.close()


@pytest.mark.usefixtures("late_readers")
def test_no_checkpoint_that_can_be_read_is_an_error(tmp_path):
    first = Checkpoints(tmp_path)
    for step in (1, 2):
        first.save(step, state(step), {}, score=0.0)
    first.close()
    for step in (1, 2):
        truncate(tmp_path / str(step))
    second = Checkpoints(tmp_path, lambda text: None)
    with pytest.raises(RunError, match=r"none of the checkpoints in .* can be read"):
        second.restore(state(0.0))
    assert second.restore_best(state(0.0)) is None
    # Nothing is deleted, since it may be the template that does not fit.
    assert {"1", "2"} <= {p.name for p in tmp_path.iterdir()}
    second.close()


class Full:
    """An array on a full disk."""

    def __getitem__(self, index):
        return self

    with_transaction = __getitem__

    async def write(self, *args, **kwargs):
        raise ValueError("no space")


@pytest.fixture
def hooks(monkeypatch):
    """Puts back what a failed run leaves in place until the process ends."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "filters", list(logger.filters))


@pytest.mark.usefixtures("hooks")
def test_arrays_that_fail_together_are_one_error(
    tmp_path, monkeypatch, caplog, capfd, recwarn
):
    turns = itertools.count()

    async def opened(*args, **kwargs):
        for _ in range(next(turns)):  # the others are at every stage when one fails
            await asyncio.sleep(0)
        return Full()

    arrays = {str(i): jnp.ones(3) for i in range(20)}
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(tensorstore, "open", opened)
    checkpoints.save(1, arrays, {}, score=0.0)
    with pytest.raises(RunError, match=r"cannot be written .* no space"):
        checkpoints.wait()
    del checkpoints
    time.sleep(1.0)  # for the threads that still hold what failed
    gc.collect()
    assert not caplog.records
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_sharded_arrays_come_back_sharded(checkpoints):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    array = jax.device_put(jnp.arange(16.0), sharding)
    checkpoints.save(1, {"w": array}, {}, score=0.0)
    checkpoints.wait()
    restored, _ = checkpoints.restore({"w": jnp.zeros_like(array)})
    np.testing.assert_array_equal(restored["w"], array)
    template = {"w": jax.device_put(jnp.zeros(16), sharding)}
    assert checkpoints.restore(template)[0]["w"].sharding == sharding
