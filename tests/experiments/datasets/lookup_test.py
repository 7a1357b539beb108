"""Where sets are looked for, and what is said where they are not."""

import pytest

from experiments import datasets
from experiments.datasets import DataConfig, load
from tests.experiments.datasets import formats


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
    formats.cifar10(tmp_path / "b", "tfds")
    assert len(load(DataConfig(name="cifar10")).test.targets) == 20


@pytest.mark.parametrize("name", ["arrays", "csv", "folder", "lists", "tfds"])
def test_own_data_needs_a_path(tmp_path, name):
    with pytest.raises(ValueError, match=rf"data '{name}' needs path=.*got None"):
        load(DataConfig(name=name))
    with pytest.raises(datasets.DataNotFoundError, match="nowhere"):
        load(DataConfig(name=name, path=str(tmp_path / "nowhere")))


def test_records_that_need_tensorflow_are_refused(tmp_path):
    formats.cifar10(tmp_path, "tfds")
    info = tmp_path / "cifar10/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="tfds build cifar10 --file_format=array_rec"):
        load(DataConfig(name="cifar10", path=str(tmp_path)))
