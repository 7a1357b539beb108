"""Own arrays and images."""

import numpy as np
import pytest
from PIL import Image

from experiments import datasets
from experiments.datasets import DataConfig, load
from tests.experiments.datasets import formats


def test_arrays_may_be_images_features_or_regression(tmp_path):
    gray = formats.images(40)[..., 0]
    assert datasets.from_arrays(gray, np.arange(40) % 2, DataConfig()).input_shape == (
        32,
        32,
        1,
    )
    x, y = np.arange(80.0).reshape(40, 2), np.linspace(5, 9, 40)
    splits = datasets.from_arrays(x, y, DataConfig())
    np.testing.assert_allclose(
        splits.test.targets * splits.target_std + splits.target_mean,
        y[splits.indices["test"]],
        rtol=1e-6,
    )
    assert splits.num_classes is None


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (np.zeros((4, 2)), np.zeros(3, int), r"targets must have shape \(4,\), got"),
        (np.zeros((4, 8, 8, 3)), np.zeros(4, int), "uint8 images.*dtype float64"),
        (np.zeros((4, 2)), np.asarray([0, 1, -1, 0]), "labels must be 0 or more"),
    ],
)
def test_bad_arrays(inputs, targets, message):
    with pytest.raises(ValueError, match=message):
        datasets.from_arrays(inputs, targets, DataConfig())


def test_bad_targets():
    with pytest.raises(TypeError, match=r"integers .* or floating .* got <U1"):
        datasets.from_arrays(np.zeros((2, 2)), np.asarray(["a", "b"]), DataConfig())


def test_npz_without_targets(tmp_path):
    np.savez(tmp_path / "x.npz", inputs=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="must hold inputs and targets, got inputs"):
        load(DataConfig(name="arrays", path=str(tmp_path / "x.npz")))


def test_image_folder(tmp_path):
    for i, (name, size) in enumerate([("cat", 20), ("dog", 20), ("emu", 28)] * 10):
        (tmp_path / name).mkdir(exist_ok=True)
        color = np.full((size, size, 3), 10 * (i % 3), np.uint8)
        Image.fromarray(color).save(tmp_path / name / f"{i:02}.png")
    with pytest.raises(ValueError, match=r"2 different sizes.*image_size"):
        load(DataConfig(name="folder", path=str(tmp_path)))
    splits = load(DataConfig(name="folder", path=str(tmp_path), image_size=16))
    assert splits.class_names == ("cat", "dog", "emu")
    assert splits.train.inputs.shape == (21, 16, 16, 3)
    np.testing.assert_array_equal(
        splits.train.inputs[:, 0, 0, 0], 10 * splits.train.targets
    )
    streamed = load(DataConfig(name="folder", path=str(tmp_path), stream=True))
    assert streamed.streaming
    assert streamed.input_shape == (224, 224, 3)
    np.testing.assert_array_equal(streamed.train.targets, splits.train.targets)


def test_image_folder_with_parts(tmp_path):
    for part, count in {"train": 6, "test": 2}.items():
        for name in ("a", "b"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i, pixels in enumerate(formats.images(count, size=8)):
                (folder / f"{i}.png").write_bytes(formats.encoded(pixels))
    splits = load(DataConfig(name="folder", path=str(tmp_path), val_size=2))
    parts = splits.train, splits.val, splits.test
    assert [len(p.targets) for p in parts] == [10, 2, 4]
    with pytest.raises(ValueError, match="two or more sub-folders"):
        load(DataConfig(name="folder", path=str(tmp_path / "train" / "a")))
