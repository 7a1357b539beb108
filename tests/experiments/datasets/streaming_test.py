"""Streams: what is in a batch, in which order, and where a stream goes on."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import datasets
from experiments.datasets import DataConfig, images, load
from experiments.datasets.streaming import stream
from tests.experiments.datasets import formats

CLASSES = ["a", "b", "c"]
COUNTS = {"train": 22, "val": 6, "test": 7}


def _parts(size: int = 24):
    """Pictures of one colour, 10 times their index, so that crops can be told."""
    parts = {}
    for part, count in COUNTS.items():
        pixels = np.zeros((count, size, size + 8, 3), np.uint8)
        pixels += (10 * np.arange(count, dtype=np.uint8))[:, None, None, None]
        parts[part] = pixels, np.arange(count) % 3
    return parts


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """A set of official lists and images."""
    folder = tmp_path_factory.mktemp("lists")
    for part, (pixels, labels) in _parts().items():
        path = folder / f"ImageNet_LT_{part}.txt"
        formats.image_list(path, folder, pixels, labels, sub=part)
    return load(DataConfig(name="imagenet_lt", path=str(folder), image_size=16))


def test_a_streamed_set_has_ordinary_labels(splits):
    assert splits.streaming
    assert splits.input_shape == (16, 16, 3)
    assert splits.class_counts.tolist() == [8, 7, 7]
    assert [len(p.targets) for p in (splits.train, splits.val, splits.test)] == [
        22,
        6,
        7,
    ]
    np.testing.assert_allclose(splits.mean, [0.485, 0.456, 0.406])


def test_an_epoch_has_every_example_once(splits):
    batches = stream(splits, "train", batch_size=11)
    first, second = [], []
    for epoch in (first, second):
        for _ in range(2):
            batch = next(batches)
            assert batch["inputs"].shape == (11, 16, 16, 3)
            assert batch["inputs"].dtype == np.uint8
            np.testing.assert_array_equal(
                batch["targets"], splits.train.targets[batch["index"]]
            )
            np.testing.assert_array_equal(
                batch["inputs"][:, 3, 5, 1], 10 * batch["index"]
            )
            epoch += batch["index"].tolist()
    assert sorted(first) == sorted(second) == list(range(22))
    assert first != second


def test_processes_share_the_batches_of_one(splits):
    whole = stream(splits, "train", batch_size=8, seed=5)
    shares = [
        stream(splits, "train", batch_size=8, seed=5, process_index=i, process_count=2)
        for i in range(2)
    ]
    for _ in range(5):
        batch = next(whole)
        parts = [next(share) for share in shares]
        assert [len(p["index"]) for p in parts] == [4, 4]
        index = np.concatenate([p["index"] for p in parts])
        order = np.argsort(index), np.argsort(batch["index"])
        for key in ("index", "targets", "inputs"):
            both = np.concatenate([p[key] for p in parts])
            np.testing.assert_array_equal(both[order[0]], batch[key][order[1]])


def test_the_crop_can_be_chosen(splits):
    ramp = dataclasses.replace(splits, crop="place")
    batch = next(stream(ramp, "train", batch_size=11))
    assert batch["inputs"].shape == (11, 16, 16, 3)
    np.testing.assert_array_equal(batch["inputs"][:, 3, 5, 1], 10 * batch["index"])
    with pytest.raises(KeyError, match="other"):
        next(stream(dataclasses.replace(splits, crop="other"), "train", batch_size=11))


def test_the_seed_decides(splits):
    order = [
        [next(s)["index"].tolist() for _ in range(2)]
        for s in (stream(splits, "train", batch_size=8, seed=i) for i in (0, 0, 1))
    ]
    assert order[0] == order[1] != order[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_was(splits, workers):
    reference = stream(splits, "train", batch_size=8)
    expected = [next(reference) for _ in range(6)]
    first = stream(splits, "train", batch_size=8)
    for _ in range(3):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    assert state == {"batches": 3}
    batches = stream(splits, "train", batch_size=8, workers=workers)
    batches.set_state(state)
    for batch in expected[3:]:
        got = next(batches)
        for key, value in batch.items():
            np.testing.assert_array_equal(got[key], value)
    batches.close()


def test_a_stream_can_go_back(splits):
    batches = stream(splits, "train", batch_size=8)
    first = next(batches)
    next(batches)
    batches.set_state({"batches": 0})
    np.testing.assert_array_equal(next(batches)["inputs"], first["inputs"])


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_is_one_padded_pass(splits, process_count):
    shares = [
        list(
            stream(
                splits,
                "test",
                batch_size=4,
                process_index=i,
                process_count=process_count,
            )
        )
        for i in range(process_count)
    ]
    assert {len(share) for share in shares} == {2}
    index = np.concatenate([b["index"] for share in shares for b in share])
    assert sorted(index.tolist()) == [-1, *range(7)]
    for batch in (b for share in shares for b in share):
        assert batch["inputs"].shape == (4 // process_count, 16, 16, 3)
        real = batch["index"] >= 0
        assert not batch["inputs"][~real].any()
        assert (batch["targets"][~real] == 0).all()
        np.testing.assert_array_equal(
            batch["targets"][real], splits.test.targets[batch["index"][real]]
        )


def test_no_validation_part_gives_no_batches(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(formats.images(5, size=8)):
            (tmp_path / name / f"{i}.png").write_bytes(formats.encoded(pixels))
    config = DataConfig(name="folder", path=str(tmp_path), stream=True, val_size=0)
    assert list(stream(load(config), "val", batch_size=4)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(batch_size=5, process_count=2), "multiple of the 2 processes, got 5"),
        (dict(batch_size=64), "at most the 22 train examples, got 64"),
    ],
)
def test_bad_batch_sizes(splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        stream(splits, "train", **arguments)


def test_arrays_are_not_streamed():
    with pytest.raises(ValueError, match="must be of a streamed set"):
        stream(load(DataConfig()), "train", batch_size=4)


def test_prepared_directory(tmp_path):
    parts = _parts()
    parts["validation"] = parts.pop("val")
    formats.tfds_directory(tmp_path, "imagenet_lt", parts, class_names=CLASSES)
    splits = load(DataConfig(name="imagenet_lt", path=str(tmp_path), image_size=16))
    assert splits.class_names == tuple(CLASSES)
    assert splits.class_counts.tolist() == [8, 7, 7]
    batch = next(stream(splits, "train", batch_size=22))
    colours = batch["inputs"][:, 3, 5, 1]
    assert sorted(colours.tolist()) == [10 * i for i in range(22)]
    np.testing.assert_array_equal(batch["targets"], colours // 10 % 3)
    assert "tensorflow" not in sys.modules

    version = str(tmp_path / "imagenet_lt" / "1.0.0")
    in_memory = load(DataConfig(name="tfds", path=version))
    assert not in_memory.streaming
    assert in_memory.train.inputs.shape == (22, 24, 32, 3)
    np.testing.assert_array_equal(
        in_memory.train.inputs[:, 0, 0, 0] // 10 % 3, in_memory.train.targets
    )


def test_inaturalist_tests_on_its_validation_part(tmp_path):
    parts = _parts()
    del parts["test"]
    for part, (pixels, labels) in parts.items():
        path = tmp_path / f"iNaturalist18_{part}.txt"
        formats.image_list(path, tmp_path, pixels, labels, sub="train_val2018")
    config = DataConfig(name="inaturalist2018", path=str(tmp_path), val_size=6)
    by_list = load(config)
    parts["validation"] = parts.pop("val")
    parts["test"] = parts["train"]
    formats.tfds_directory(
        tmp_path / "b", "i_naturalist2018", parts, class_names=CLASSES
    )
    prepared = load(
        DataConfig(name="inaturalist2018", path=str(tmp_path / "b"), val_size=6)
    )
    for splits in (by_list, prepared):
        sizes = [len(p.targets) for p in (splits.train, splits.val, splits.test)]
        assert sizes == [16, 6, 6]
        assert np.bincount(splits.val.targets).tolist() == [2, 2, 2]


def test_clothing1m_has_a_clean_meta_part(tmp_path):
    counts = {"noisy_train": 12, "clean_train": 9, "clean_val": 3, "clean_test": 3}
    kv = {"noisy": [], "clean": []}
    for part, count in counts.items():
        names = [f"images/{part}/{i}.png" for i in range(count)]
        (tmp_path / "images" / part).mkdir(parents=True)
        for i, name in enumerate(names):
            (tmp_path / name).write_bytes(formats.encoded(formats.images(1, i, 8)[0]))
            kv[part.split("_")[0]].append(f"{name} {i % 3}")
        (tmp_path / f"{part}_key_list.txt").write_text("\n".join(names))
    for kind, lines in kv.items():
        (tmp_path / f"{kind}_label_kv.txt").write_text("\n".join(lines[::-1]))
    config = DataConfig(
        name="clothing1m", path=str(tmp_path), meta_size=6, image_size=8
    )
    splits = load(config)
    parts = splits.train, splits.val, splits.test, splits.meta
    assert [len(p.targets) for p in parts] == [12, 3, 3, 6]
    np.testing.assert_array_equal(splits.train.targets, np.arange(12) % 3)
    assert np.bincount(splits.meta.targets).tolist() == [2, 2, 2]
    np.testing.assert_allclose(splits.mean, [0.6959, 0.6537, 0.6371])
    with pytest.raises(ValueError, match="meta examples of the training part"):
        load(dataclasses.replace(config, train_on_meta=True))
    batch = next(stream(splits, "meta", batch_size=6))
    assert sorted(batch["targets"].tolist()) == [0, 0, 1, 1, 2, 2]


def test_images_that_are_not_there_are_an_error_at_once(tmp_path):
    (tmp_path / "Places_LT_train.txt").write_text("train/airfield/1.jpg 0\n")
    (tmp_path / "Places_LT_val.txt").write_text("train/airfield/2.jpg 0\n")
    (tmp_path / "Places_LT_test.txt").write_text("val/airfield/3.jpg 0\n")
    message = r"train/airfield/1.jpg and the other images(.|\n)*places2.csail"
    with pytest.raises(datasets.DataNotFoundError, match=message):
        load(DataConfig(name="places_lt", path=str(tmp_path)))


def test_own_lists(tmp_path):
    pixels, labels = _parts()["train"]
    formats.image_list(tmp_path / "train.txt", tmp_path, pixels, labels, sub="x")
    splits = load(DataConfig(name="lists", path=str(tmp_path), image_size=8))
    sizes = [len(p.targets) for p in (splits.train, splits.val, splits.test)]
    assert sizes == [15, 3, 4]
    assert splits.train.inputs.shape == (15, 8, 8, 3)
    (tmp_path / "train.txt").write_text("x/1.png 0\nx/2.png\n")
    with pytest.raises(ValueError, match=r"train.txt, line 2: expected 'image path"):
        load(DataConfig(name="lists", path=str(tmp_path)))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (300, 2), (1, 1)])
def test_crops_have_their_size_and_stay_inside(shape):
    image = Image.fromarray(np.full((*shape, 3), 77, np.uint8))
    rng = np.random.default_rng(0)
    crops = [images.random_resized_crop(image, 16, rng) for _ in range(20)]
    crops += [images.random_place_crop(image, 16, rng) for _ in range(20)]
    for crop in (*crops, images.centre_crop(image, 16)):
        assert crop.shape == (16, 16, 3)
        assert (crop == 77).all()


def test_crops_cover_the_area_and_are_mirrored_half_of_the_time():
    ramp = np.broadcast_to(
        np.arange(0, 250, dtype=np.uint8)[None, :, None], (250, 250, 3)
    )
    image, rng = Image.fromarray(ramp.copy()), np.random.default_rng(0)
    crops = [images.random_resized_crop(image, 32, rng)[0, :, 0] for _ in range(300)]
    rising = [c[-1] > c[0] for c in crops]
    widths = [abs(int(c[-1]) - int(c[0])) / 250 for c in crops]
    assert 0.4 < np.mean(rising) < 0.6
    # Area share uniform on [.08, 1]: its square root has mean .698.
    assert 0.62 < np.mean(widths) < 0.75


def test_crops_at_a_random_place_keep_the_scale():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    image, rng = Image.fromarray(ramp.copy()), np.random.default_rng(0)
    crops = [images.random_place_crop(image, 224, rng) for _ in range(200)]
    rows = [crop[0, :, 0].astype(int) for crop in crops]
    assert {abs(row[-1] - row[0]) for row in rows} <= {222, 223, 224}
    starts = [min(row[0], row[-1]) for row in rows]
    assert min(starts) <= 2
    assert max(starts) >= 30
    assert 0.4 < np.mean([row[-1] > row[0] for row in rows]) < 0.6


def test_the_centre_crop_is_the_middle():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    crop = images.centre_crop(Image.fromarray(ramp.copy()), 224)
    np.testing.assert_array_equal(crop, ramp[16:240, 16:240])
