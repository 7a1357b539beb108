"""Peers take the same steps as ours, and are left out by name where not installed."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import clipping, cost, models, peers, steps
from experiments.methods.losses import cross_entropy
from experiments.models import ModelConfig

MLP = models.Spec(ModelConfig(name="mlp", hidden=(16,)), (8,), 8)
CONVOLUTIONS = models.Spec(ModelConfig(name="patchify", norm="group"), (8, 8, 3), 4)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax and optax rely on it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.filterwarnings("ignore:optax.global_norm:DeprecationWarning")
@pytest.mark.parametrize("spec", [MLP, CONVOLUTIONS], ids=["mlp", "convolutions"])
@pytest.mark.parametrize("name", ["by_jax_privacy", "by_optax"])
def test_clipped_sums_are_those_of_dense_rows(name, spec):
    if name == "by_jax_privacy":
        pytest.importorskip("jax_privacy", reason="needs the extra `bench`")
    theirs = getattr(clipping, name)
    problem = models.make_problem(spec)
    batch = models.make_batch(spec, spec.batch_size, seed=0)

    def losses_fn(params, batch):
        outputs, _ = problem.apply(params, problem.rest, batch.inputs, train=True)
        return cross_entropy(outputs.logits, batch.targets)

    @jax.jit
    def clipped(params, limit):
        given = (losses_fn, params, batch, limit)
        return clipping.ours(*given), theirs(*given), theirs(*given, microbatch_size=2)

    rows = jax.jit(jax.jacrev(lambda params: losses_fn(params, batch)))(problem.params)
    rows = [np.asarray(r, np.float64) for r in rows]
    norms = np.sqrt(sum(np.square(r).reshape(len(r), -1).sum(1) for r in rows))
    limit = np.median(norms)  # clips half of them
    assert norms.min() < 0.97 * limit < 1.03 * limit < norms.max()
    weights = np.minimum(1, limit / norms)
    for found in clipped(problem.params, np.float32(limit)):
        for got, r in zip(found, rows, strict=True):
            expected = np.tensordot(weights, r, 1)
            atol = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=atol)


def test_steps_are_timed_beside_ours(tmp_path, monkeypatch):
    monkeypatch.setitem(models.SPECS, "mlp", models.TINY)
    monkeypatch.setattr(clipping, "MICROBATCH", 4)
    by_optax = peers._clipping("optax.microbatching", "optax", clipping.by_optax)
    absent = by_optax[0]._replace(framework="absent", packages=("no_such_package",))
    monkeypatch.setattr(peers, "PEERS", (absent, *by_optax))
    options = cost.Options(models=("mlp",), repeats=1, out=tmp_path)
    console = Console(record=True, width=140, file=io.StringIO())
    cost.compare_peers(options, console)
    found = json.loads((tmp_path / "peers.json").read_text())
    rows = {(row["framework"], row["step"]): row for row in found["rows"]}
    clipped = "clipped by example"
    assert list(rows) == [
        ("optax.microbatching", clipped),
        ("optax.microbatching, 4 at a time", clipped),
        ("ltjax", "SGD"),
        ("ltjax", clipped),
    ]
    assert rows["ltjax", "SGD"]["memory_ratio"] == 1
    assert all(row["memory_ratio"] > 0 for row in rows.values())
    assert rows["optax.microbatching", clipped]["speedup_of_ltjax"] > 0
    assert rows["ltjax", clipped]["speedup_of_ltjax"] is None
    assert "no_such_package" in found["missing"][0]
    text = console.export_text()
    assert "left out: absent" in text
    assert "optax.microbatching, 4 at a time" in text


def test_a_step_that_clips_nothing_is_plain_sgd(monkeypatch):
    monkeypatch.setattr(clipping, "_MAX_NORM", 1e9)
    batch = models.make_batch(models.TINY, 8, seed=0)
    clipped = clipping.make_step(clipping.ours, models.TINY)
    plain = steps.make_step("sgd", models.TINY)
    got, expected = (
        jax.jit(step.fun)(step.state, batch, None).params for step in (clipped, plain)
    )
    for a, b, start in zip(got, expected, plain.state.params, strict=True):
        np.testing.assert_allclose(a - start, b - start, rtol=1e-4, atol=1e-7)
        assert (a != start).any()
