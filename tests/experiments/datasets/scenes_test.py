"""Scenes: labels follow the ink, digits are long-tailed, parts share nothing."""

import dataclasses

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import DataConfig, DataNotFoundError
from experiments.datasets.scenes import SceneConfig, load_scenes
from tests.experiments.datasets import formats


@pytest.fixture
def mnist(tmp_path):
    """MNIST of filled 12 x 12 squares; levels tell the parts and the digits apart."""
    levels = {"train": 130, "t10k": 200}
    for name, level in levels.items():
        labels = (np.arange(400) % 10).astype(np.uint8)
        pixels = np.zeros((400, 28, 28), np.uint8)
        pixels[:, 8:20, 8:20] = (level + labels)[:, None, None]
        pixels[:, 7, 7] = 50  # too faint to be labelled
        if name == "train":  # the half that validation scenes are made of
            pixels[200:, 8:20, 8:20] += 30
        formats.idx_file(tmp_path / f"{name}-images-idx3-ubyte", pixels)
        formats.idx_file(tmp_path / f"{name}-labels-idx1-ubyte", labels)
    return str(tmp_path)


def test_every_inked_pixel_has_the_label_of_its_digit(mnist):
    config = SceneConfig(path=mnist, train=30, val=20, test=20, canvas=48, factor=0.2)
    splits = load_scenes(config)
    for part, level, count in (("train", 130, 30), ("val", 160, 20), ("test", 200, 20)):
        images, labels = getattr(splits, part)
        assert images.shape == (count, 48, 48, 1)
        assert images.dtype == np.uint8
        assert labels.shape == (count, 48, 48)
        assert labels.dtype == np.int32
        shown = images[..., 0].astype(int)
        np.testing.assert_array_equal(labels > 0, shown >= 128)
        inked = labels > 0
        np.testing.assert_array_equal(labels[inked], 1 + shown[inked] - level)
        assert set(np.unique(shown[~inked])) == {0, 50}
        # Four digits of 144 pixels, fewer where they overlap, never none.
        ink = inked.sum((1, 2))
        assert ink.max() <= 4 * 144
        assert ink.min() >= 144


def test_digits_are_rare_in_training_only(mnist):
    config = SceneConfig(path=mnist, train=2000, val=1000, test=1000, digits=1)
    splits = load_scenes(config)
    counts = splits.class_counts
    assert counts.sum() == splits.train.labels.size
    shares = counts[1:] / counts[1:].sum()
    expected = 0.01 ** (np.arange(10) / 9)
    expected /= expected.sum()
    # 2,000 draws: standard deviation at most 0.011, four of them.
    np.testing.assert_allclose(shares, expected, atol=0.044)
    for part in (splits.val, splits.test):
        balanced = np.bincount(part.labels.ravel(), minlength=11)[1:]
        np.testing.assert_allclose(balanced / balanced.sum(), 0.1, atol=0.04)


def test_the_seed_decides(mnist):
    def scenes(seed):
        config = SceneConfig(path=mnist, train=5, val=5, test=5, factor=0.5, seed=seed)
        return load_scenes(config)

    first, again, other = scenes(0), scenes(0), scenes(1)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert not np.array_equal(a.images, c.images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(canvas=27), "canvas must be at least 28, got 27"),
        (dict(digits=0), "digits must be at least 1, got 0"),
        (dict(factor=0.0), r"factor must be .* in \(0, 1\], got 0.0"),
    ],
)
def test_bad_settings(mnist, settings, message):
    with pytest.raises(ValueError, match=message):
        load_scenes(SceneConfig(path=mnist, **settings))


def test_a_digit_without_images_is_named(tmp_path):
    for name in ("train", "t10k"):
        path = tmp_path / f"{name}-images-idx3-ubyte"
        formats.idx_file(path, np.zeros((20, 28, 28), np.uint8))
        labels = (np.arange(20) % 9).astype(np.uint8)
        formats.idx_file(tmp_path / f"{name}-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match="no image of digit 9"):
        load_scenes(SceneConfig(path=str(tmp_path), factor=1.0))


def test_missing_mnist_is_an_error(tmp_path):
    with pytest.raises(DataNotFoundError, match="mnist"):
        load_scenes(SceneConfig(path=str(tmp_path)))


def test_real_scenes(needs_data):
    splits = load_scenes(SceneConfig(train=200, val=50, test=50))
    counts = splits.class_counts
    assert counts[0] > 0.8 * counts.sum()
    assert counts[1] > 10 * counts[8:].mean()
    assert (np.bincount(splits.test.labels.ravel(), minlength=11) > 0).all()


def test_a_run_gets_scenes_as_splits(mnist):
    config = DataConfig(
        name="scenes",
        path=mnist,
        recipe="exponential",
        factor=0.2,
        train_size=30,
        val_size=10,
        image_size=32,
        seed=3,
    )
    splits = datasets.load(config)
    scenes = load_scenes(
        SceneConfig(
            path=mnist, train=30, val=10, test=10, canvas=32, factor=0.2, seed=3
        )
    )
    assert splits.dense
    assert splits.num_classes == 11
    assert splits.input_shape == (32, 32, 1)
    for name in ("train", "val", "test"):
        part, expected = getattr(splits, name), getattr(scenes, name)
        np.testing.assert_array_equal(part.inputs, expected.images)
        np.testing.assert_array_equal(part.targets, expected.labels)
    np.testing.assert_array_equal(splits.class_counts, scenes.class_counts)
    assert splits.mean == pytest.approx(scenes.train.images.mean() / 255)
    assert "background" in datasets.describe(splits)
    assert splits.digest != datasets.load(dataclasses.replace(config, seed=4)).digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(recipe="step"), "recipe must be 'exponential' for scenes, got 'step'"),
        (dict(noise="uniform"), "noise must be 'none' for scenes, got 'uniform'"),
        (dict(meta_size=9), "meta_size must be 0 for scenes, got 9"),
    ],
)
def test_settings_that_scenes_do_not_have(changes, message):
    settings = dict(name="scenes", recipe="exponential") | changes
    with pytest.raises(ValueError, match=message):
        datasets.load(DataConfig(**settings))
