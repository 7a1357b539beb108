"""What the benchmarks count, time and compare with."""

import io
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import (
    cost,
    exactness,
    models,
    overhead,
    report,
    scaling,
    steps,
    targets,
    timing,
    torch_steps,
)
from experiments.models import ModelConfig, xla
from tests.quick_compilation import HAS_EMITTERS_FLAG

SMALL = models.Spec(ModelConfig(name="mlp", hidden=(32,)), (64,), 16)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax and optax rely on it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", steps.METHODS)
def test_every_step_keeps_the_structure_of_its_state(name):
    step = steps.make_step(name, models.TINY)
    batch = models.make_batch(models.TINY, 8, seed=0)
    meta = models.make_batch(models.TINY, 4, seed=1)
    after = jax.eval_shape(step.fun, step.state, batch, meta)
    before = jax.eval_shape(lambda: step.state)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert jax.tree.leaves(after) == jax.tree.leaves(before)


def test_weight_balancing_trains_no_classifier_kernel():
    plain = steps.make_step("sgd", models.TINY).state.params
    fixed = steps.make_step("weight-balancing", models.TINY).state.params
    assert len(fixed) == len(plain) - 1


def test_float64_reference_ignores_the_dtypes_that_a_function_names():
    def fun(x):
        y = jnp.log1p(jnp.exp(x.astype(jnp.bfloat16)))
        return jax.jit(jax.nn.softplus)(y).astype(jnp.float32) * 0.1

    x = jnp.array([0.1, 1.3, -2.7])
    with jax.enable_x64(True):
        got = exactness.in_float64(fun, x)(x.astype(jnp.float64))
    x = np.asarray(x, np.float64)
    want = np.log1p(np.exp(np.log1p(np.exp(x)))) * np.float64(np.float32(0.1))
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, want, rtol=1e-15)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-6), ("bfloat16", 3e-2)])
def test_errors_are_those_of_the_dtype(dtype, bound):
    found = exactness.errors(models.with_dtype(models.TINY, dtype))
    assert set(found) == {"dots", "norms", "gradient"}
    assert all(bound / 1e4 < error < bound for error in found.values())


def test_interleaving_cancels_the_drift_of_the_machine(monkeypatch):
    clock = [0.0]
    fake = types.SimpleNamespace(
        perf_counter=lambda: clock[0], process_time=lambda: clock[0]
    )
    monkeypatch.setattr(timing, "time", fake)

    def taking(seconds):
        def step():
            clock[0] += seconds * (1 + clock[0] / 20)  # slower and slower

        return step

    found = timing.interleave(
        {"a": taking(0.1), "b": taking(0.3)},
        baselines={"a": "a", "b": "a"},
        repeats=9,
        seconds=1e9,
    )
    assert found["b"].rounds == 9
    assert found["b"].ratio == pytest.approx(3, rel=0.03)
    assert found["b"].low <= found["b"].ratio <= found["b"].high
    assert found["b"].seconds > 1.1 * 0.3  # the drift was there


def test_interleaving_stops_in_time_but_not_before_three_rounds():
    rounds = []
    steps_ = {"a": lambda: None}
    timing.interleave(
        steps_,
        baselines={"a": "a"},
        repeats=9,
        seconds=0.0,
        advance=lambda: rounds.append(1),
    )
    assert len(rounds) == 3


def test_collectives_are_read_off_a_compiled_program():
    text = """
      %all-reduce.1 = (f32[32,8]{1,0}, f32[]) all-reduce(%a, %b), channel_id=1
      %g = bf16[16]{0} all-gather-start(%c), dimensions={0}
      %unrelated = f32[4]{0} add(%all-reduce.1, %d)
    """
    assert scaling.collectives(text) == [("all-reduce", 257), ("all-gather", 16)]


@pytest.mark.parametrize("name", ["sgd", "absgd", "gradtail-cosine", "gdw", "l2rw"])
def test_one_combined_all_reduce_for_each_gradient(name):
    compiled, args = scaling.compile_sharded(name, SMALL, 8)
    found = scaling.collectives(compiled.text)
    assert {c.kind for c in found} == {"all-reduce"}
    size = sum(p.size for p in args[0].params)
    large = [c.elements for c in found if c.elements >= size]
    assert len(large) == scaling.gradients_computed(name)
    rest = [c.elements for c in found if c.elements < size]
    assert max(rest, default=0) <= SMALL.batch_size


@pytest.mark.parametrize("name", ["absgd", "gradtail-cosine", "gdw"])
def test_weights_use_the_statistics_of_the_whole_batch(name):
    compiled, args = scaling.compile_sharded(name, SMALL, 8)
    alone, (state, batch, meta) = scaling.compile_sharded(name, SMALL, 1)
    # Some steps first, so that running means are not all zero.
    local = jax.jit(steps.make_step(name, SMALL).fun)
    for _ in range(25):
        state = local(state, batch, meta)
    state, on_all, on_one = (
        jax.device_get(state),
        jax.tree.leaves(args[0])[0].sharding,
        jax.tree.leaves(state)[0].sharding,
    )
    parts = [
        local(state, *jax.tree.map(lambda x, i=i: x[i : i + 2], (batch, meta))).params
        for i in range(0, SMALL.batch_size, 2)
    ]
    averaged = jax.tree.map(lambda *x: sum(x) / len(x), *parts)
    got = compiled.run(jax.device_put(state, on_all), *args[1:]).params
    want = alone.run(jax.device_put(state, on_one), batch, meta).params
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    distance = max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(averaged, got, strict=True)
    )
    assert distance > 1e-5  # statistics of shards would have been seen


@pytest.fixture
def fusion_emitters(monkeypatch):
    """Those of users: without them, XLA makes loops, whose FLOPs are not counted."""
    options = dict(xla.compiler_options())
    if HAS_EMITTERS_FLAG:
        options["xla_cpu_use_fusion_emitters"] = True
    monkeypatch.setattr(xla, "_CPU_OPTIONS", options)
    xla.compiler_options.cache_clear()
    yield
    xla.compiler_options.cache_clear()


@pytest.mark.usefixtures("fusion_emitters")
def test_table_is_written_as_json_markdown_and_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(models.SPECS, "mlp", models.TINY)
    monkeypatch.setattr(overhead, "METHODS", ("sgd",))
    options = cost.Options(
        models=("mlp",), methods=("absgd",), dtypes=("float32",), repeats=1,
        out=tmp_path,
    )  # fmt: skip
    console = Console(record=True, width=140, file=io.StringIO())
    cost.table(options, console)
    found = json.loads((tmp_path / "cost.json").read_text())
    assert [c["method"] for c in found["cells"]] == ["sgd", "absgd"]
    assert found["cells"][1]["flops_ratio"] < 1.5
    assert found["environment"]["versions"]["jax"] == jax.__version__
    assert "| ABSGD |" in (tmp_path / "cost.md").read_text()
    assert (tmp_path / "cost.png").stat().st_size > 10_000
    assert "ABSGD" in console.export_text()


def test_a_figure_says_whether_its_target_is_met():
    assert report._figure(1.05, targets.target("absgd", "mlp").wall) == "1.05 ≤1.05 ✓"
    assert report._figure(1.06, targets.target("absgd", "mlp").wall) == "1.06 ≤1.05 ✗"
    assert report._figure(1.06, targets.target("mw-net", "mlp").wall) == "1.06"
    coupled = targets.target("gradtail-dots", "resnet32-bn")
    assert coupled.flops > targets.target("gradtail-dots", "resnet32-gn").flops


def test_peer_takes_the_same_gdw_step():
    torch = pytest.importorskip("torch")
    step = steps.make_step("gdw", SMALL)
    batch, meta = (models.make_batch(SMALL, 16, seed=seed) for seed in (0, 1))

    model = torch.nn.Sequential(
        torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )
    net = torch.nn.Sequential(
        torch.nn.Linear(1, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 1),
        torch.nn.Sigmoid(),
    )
    ours = step.state.weighting.net
    for (weight, bias), layer in (
        (("w1", "b1"), net[0]),
        (("w2", "b2"), net[2]),
    ):
        _copy(layer, ours[weight], ours[bias])
    # Leaves are in the order of their names: backbone before head, bias first.
    b1, w1, *head = step.state.params
    _copy(model[0], w1, b1)
    kernel = next(p for p in head if p.ndim == 2)
    _copy(model[2], kernel, next(p for p in head if p.ndim == 1))

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    batches = map(torch_steps.torch_batch, (batch, meta))
    theirs = torch_steps.gdw_step(model, net, optimizer, *batches)
    state = step.state
    ours_compiled = jax.jit(step.fun)
    for _ in range(3):
        theirs()
        state = ours_compiled(state, batch, meta)
    np.testing.assert_allclose(
        model[0].weight.detach().numpy().T, state.params[1], rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        net[0].weight.detach().numpy().T,
        state.weighting.net["w1"],
        rtol=1e-3,
        atol=1e-5,
    )


def _copy(layer, kernel, bias):
    import torch

    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(kernel).T))
        layer.bias.copy_(torch.from_numpy(np.array(bias)))
