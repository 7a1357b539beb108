"""Data sets in their true formats, and the splits made of them."""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import datasets
from experiments.datasets import DataConfig, load
from ltjax import data
from tests.experiments.datasets import formats

REAL = os.environ.get("LTJAX_DATA")
needs_real_data = pytest.mark.skipif(
    REAL is None, reason="LTJAX_DATA does not name a folder of real data sets"
)


@pytest.fixture(autouse=True)
def offline(request, monkeypatch, tmp_path):
    """No network, and no data but that of the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a data set must not use the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    if "needs_data" not in request.fixturenames:
        monkeypatch.delenv("LTJAX_DATA", raising=False)


@pytest.fixture
def needs_data(monkeypatch):
    """Keeps the folder of real data sets."""
    monkeypatch.setenv("LTJAX_DATA", REAL or "")


# CIFAR and MNIST


TRAIN, TEST = formats.images(60, 0), formats.images(20, 1)
LABELS, TEST_LABELS = np.arange(60) * 7 % 10, np.arange(20) % 10


def _cifar10(folder: Path, form: str) -> None:
    batches = {
        **{f"data_batch_{i + 1}": slice(12 * i, 12 * i + 12) for i in range(5)},
        "test_batch": None,
    }
    parts = {
        name: (TEST, TEST_LABELS) if s is None else (TRAIN[s], LABELS[s])
        for name, s in batches.items()
    }
    kind, _, packed = form.partition(" ")
    if kind == "python":
        files = {
            n: formats.cifar_pickle(x, {"labels": y}) for n, (x, y) in parts.items()
        }
        name = "cifar-10-python" if packed else "cifar-10-batches-py"
        formats.write(folder, files, packed=bool(packed), name=name)
    elif kind == "binary":
        files = {
            f"{n}.bin": formats.cifar_record_file(x, y) for n, (x, y) in parts.items()
        }
        name = "cifar-10-binary" if packed else "cifar-10-batches-bin"
        formats.write(folder, files, packed=bool(packed), name=name)
    elif kind == "webp":
        for n, (x, y) in parts.items():
            formats.webp_zip(folder / "cifar10" / f"{n}.zip", x, {"labels": y})
    else:
        formats.tfds_directory(
            folder,
            "cifar10",
            {"train": (TRAIN, LABELS), "test": (TEST, TEST_LABELS)},
            class_names=[f"c{i}" for i in range(10)],
            ids=True,
        )


@pytest.mark.parametrize(
    "form", ["python", "python packed", "binary", "binary packed", "webp", "tfds"]
)
def test_cifar10_is_the_same_in_every_form(tmp_path, form):
    _cifar10(tmp_path, form)
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
    _cifar10(tmp_path, "python packed")
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
    _cifar10(tmp_path, "webp")
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
    _cifar10(tmp_path, "webp")
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


# What is not there


@pytest.mark.parametrize(
    ("name", "needle"),
    [
        ("cifar10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
        ("cifar100", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
        ("mnist", "t10k-images-idx3"),
        ("imagenet_lt", "tfds build imagenet_lt --file_format=array_record"),
        ("inaturalist2018", "tfds build i_naturalist2018 --file_format=array_record"),
        ("places_lt", "http://places2.csail.mit.edu/download.html"),
        ("clothing1m", "https://github.com/Cysu/noisy_label"),
        ("california", "housing.csv"),
        ("abalone", "abalone.data"),
        ("bike", "https://archive.ics.uci.edu/dataset/275"),
        ("adult", "https://archive.ics.uci.edu/dataset/2"),
    ],
)
def test_a_missing_set_says_what_to_do(tmp_path, name, needle):
    with pytest.raises(datasets.DataNotFoundError) as error:
        load(DataConfig(name=name, path=str(tmp_path)))
    message = str(error.value)
    assert needle in message
    assert str(tmp_path) in message
    assert "export LTJAX_DATA=FOLDER" in message


def test_places_looked_at_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("LTJAX_DATA", str(tmp_path / "a"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "b"))
    with pytest.raises(datasets.DataNotFoundError, match=r"/a, .*/b "):
        load(DataConfig(name="cifar10"))
    _cifar10(tmp_path / "b", "tfds")
    assert len(load(DataConfig(name="cifar10")).test.targets) == 20


@pytest.mark.parametrize("name", ["arrays", "csv", "folder", "lists", "tfds"])
def test_own_data_needs_a_path(tmp_path, name):
    with pytest.raises(ValueError, match=rf"data '{name}' needs path=.*got None"):
        load(DataConfig(name=name))
    with pytest.raises(datasets.DataNotFoundError, match="nowhere"):
        load(DataConfig(name=name, path=str(tmp_path / "nowhere")))


def test_records_that_need_tensorflow_are_refused(tmp_path):
    _cifar10(tmp_path, "tfds")
    info = tmp_path / "cifar10/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="tfds build cifar10 --file_format=array_rec"):
        load(DataConfig(name="cifar10", path=str(tmp_path)))


# Splits


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


def test_part_of_the_training_set_is_balanced_and_leaves_the_rest_alone():
    whole = load(DataConfig(meta_size=20))
    part = load(DataConfig(meta_size=20, train_size=100))
    assert part.class_counts.tolist() == [10] * 10
    assert set(part.indices["train"]) < set(whole.indices["train"])
    for split in ("val", "test", "meta"):
        np.testing.assert_array_equal(part.indices[split], whole.indices[split])


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
        (dict(train_size=1_000_000), "size must leave a balanced set possible"),
        (dict(recipe="step", factor=0.0), "factor must be"),
        (dict(noise="pair", noise_rate=1.5), "rate must be"),
        (dict(meta_size=1_000_000), "size must leave a balanced set possible"),
    ],
)
def test_contradictions_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        load(DataConfig(**config))


# Regression and tables


HOUSING = """longitude,rooms,bedrooms,median_house_value,ocean_proximity
-122,880,129,452600,NEAR BAY
-121,7099,1106,358500,INLAND
-120,1467,,352100,NEAR BAY
-119,1274,235,341300,ISLAND
-118,1627,280,342200,NEAR BAY
"""


def test_missing_values_and_categories(tmp_path):
    rows = HOUSING.splitlines()
    path = tmp_path / "housing.csv"
    path.write_text("\n".join([rows[0], *rows[1:] * 20]))
    splits = load(DataConfig(name="california", path=str(tmp_path)))
    assert splits.num_classes is None
    assert splits.class_counts is None
    assert splits.shots is None
    assert splits.input_shape == (6,)
    x, y = splits.train
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    raw = y * splits.target_std + splits.target_mean
    kinds = splits.indices["train"] % 5
    values = np.asarray([452600, 358500, 352100, 341300, 342200])
    np.testing.assert_allclose(raw, values[kinds], rtol=1e-6)
    np.testing.assert_array_equal(splits.clean_targets, y)
    # The missing number is the training median of the others, here one of two values.
    bedrooms = np.asarray([129, 1106, np.nan, 235, 280])[kinds]
    filled = np.where(np.isnan(bedrooms), np.nanmedian(bedrooms), bedrooms)
    np.testing.assert_allclose(
        x[:, 2], (filled - filled.mean()) / filled.std(), rtol=1e-4, atol=1e-5
    )


def test_bike_leaves_out_what_adds_up_to_the_target(tmp_path):
    header = "instant,dteday,season,yr,mnth,hr,holiday,weekday,workingday,weathersit,"
    header += "temp,atemp,hum,windspeed,casual,registered,cnt"
    rng = np.random.default_rng(0)
    lines = [header]
    for i in range(40):
        a, b = rng.integers(0, 9, 2)
        lines.append(
            f"{i},2011-01-01,{i % 4 + 1},0,1,{i % 24},0,6,0,1,.2,.3,.8,0,"
            f"{a},{b},{a + b}"
        )
    (tmp_path / "hour.csv").write_text("\n".join(lines))
    splits = load(DataConfig(name="bike", path=str(tmp_path)))
    # yr, holiday, workingday, 4 weather numbers; 4 + 1 + 24 + 1 + 1 levels
    assert splits.input_shape == (7 + 31,)


def test_abalone_has_three_sexes(tmp_path):
    rows = [f"{'MFI'[i % 3]},.4,.3,.1,.5,.2,.1,.1,{i % 9 + 1}" for i in range(60)]
    (tmp_path / "abalone.data").write_text("\n".join(rows))
    splits = load(DataConfig(name="abalone", path=str(tmp_path)))
    assert splits.input_shape == (3 + 7,)
    raw = splits.test.targets * splits.target_std + splits.target_mean
    np.testing.assert_allclose(raw, splits.indices["test"] % 9 + 1, rtol=1e-5)


def test_adult_has_its_own_test_part(tmp_path):
    row = "{}, {}, 7, HS, 9, Never, {}, Own, White, Male, 0, 0, 40, ?, {}"
    train = [
        row.format(i, "Private", "Sales", "<=50K" if i % 4 else ">50K")
        for i in range(40)
    ]
    test = [
        row.format(i, "?", "Tech", "<=50K." if i % 2 else ">50K.") for i in range(10)
    ]
    (tmp_path / "adult.data").write_text("\n".join(train) + "\n\n")
    (tmp_path / "adult.test").write_text("|1x3 Cross validator\n" + "\n".join(test))
    splits = load(DataConfig(name="adult", path=str(tmp_path), val_size=0))
    np.testing.assert_array_equal(splits.train.targets, np.arange(40) % 4 == 0)
    np.testing.assert_array_equal(splits.test.targets, np.arange(10) % 2 == 0)
    assert splits.class_names == ("<=50K", ">50K")
    # age, education-num, gain, loss, hours; one level each of education, marital,
    # relationship, race, sex, workclass; two of occupation; country is all missing
    assert splits.input_shape == (5 + 8,)


def test_csv_target_decides_the_task(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(HOUSING + HOUSING.split("\n", 1)[1] * 9)
    config = dict(name="csv", path=str(path))
    assert load(DataConfig(**config)).class_names == ("INLAND", "ISLAND", "NEAR BAY")
    price = load(DataConfig(target="median_house_value", **config))
    assert price.num_classes is None
    assert price.input_shape == (6,)
    classes = load(
        DataConfig(target="longitude", task="classification", drop=("rooms",), **config)
    )
    assert classes.class_names == ("-122", "-121", "-120", "-119", "-118")
    assert classes.input_shape == (2 + 3,)
    with pytest.raises(ValueError, match="No column 'price' among longitude, rooms"):
        load(DataConfig(target="price", **config))
    with pytest.raises(ValueError, match="task must be classification"):
        load(DataConfig(task="regression", **config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"row 2 has 1 values, expected 2 \(a, b\)"),
        ("a,b\n" + "".join(f"t{i},1\n" for i in range(200)), "'a' has 200 different"),
        ("a,b\n1,2\n3,\n", "row 2 has no 'b', which is the target"),
        ("b\n2\n3\n", "no column beside the target 'b'"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(DataConfig(name="csv", path=str(tmp_path / "own.csv")))


# Own arrays and images


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


# The real sets, where they are


@needs_real_data
def test_real_cifar10(needs_data):
    splits = load(DataConfig(name="cifar10", val_size=0))
    assert (
        hashlib.sha256(splits.train.inputs.tobytes()).hexdigest()
        == "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    )
    np.testing.assert_allclose(splits.mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(splits.std, [0.2470, 0.2435, 0.2616], atol=1e-4)
    noisy = load(DataConfig(name="cifar10", val_size=0, noise="human_worse"))
    changed = noisy.train.targets != splits.train.targets
    assert changed.mean() == pytest.approx(0.4021, abs=1e-4)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "rows", "features"),
    [("california", 20_640, 13), ("abalone", 4_177, 10), ("bike", 17_379, 58)],
)
def test_real_tables(needs_data, name, rows, features):
    splits = load(DataConfig(name=name))
    parts = splits.train, splits.val, splits.test
    assert sum(len(p.targets) for p in parts) == rows
    assert splits.input_shape == (features,)
    assert all(np.isfinite(p.inputs).all() for p in parts)


@needs_real_data
def test_official_places_lt_list(needs_data, tmp_path):
    for name in (
        "train/airfield/00004851.jpg",
        "train/airfield/00002049.jpg",
        "val/airfield/Places365_val_00003597.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(formats.encoded(formats.images(1)[0]))
    splits = load(DataConfig(name="places_lt", images=str(tmp_path)))
    assert len(splits.train.targets) == 62_500
    assert splits.num_classes == 365
    assert splits.class_counts.max() == 4980
    assert splits.class_counts.min() == 5
    assert (np.bincount(splits.val.targets) == 20).all()
    assert (np.bincount(splits.test.targets) == 100).all()
    assert splits.streaming
