"""The comparison on digits: fair splits, fair tuning, and a run from end to end."""

import dataclasses
import json
import pathlib
import re

import matplotlib.image
import numpy as np
import pytest
import tyro

from experiments import compare, gradtail_study
from experiments.digits import sweep, tuning
from experiments.digits.draws import draw, load_images, long_tail_counts
from experiments.methods import OptimizerConfig
from ltjax import data

_, CLASSES = load_images()


@pytest.mark.parametrize("scenario", ["long-tail", "noise"])
def test_draws_are_disjoint_and_share_the_test_set(scenario):
    first, second = (draw(CLASSES, scenario, seed) for seed in (0, 1))
    parts = [first.train, first.val, first.meta, first.test]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    np.testing.assert_array_equal(first.test, second.test)
    # Other images, and other digits are frequent.
    assert set(first.train) != set(second.train)
    assert (first.labels != second.labels).any()
    for part, size in (("val", 20), ("meta", 10), ("test", 40)):
        labels = first.labels[getattr(first, part)]
        np.testing.assert_array_equal(np.bincount(labels), np.full(10, size))


def test_class_sizes_and_noise_are_exact():
    tail, noisy = (draw(CLASSES, s, 3) for s in ("long-tail", "noise"))
    counts = np.bincount(tail.labels[tail.train])
    assert counts.tolist() == [100, 64, 41, 27, 17, 11, 7, 4, 3, 2]
    np.testing.assert_array_equal(tail.given, tail.labels)
    wrong = noisy.given != noisy.labels
    assert wrong[noisy.train].sum() == 400
    assert wrong.sum() == 400  # nothing else is touched
    assert data.class_counts(noisy.labels[noisy.train], 10).tolist() == [100] * 10


@pytest.mark.parametrize("scenario", ["long-tail", "noise"])
def test_every_method_has_eight_candidates(scenario):
    for entry in compare.ENTRIES.values():
        candidates = entry.candidates(scenario)
        assert len(candidates) == 8
        settings = sweep.Settings(entry.task(30).method, OptimizerConfig())
        for candidate in candidates:
            changed = settings.replaced(candidate)
            assert candidate == {k: _at(changed, k) for k in candidate}


def _at(settings, path):
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def test_runs_of_a_sweep_do_not_influence_each_other():
    task = compare.ENTRIES["ce"].task(2)
    draws = [draw(CLASSES, "noise", seed) for seed in (0, 1)]
    plain = {"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 5e-4}
    still = plain | {"optimizer.learning_rate": 0.0}
    both = sweep.Sweep(task, [plain, still], draws, epochs=2)
    before = both.logits("val")
    log = both.epoch()
    after = both.logits("val")
    np.testing.assert_allclose(after[1], before[1], atol=1e-6)
    assert np.abs(after[0] - before[0]).max() > 0.1
    np.testing.assert_allclose(log.weights, 1.0, rtol=1e-5)
    assert log.val_accuracy.shape == (2, 2, 10)
    labels = np.stack([d.labels[d.val] for d in draws])
    right = (after.argmax(-1) == labels).mean(-1)
    np.testing.assert_allclose(log.val_accuracy.mean(-1), right)  # 20 of each class
    for seed, own in enumerate(draws):
        weights = both.example_weights[:, seed]
        np.testing.assert_allclose(weights[:, own.train], 1.0, rtol=1e-5)
        assert np.isnan(np.delete(weights, own.train, axis=1)).all()
    alone = sweep.Sweep(task, [plain], draws[:1], epochs=2)
    alone.epoch()
    np.testing.assert_allclose(alone.logits("val")[0, 0], after[0, 0], atol=1e-4)


def test_batches_pass_over_all_examples():
    batches = sweep._endless(np.arange(70), [0])
    seen = np.concatenate([next(batches) for _ in range(7)])
    np.testing.assert_array_equal(np.bincount(seen), np.full(70, 5))


def test_the_choice_is_the_best_on_validation():
    entries = {name: compare.ENTRIES[name] for name in ("ce", "weight-balancing")}
    results = tuning.run(entries, "long-tail", seeds=2, epochs=2)
    for result in results.values():
        tried = {tuple(c.items()): a for c, a in result.validation}
        assert tried[tuple(result.choice.items())] == max(tried.values())
        assert result.accuracy.shape == (2, 10)
        assert result.loss.shape == (2, 2)
    assert results["ce"].cost == 1.0
    assert 0 <= results["weight-balancing"].choice["method.post_hoc_tau"] <= 2


def test_main_writes_numbers_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "QUICK_EPOCHS", 4)
    monkeypatch.setattr(compare, "QUICK_SEEDS", 2)
    config = tyro.cli(
        compare.Config,
        args=["--methods", "absgd", "--quick", "--out", str(tmp_path / "new" / "out")],
    )
    compare.main(config)
    compare.main(dataclasses.replace(config, scenario="noise"))  # over the first
    printed = capsys.readouterr().out
    # CE and ABSGD, eight candidates each, two seeds, two scenarios.
    assert (
        "2 methods on 1,797 handwritten digits, long-tail and noise: 64 runs of 4 "
        in (" ".join(printed.split()))
    )
    assert "ABSGD" in printed
    assert "chosen on validation" in printed
    content = json.loads((config.out / "results.json").read_text())
    assert content["seeds"] == [0, 1]
    assert set(content["results"]) == {"noise"}
    assert {"versions", "device"} <= set(content["environment"])
    own = content["results"]["noise"]["absgd"]
    assert len(own["validation"]) == 8
    assert len(own["balanced_accuracy"]) == 2
    pictures = sorted(path.name for path in config.out.glob("*.png"))
    assert pictures == [
        *("long-tail-accuracy.png", "long-tail-losses.png", "long-tail-summary.png"),
        *("long-tail-weights.png", "noise-losses.png", "noise-summary.png"),
        "noise-weights.png",
    ]
    page = config.out / "report.html"
    assert printed.rstrip().endswith(str(page))
    text = page.read_text()
    assert text.count("<h2>") == 1  # the noise of the second time
    assert "Most suspicious labels: ABSGD, first seed" in text
    assert text.count('alt="label ') == 2 * 24
    assert "compare --methods absgd --scenario noise --out" in text
    for path in config.out.glob("*.png"):
        image = matplotlib.image.imread(path)[..., :3]
        assert image.min() < 0.5 < image.mean()


def test_the_plan_compares_with_the_full_comparison():
    names, scenarios = tuple(compare.ENTRIES), ("long-tail", "noise")
    full = compare.plan(names, scenarios, seeds=10, epochs=tuning.EPOCHS)
    assert "1,600 runs of 30 epochs, 10 seeds" in full
    assert "100% of the full comparison" in full
    part = compare.plan(("ce",), scenarios[:1], seeds=5, epochs=15)
    assert "40 runs of 15 epochs" in part  # a 20th of the methods and scenarios,
    assert "1% of the full comparison" in part  # a quarter of the steps of each
    page = pathlib.Path(compare.__file__).parents[1] / "docs" / "compare.md"
    words = " ".join(page.read_text().split())
    assert f"It took {compare.FULL_SECONDS} s of CPU time" in words


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--methods", "sgd"], "'sgd'.*absgd"),
        (["--scenario", "easy"], "easy.*long-tail"),
    ],
)
def test_unknown_names_are_refused(args, message, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(compare.Config, args=args)
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(message, shown)


def test_no_seeds_are_refused():
    with pytest.raises(SystemExit, match="--seeds must be at least 1, got 0"):
        compare.main(compare.Config(seeds=0))


def test_shuffled_weights_are_the_same_weights_elsewhere():
    names = ("gated", "gated, shuffled")
    entries = {name: gradtail_study.VARIANTS[name] for name in names}
    plain, shuffled = tuning.run(entries, "long-tail", seeds=1, epochs=2).values()
    counts = long_tail_counts()
    assert gradtail_study.rank(plain, counts)[0] < -0.5
    spread = [np.ptp(r.weights[0, 1, 0]) for r in (plain, shuffled)]
    assert spread[0] > 2 * spread[1]
