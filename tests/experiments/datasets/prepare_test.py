"""What splits are made of, and which configurations are refused."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import DataConfig, load
from ltjax import data
from tests.experiments.datasets import formats


def _npz(path: Path, labels: np.ndarray) -> str:
    """A set with a test part whose only feature is the index of the example."""
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    np.savez(
        path, inputs=x, targets=labels, test_inputs=x[:10], test_targets=labels[:10]
    )
    return str(path)


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize(
    ("recipe", "totals"),
    [
        ("exponential", (12_406, 10_847)),
        ("gdw", (12_156, 10_626)),
        ("weight_balancing", (12_360, 10_457)),
        ("step", (25_250, 25_250)),
    ],
)
def test_recipes_have_their_published_sizes(tmp_path, recipe, totals, num_classes):
    labels = np.random.default_rng(0).permutation(np.arange(50_000) % num_classes)
    splits = load(
        DataConfig(
            name="arrays",
            path=_npz(tmp_path / "x.npz", labels),
            recipe=recipe,
            factor=0.01,
            val_size=None if recipe == "weight_balancing" else 0,
            meta_size=1000 if recipe == "gdw" else 0,
        )
    )
    assert len(splits.train.targets) == totals[num_classes == 100]
    assert splits.class_counts.sum() == len(splits.train.targets)
    assert (np.diff(splits.class_counts) <= 0).all()
    if recipe == "weight_balancing":
        expected = data.weight_balancing_split(labels, 0.01)
        np.testing.assert_array_equal(splits.indices["train"], expected.train)
        np.testing.assert_array_equal(splits.indices["val"], expected.validation)
    if recipe == "gdw":
        assert np.bincount(splits.meta.targets).tolist() == [1000 // num_classes] * (
            num_classes
        )


def test_a_tail_is_as_long_as_the_examples_allow(tmp_path):
    labels = np.repeat([0, 1, 2], [90, 100, 8])
    config = DataConfig(
        name="arrays",
        path=_npz(tmp_path / "x.npz", labels),
        recipe="exponential",
        factor=0.1,
        val_size=0,
    )
    assert load(config).class_counts.tolist() == [89, 28, 8]


@pytest.mark.parametrize("noise", ["none", "uniform", "uniform_other", "pair"])
@pytest.mark.parametrize("recipe", ["none", "exponential", "weight_balancing", "step"])
def test_splits_are_disjoint_and_only_training_labels_change(recipe, noise):
    labels = np.random.default_rng(1).integers(0, 5, 3000)
    x = np.arange(3000.0)[:, None]
    splits = datasets.from_arrays(
        x,
        labels,
        DataConfig(
            recipe=recipe,
            factor=1.0 if recipe == "none" else 0.1,
            noise=noise,
            noise_rate=0.0 if noise == "none" else 0.3,
            meta_size=50,
            val_size=100,
        ),
    )
    indices = splits.indices
    together = np.concatenate(list(indices.values()))
    assert len(np.unique(together)) == len(together)
    assert set(indices) == {"train", "val", "test", "meta"}
    if recipe == "none":
        assert len(together) == 3000
    for part in ("val", "test", "meta"):
        np.testing.assert_array_equal(
            getattr(splits, part).targets, labels[indices[part]]
        )
    np.testing.assert_array_equal(splits.clean_targets, labels[indices["train"]])
    np.testing.assert_array_equal(
        splits.class_counts, np.bincount(splits.train.targets, minlength=5)
    )
    assert np.bincount(splits.val.targets).tolist() == [20] * 5
    assert np.bincount(splits.meta.targets).tolist() == [10] * 5
    rate = np.mean(splits.train.targets != splits.clean_targets)
    expected = {"none": 0, "uniform": 0.24, "uniform_other": 0.3, "pair": 0.3}[noise]
    n = len(splits.train.targets)
    assert abs(rate - expected) <= (1 / n if noise == "uniform_other" else 0.03)


@pytest.mark.parametrize(
    ("noise", "share"), [("flip", 0.3), ("flip2", 0.3), ("pair", 0.3)]
)
def test_noise_that_prefers_some_classes(noise, share):
    labels = np.arange(4000) % 4
    splits = datasets.from_arrays(
        np.zeros((4000, 1)), labels, DataConfig(noise=noise, noise_rate=share)
    )
    seen = data.confusion_noise(splits.clean_targets, splits.train.targets, 4)
    targets = np.count_nonzero(seen, axis=1) - 1
    assert (targets == (2 if noise == "flip2" else 1)).all()
    np.testing.assert_allclose(np.diag(seen), 0.7, atol=0.07)


def test_uniform_noise_of_others_is_exact_in_every_class():
    labels = np.arange(4000) % 4
    splits = datasets.from_arrays(
        np.zeros((4000, 1)), labels, DataConfig(noise="uniform_other", noise_rate=0.25)
    )
    kept = splits.train.targets == splits.clean_targets
    counts = np.bincount(splits.clean_targets[kept], minlength=4)
    np.testing.assert_array_equal(counts, 0.75 * np.bincount(splits.clean_targets))


def test_part_of_the_training_set_is_balanced_and_leaves_the_rest_alone():
    whole = load(DataConfig(meta_size=20))
    part = load(DataConfig(meta_size=20, train_size=100))
    assert part.class_counts.tolist() == [10] * 10
    assert set(part.indices["train"]) < set(whole.indices["train"])
    for split in ("val", "test", "meta"):
        np.testing.assert_array_equal(part.indices[split], whole.indices[split])


def test_trusted_examples_can_be_trained_on_too():
    config = DataConfig(noise="uniform_other", noise_rate=1.0, meta_size=20)
    apart = load(config)
    joined = load(dataclasses.replace(config, train_on_meta=True))
    n = len(apart.train.targets)
    np.testing.assert_array_equal(joined.train.targets[:n], apart.train.targets)
    np.testing.assert_array_equal(joined.train.targets[n:], apart.meta.targets)
    np.testing.assert_array_equal(joined.train.inputs[n:], apart.meta.inputs)
    np.testing.assert_array_equal(joined.indices["train"][n:], apart.indices["meta"])
    changed = joined.train.targets != joined.clean_targets
    assert changed[:n].all()
    assert not changed[n:].any()
    np.testing.assert_array_equal(joined.meta.targets, apart.meta.targets)


def test_digest_names_the_selection():
    base = DataConfig(recipe="exponential", factor=0.1, meta_size=20)
    first = load(base)
    again = load(base)
    assert first.digest == again.digest
    assert len(first.digest) == 64
    noisy = DataConfig(
        recipe="exponential", factor=0.1, meta_size=20, noise="pair", noise_rate=0.2
    )
    other = load(noisy)
    assert other.digest != first.digest
    for part, indices in first.indices.items():
        np.testing.assert_array_equal(other.indices[part], indices)
    assert load(DataConfig(seed=1)).digest != load(DataConfig()).digest


def test_shares_are_held_out_by_class():
    labels = np.repeat([0, 1, 2], [200, 20, 2])
    splits = datasets.from_arrays(np.zeros((222, 1)), labels, DataConfig())
    assert np.bincount(splits.test.targets, minlength=3).tolist() == [40, 4, 0]
    assert np.bincount(splits.val.targets, minlength=3).tolist() == [16, 2, 0]
    assert splits.class_counts.tolist() == [144, 14, 2]


def test_image_statistics():
    x = formats.images(50)
    splits = datasets.from_arrays(x, np.arange(50) % 2, DataConfig())
    scaled = x[splits.indices["train"]].astype(np.float64) / 255
    np.testing.assert_allclose(splits.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(splits.std, scaled.std((0, 1, 2)), rtol=1e-6)
    assert splits.input_shape == (32, 32, 3)
    assert not splits.streaming


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(factor=0.1), "factor=0.1 needs a recipe"),
        (dict(noise_rate=0.1), "noise_rate=0.1 does nothing with noise='none'"),
        (dict(noise="asymmetric", noise_rate=0.1), "that of cifar10, not of 'digits'"),
        (dict(noise="human_worse"), "that of cifar10, not of 'digits'"),
        (dict(noise="block", noise_rate=0.1), "that of cifar100, not of 'digits'"),
        (dict(recipe="gdw", factor=0.1), "needs a meta set, got meta_size=0"),
        (dict(recipe="weight_balancing", factor=0.1, val_size=7), "multiple of 10"),
        (dict(stream=True), "stream=True needs image files"),
        (dict(name="diabetes", recipe="step", factor=0.1), "recipe='step' needs class"),
        (dict(name="diabetes", noise="pair", noise_rate=0.1), "noise='pair' needs cla"),
        (
            dict(name="diabetes", recipe="weight_balancing", val_size=7),
            "recipe='weight_balancing' needs classes, 'diabetes' is regression",
        ),
        (
            dict(name="diabetes", recipe="weight_balancing", noise="human_worse"),
            "recipe='weight_balancing' needs classes, 'diabetes' is regression",
        ),
        (
            dict(recipe="step", factor=0.1, train_size=10),
            "train_size=10 needs recipe='none', got 'step'",
        ),
        (dict(train_on_meta=True), "train_on_meta needs a meta set, got meta_size=0"),
        (dict(train_size=1_000_000), "size must leave a balanced set possible"),
        (dict(recipe="step", factor=0.0), "factor must be"),
        (dict(noise="pair", noise_rate=1.5), "rate must be"),
        (dict(meta_size=1_000_000), "size must leave a balanced set possible"),
    ],
)
def test_contradictions_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        load(DataConfig(**config))


def test_describe():
    config = DataConfig(
        recipe="exponential", factor=0.1, noise="uniform_other", noise_rate=0.2
    )
    splits = load(config)
    text = datasets.describe(splits)
    assert f"{len(splits.train.targets)} train, 143 val, 359 test" in text
    assert splits.digest[:12] in text
    assert "10 classes: " in text
    assert "20.0% of training labels changed" in text
    assert "target: min 25" in datasets.describe(load(DataConfig(name="diabetes")))


def test_the_command_describes_a_set():
    command = [sys.executable, "-m", "experiments.datasets", "--factor", "0.1"]
    done = subprocess.run(
        [*command, "--recipe", "exponential"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = datasets.describe(load(DataConfig(recipe="exponential", factor=0.1)))
    assert done.stdout.strip() == expected
