"""CIFAR and MNIST in their true formats, and their own kinds of noise."""

import os
import pickle
import sys

import numpy as np
import pytest

from experiments.datasets import DataConfig, load
from ltjax import data
from tests.experiments.datasets import formats
from tests.experiments.datasets.formats import LABELS, TEST, TEST_LABELS, TRAIN


@pytest.mark.parametrize(
    "form", ["python", "python packed", "binary", "binary packed", "webp", "tfds"]
)
def test_cifar10_is_the_same_in_every_form(tmp_path, form):
    formats.cifar10(tmp_path, form)
    splits = load(DataConfig(name="cifar10", path=str(tmp_path)))
    for part in ("train", "val"):
        indices = splits.indices[part]
        np.testing.assert_array_equal(getattr(splits, part).inputs, TRAIN[indices])
        np.testing.assert_array_equal(getattr(splits, part).targets, LABELS[indices])
    np.testing.assert_array_equal(splits.test.inputs, TEST)
    np.testing.assert_array_equal(splits.test.targets, TEST_LABELS)
    assert splits.train.inputs.dtype == np.uint8
    assert splits.train.targets.dtype == np.int32
    assert splits.class_names[9] == "truck"
    assert splits.shots == (1000, 200)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("form", ["python", "python packed", "binary", "webp"])
def test_cifar100_has_fine_labels(tmp_path, form):
    fine, coarse = np.arange(100), np.asarray(data.CIFAR100_SUPERCLASSES)
    x = {"train": formats.images(100, 2), "test": formats.images(100, 3)}
    both = {"coarse_labels": coarse, "fine_labels": fine}
    kind, _, packed = form.partition(" ")
    if kind == "python":
        files = {n: formats.cifar_pickle(v, both) for n, v in x.items()}
        formats.write(tmp_path, files, packed=bool(packed), name="cifar-100-python")
    elif kind == "binary":
        files = {
            f"{n}.bin": formats.cifar_record_file(v, coarse, fine) for n, v in x.items()
        }
        formats.write(tmp_path, files, packed=False, name="cifar-100-binary")
    else:
        formats.webp_zip(tmp_path / "cifar100/train_lt10.zip", x["train"], both)
        formats.webp_zip(tmp_path / "cifar100/test.zip", x["test"], both)
    config = DataConfig(name="cifar100", path=str(tmp_path), val_size=0)
    splits = load(config)
    np.testing.assert_array_equal(splits.train.inputs, x["train"])
    np.testing.assert_array_equal(splits.test.inputs, x["test"])
    np.testing.assert_array_equal(splits.train.targets, fine)
    np.testing.assert_array_equal(splits.test.targets, fine)


@pytest.mark.parametrize("place", ["{}.gz", "mnist/{}.gz", "MNIST/raw/{}"])
def test_mnist(tmp_path, place):
    x = {"train": formats.images(40)[..., 0], "t10k": formats.images(20, 1)[..., 0]}
    for name, pixels in x.items():
        labels = (np.arange(len(pixels)) % 10).astype(np.uint8)
        for kind, values in {"images-idx3": pixels, "labels-idx1": labels}.items():
            path = tmp_path / place.format(f"{name}-{kind}-ubyte")
            formats.idx_file(path, values)
    splits = load(DataConfig(name="mnist", path=str(tmp_path), val_size=0))
    np.testing.assert_array_equal(splits.train.inputs, x["train"][..., None])
    np.testing.assert_array_equal(splits.test.inputs, x["t10k"][..., None])
    np.testing.assert_array_equal(splits.test.targets, np.arange(20) % 10)


def test_a_path_may_name_the_archive_itself(tmp_path):
    formats.cifar10(tmp_path, "python packed")
    path = str(tmp_path / "cifar-10-python.tar.gz")
    assert len(load(DataConfig(name="cifar10", path=path)).test.targets) == 20


def test_an_archive_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {name: pickle.dumps(Evil()) for name in names}
    formats.write(tmp_path, files, packed=False, name="cifar-10-batches-py")
    with pytest.raises(pickle.UnpicklingError, match="system is not part"):
        load(DataConfig(name="cifar10", path=str(tmp_path)))


def test_an_incomplete_archive_is_named(tmp_path):
    formats.write(tmp_path, {"data_batch_1": b""}, packed=True, name="cifar-10-python")
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz has no data_batch_2"):
        load(DataConfig(name="cifar10", path=str(tmp_path)))


def test_human_labels(tmp_path):
    formats.cifar10(tmp_path, "webp")
    worse = (LABELS + 1) % 10
    names = ("aggre", "worse", "random1", "random2", "random3")
    human = {f"{n}_label": worse if n == "worse" else LABELS for n in names}
    (tmp_path / "cifar_n").mkdir()
    path = tmp_path / "cifar_n/cifar10n_human.npz"
    np.savez(path, clean_label=LABELS, **human)
    config = DataConfig(name="cifar10", path=str(tmp_path), noise="human_worse")
    splits = load(config)
    np.testing.assert_array_equal(splits.train.targets, worse[splits.indices["train"]])
    np.testing.assert_array_equal(splits.clean_targets, LABELS[splits.indices["train"]])
    np.testing.assert_array_equal(splits.val.targets, LABELS[splits.indices["val"]])

    np.savez(path, clean_label=LABELS[::-1], **human)
    with pytest.raises(ValueError, match="original order"):
        load(config)


def test_asymmetric_noise_confuses_the_right_classes(tmp_path):
    formats.cifar10(tmp_path, "webp")
    config = DataConfig(
        name="cifar10", path=str(tmp_path), noise="asymmetric", noise_rate=1.0
    )
    splits = load(config)
    confused = np.asarray([0, 1, 0, 5, 7, 3, 6, 7, 8, 1])
    np.testing.assert_array_equal(splits.train.targets, confused[splits.clean_targets])


def test_block_noise_stays_in_the_superclass(tmp_path):
    coarse, x = np.asarray(data.CIFAR100_SUPERCLASSES), formats.images(100)
    for name in ("train", "test"):
        labels = {"fine_labels": np.arange(100)}
        formats.webp_zip(tmp_path / f"cifar100/{name}.zip", x, labels)
    config = DataConfig(
        name="cifar100", path=str(tmp_path), val_size=0, noise="block", noise_rate=1.0
    )
    splits = load(config)
    assert (splits.train.targets != splits.clean_targets).all()
    np.testing.assert_array_equal(
        coarse[splits.train.targets], coarse[splits.clean_targets]
    )
