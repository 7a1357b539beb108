"""The named sets: which files they are made of, where those may lie, how to get them.

Every reader returns a ``Source``: the parts of the set as they come, before any
split, long tail or noise is made. Nothing is ever downloaded: a set that is not
there is an error that says what to do.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.datasets import _readers
from experiments.datasets._readers import Labelled

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class Source(NamedTuple):
    """A set as it comes."""

    parts: dict[str, Labelled]  # "train"; "val", "test", "meta" where it has them
    num_classes: int | None = None  # None: regression
    class_names: tuple[str, ...] | None = None


class DataNotFoundError(FileNotFoundError):
    """A set is not on this machine; the message says how to get it."""


# Finding files


def folders(config) -> list[Path]:
    """Where sets are looked for: the given path, or the usual places."""
    if config.path is not None:
        return [Path(config.path).expanduser()]
    tfds = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    places = [p for p in (os.environ.get("LTJAX_DATA"), tfds) if p]
    return [Path(p).expanduser() for p in places]


def find(config, *patterns: str) -> Path | None:
    """The first file or folder of these names; a path may also name it itself."""
    for folder in folders(config):
        if config.path and folder.name in (Path(p).name for p in patterns):
            return folder if folder.exists() else None
        for pattern in patterns:
            if found := sorted(folder.glob(pattern)):
                return found[-1]  # the newest version
    return None


def find_tfds(config, name: str) -> Path | None:
    """A prepared version directory of a tensorflow-datasets set."""
    patterns = (f"{name}/*/dataset_info.json", f"{name}/*/*/dataset_info.json")
    info = find(config, "dataset_info.json", *patterns)
    return info and info.parent


def missing(config, files: str, get: str) -> DataNotFoundError:
    """The error for a set that is not there."""
    looked = ", ".join(map(str, folders(config)))
    return DataNotFoundError(
        f"No {config.name} data in {looked} (nothing is downloaded by itself).\n"
        f"  Needed: {files}\n"
        f"  Get it: {get}\n"
        "  Put it into a folder and name that folder: data.path on the command line "
        "(--data.path FOLDER), or\n"
        "    export LTJAX_DATA=FOLDER"
    )


# Sets that come with a package


def _digits(config) -> Source:
    """1,797 grey images of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    names = tuple(map(str, range(10)))
    return Source({"train": Labelled(pixels, digits.target)}, 10, names)


def _synthetic(config) -> Source:
    """Ten classes of noisy 32 x 32 colour patterns; for smoke tests."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(64, 192, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)

    def part(per_class):
        labels = np.tile(np.arange(10), per_class)
        noise = rng.normal(0, 32, (len(labels), 32, 32, 3))
        images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
        return Labelled(images, labels)

    return Source({"train": part(64), "test": part(16)}, 10)


def _diabetes(config) -> Source:
    """Regression on 442 rows of 10 features."""
    from sklearn.datasets import load_diabetes

    return Source({"train": Labelled(*load_diabetes(return_X_y=True))})


# CIFAR and MNIST


def _cifar10(config) -> Source:
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    parts = _cifar(config, files, ("cifar-10-batches-py", "cifar-10-batches-bin"))
    return Source(parts, 10, CIFAR10_CLASSES)


def _cifar100(config) -> Source:
    files = {"train": ["train"], "test": ["test"]}
    return Source(_cifar(config, files, ("cifar-100-python", "cifar-100-binary")), 100)


def _cifar(config, files: dict[str, list[str]], unpacked: tuple[str, str]):
    """The parts of either CIFAR set from the first of its four forms found."""
    name, stem = config.name, config.name.replace("cifar", "cifar-")
    zipped = f"{files['test'][0]}.zip"
    if place := find(config, unpacked[0], f"{stem}-python.tar.gz"):

        def part(names):
            return _readers.cifar_pickles(_readers.members(place, names))

    elif place := find(config, unpacked[1], f"{stem}-binary.tar.gz"):

        def part(names):
            data = _readers.members(place, [f"{n}.bin" for n in names])
            return _readers.cifar_records(data, label_bytes=1 + (name == "cifar100"))

    elif place := find(config, f"{name}/{zipped}", zipped):

        def part(names):  # CIFAR-100's training part may be a long-tailed piece
            paths = [sorted(place.parent.glob(f"{n}*.zip"))[0] for n in names]
            return _readers.webp_strips(paths)

    elif place := find_tfds(config, name):
        return _tfds(place).parts
    else:
        raise missing(
            config,
            f"{stem}-python.tar.gz or {stem}-binary.tar.gz (packed or unpacked), "
            f"{name}/*.zip, or a tensorflow-datasets directory {name}/VERSION",
            f"curl -LO https://www.cs.toronto.edu/~kriz/{stem}-python.tar.gz",
        )
    return {key: part(names) for key, names in files.items()}


def _mnist(config) -> Source:
    classes = tuple(map(str, range(10)))
    stem = "train-images-idx3-ubyte"
    places = [
        f"{d}{stem}{e}" for d in ("", "mnist/", "MNIST/raw/") for e in (".gz", "")
    ]
    if place := find(config, *places):

        def part(name):
            images, labels = (
                _readers.idx(
                    place.with_name(place.name.replace(stem, f"{name}-{kind}"))
                )
                for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
            )
            return Labelled(images, labels)

        return Source({"train": part("train"), "test": part("t10k")}, 10, classes)
    if place := find_tfds(config, "mnist"):
        return _tfds(place)
    raise missing(
        config,
        "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz, or a tensorflow-datasets "
        "directory mnist/VERSION",
        "for f in train-images-idx3 train-labels-idx1 t10k-images-idx3 "
        "t10k-labels-idx1; do curl -LO "
        "https://storage.googleapis.com/cvdf-datasets/mnist/$f-ubyte.gz; done",
    )


def human_labels(config, name: str, clean: np.ndarray) -> np.ndarray:
    """CIFAR-10N's labels of the training images, which must be in original order."""
    place = find(config, "cifar_n/cifar10n_human.npz", "cifar10n_human.npz")
    if place is None:
        raise missing(
            config,
            "cifar_n/cifar10n_human.npz with the arrays clean_label, aggre_label, "
            "worse_label, random_label1, random_label2 and random_label3",
            "CIFAR-10_human.pt of https://github.com/UCSC-REAL/cifar-10-100n, saved "
            "anew with numpy.savez('cifar10n_human.npz', **torch.load(...))",
        )
    with np.load(place) as file:
        expected, labels = file["clean_label"], file[f"{name}_label"]
    if not np.array_equal(expected, clean):
        raise ValueError(
            f"The labels read differ from clean_label in {place}: human noise needs "
            "the training images in their original order."
        )
    return labels.astype(np.int32)


# Large sets


def _imagenet_lt(config) -> Source:
    return _official(
        config,
        "ImageNet_LT",
        tfds="imagenet_lt",
        get="images: https://image-net.org/download (ILSVRC 2012; validation images in "
        "one folder per class); lists: "
        "https://github.com/zhmiao/OpenLongTailRecognition-OLTR. Or, where TensorFlow "
        "is installed: tfds build imagenet_lt --file_format=array_record",
    )


def _inaturalist2018(config) -> Source:
    """Its validation part is what papers test on; the real test labels are secret."""
    return _official(
        config,
        "iNaturalist18",
        tfds="i_naturalist2018",
        test="val",
        get="images: https://github.com/visipedia/inat_comp/tree/master/2018 "
        "(train_val2018.tar.gz); lists: "
        "https://github.com/facebookresearch/classifier-balancing/tree/main/data. Or, "
        "where TensorFlow is installed: "
        "tfds build i_naturalist2018 --file_format=array_record",
    )


def _places_lt(config) -> Source:
    return _official(
        config,
        "Places_LT",
        get="images: http://places2.csail.mit.edu/download.html (Places365-Standard, "
        "small images, easy directory structure); lists: "
        "https://github.com/zhmiao/OpenLongTailRecognition-OLTR",
    )


def _official(
    config, prefix: str, *, get: str, tfds: str | None = None, test: str = "test"
) -> Source:
    """Published lists and a folder of images, or a prepared directory."""
    name = f"{prefix}_train.txt"
    if place := find(config, name, f"{config.name}/{name}", f"lt_splits/{name}"):
        paths = {
            part: place.with_name(f"{prefix}_{own}.txt")
            for part, own in {"train": "train", "val": "val", "test": test}.items()
            if part != "val" or test != "val"
        }
        return _from_lists(config, paths, get)
    if tfds and (place := find_tfds(config, tfds)):
        return _tfds(place, test="validation" if test == "val" else "test")
    prepared = f", or a tensorflow-datasets directory {tfds}/VERSION" if tfds else ""
    lists = f"{prefix}_{{train,val}}.txt" if test == "val" else f"{prefix}_*.txt"
    raise missing(config, f"{lists} and the images they name{prepared}", get)


def _clothing1m(config) -> Source:
    """Noisy training labels; the clean training part is the meta part."""
    name, get = "noisy_train_key_list.txt", "https://github.com/Cysu/noisy_label"
    keys = find(config, name, f"{config.name}/{name}")
    if keys is None:
        needed = "noisy_train_key_list.txt, clean_{train,val,test}_key_list.txt, "
        needed += "noisy_label_kv.txt, clean_label_kv.txt and the folder images"
        raise missing(config, needed, get)
    root = _image_root(config, keys.parent)
    own = {"train": "noisy_train", "meta": "clean_train"}
    own |= {"val": "clean_val", "test": "clean_test"}
    parts = {
        part: _readers.key_list(
            keys.with_name(f"{name}_key_list.txt"),
            keys.with_name(f"{name.split('_')[0]}_label_kv.txt"),
            root,
        )
        for part, name in own.items()
    }
    return _present(config, Source(parts, _num_classes(parts)), root, get)


# Own data


def _lists(config) -> Source:
    """train.txt and, where they exist, val.txt, test.txt and meta.txt."""
    what = "a folder with train.txt, lines 'image path class-number'"
    paths = {part: _own(config, what) / f"{part}.txt" for part in _PARTS}
    paths = {k: p for k, p in paths.items() if p.exists() or k == "train"}
    return _from_lists(config, paths, "write the lists for your own images")


def _folder(config) -> Source:
    """A sub-folder per class, or train/, val/, test/, meta/ with these in each."""
    root = _own(config, "a folder with one sub-folder of images per class")
    parts = {p: root / p for p in _PARTS if (root / p).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    names = sorted(p.name for p in parts["train"].iterdir() if p.is_dir())
    if len(names) < 2:
        raise ValueError(
            f"{parts['train']} needs two or more sub-folders, one a class."
        )
    read = {part: _readers.image_folder(path, names) for part, path in parts.items()}
    return Source(read, len(names), tuple(names))


def _tfds_directory(config) -> Source:
    """A prepared version directory with the features image and label."""
    what = "a prepared tensorflow-datasets directory, NAME/VERSION"
    path = _own(config, what)
    if not (path / "dataset_info.json").exists():
        raise DataNotFoundError(f"{path} has no dataset_info.json: not {what}.")
    return _tfds(path)


def _arrays(config) -> Source:
    """An npz file with inputs and targets, and test_inputs, test_targets, if any."""
    path = _own(config, "an .npz file with the arrays inputs and targets")
    prefixes = {"train": "", **{p: f"{p}_" for p in _PARTS[1:]}}
    with np.load(path) as file:
        if not {"inputs", "targets"} <= set(file):
            raise ValueError(
                f"{path} must hold inputs and targets, got {', '.join(file)}."
            )
        parts = {
            part: Labelled(file[f"{prefix}inputs"], file[f"{prefix}targets"])
            for part, prefix in prefixes.items()
            if f"{prefix}inputs" in file
        }
    return from_arrays(parts)


def from_arrays(parts: dict[str, Labelled]) -> Source:
    """Integer targets are classes 0 to C - 1, floating targets are regression."""
    for name, part in parts.items():
        if len(part.inputs) != len(part.labels) or np.ndim(part.labels) != 1:
            raise ValueError(
                f"{name} targets must have shape ({len(part.inputs)},), "
                f"got {np.shape(part.labels)}."
            )
    if np.issubdtype(parts["train"].labels.dtype, np.floating):
        return Source(parts)
    if not np.issubdtype(parts["train"].labels.dtype, np.integer):
        raise TypeError(
            "targets must be integers (classes) or floating (regression), "
            f"got {parts['train'].labels.dtype}."
        )
    return Source(parts, _num_classes(parts))


def _csv(config) -> Source:
    """A CSV file with a header; text in the target column makes it classes."""
    path = _own(config, "a .csv file with a header")
    names, *rows = _readers.rows(path)
    table = _readers.encode(rows, names, config.target or names[-1], drop=config.drop)
    return _from_table(table, config.task)


# Tables


def _california(config) -> Source:
    path = find(config, *_below("california_housing.csv", "housing.csv"))
    if path is None:
        raise missing(
            config,
            "california_housing.csv or housing.csv",
            "curl -LO https://raw.githubusercontent.com/ageron/handson-ml2/master/"
            "datasets/housing/housing.csv",
        )
    names, *rows = _readers.rows(path)
    return _from_table(_readers.encode(rows, names, "median_house_value"), "regression")


def _abalone(config) -> Source:
    path = find(config, *_below("abalone.csv", "abalone.data"))
    if path is None:
        raise missing(
            config,
            "abalone.csv or abalone.data",
            "curl -LO https://archive.ics.uci.edu/ml/machine-learning-databases/"
            "abalone/abalone.data",
        )
    names = (
        *("sex", "length", "diameter", "height", "whole", "shucked", "viscera"),
        *("shell", "rings"),
    )
    return _from_table(
        _readers.encode(_readers.rows(path), names, "rings"), "regression"
    )


def _bike(config) -> Source:
    """Hourly counts; the two columns that add up to the target are left out."""
    path = find(config, *_below("bike_sharing_hour.csv", "hour.csv"))
    if path is None:
        raise missing(
            config,
            "bike_sharing_hour.csv or hour.csv",
            "https://archive.ics.uci.edu/dataset/275/bike+sharing+dataset",
        )
    names, *rows = _readers.rows(path)
    table = _readers.encode(
        rows,
        names,
        "cnt",
        drop=("instant", "dteday", "casual", "registered"),
        categorical=("season", "mnth", "hr", "weekday", "weathersit"),
    )
    return _from_table(table, "regression")


def _adult(config) -> Source:
    """Income above 50,000: two classes, 24 % in the rare one."""
    path = find(config, *_below("adult.data"))
    if path is None:
        raise missing(
            config,
            "adult.data and adult.test",
            "https://archive.ics.uci.edu/dataset/2/adult",
        )
    names = (
        *("age", "workclass", "fnlwgt", "education", "education-num", "marital"),
        *("occupation", "relationship", "race", "sex", "gain", "loss", "hours"),
        *("country", "income"),
    )
    train = _readers.rows(path)
    test = _readers.rows(path.with_name("adult.test"))[1:]  # after a remark
    table = _readers.encode(train + test, names, "income", drop=("fnlwgt",))
    labels = np.asarray([t.startswith(">") for t in table.target], np.int32)
    n = len(train)
    parts = {
        "train": Labelled(table.features[:n], labels[:n]),
        "test": Labelled(table.features[n:], labels[n:]),
    }
    return Source(parts, 2, ("<=50K", ">50K"))


# Shared

_PARTS = ("train", "val", "test", "meta")


def _below(*names: str) -> list[str]:
    return [f"{folder}{name}" for folder in ("", "tabular/") for name in names]


def _own(config, what: str) -> Path:
    """The path of own data, which must be given and exist."""
    if config.path is None:
        raise ValueError(f"data {config.name!r} needs path={what}, got None.")
    path = Path(config.path).expanduser()
    if not path.exists():
        raise DataNotFoundError(f"No {path}; data {config.name!r} needs {what}.")
    return path


def _image_root(config, folder: Path) -> Path:
    """What image lists are relative to."""
    return folder if config.images is None else Path(config.images).expanduser()


def _num_classes(parts: dict[str, Labelled]) -> int:
    labels = np.concatenate([p.labels for p in parts.values()])
    if labels.min() < 0:
        raise ValueError(f"labels must be 0 or more, got {labels.min()}.")
    return int(labels.max()) + 1


def _from_lists(config, paths: dict[str, Path], get: str) -> Source:
    root = _image_root(config, paths["train"].parent)
    parts = {part: _readers.image_list(path, root) for part, path in paths.items()}
    return _present(config, Source(parts, _num_classes(parts)), root, get)


def _present(config, source: Source, root: Path, get: str) -> Source:
    """The same source, if the first image of each part is there."""
    for part in source.parts.values():
        try:
            part.inputs.read(0)
        except FileNotFoundError as error:
            needed = f"{error.filename} and the other images listed (data.images names "
            needed += f"the folder that the lists are relative to, now {root})"
            raise missing(config, needed, get) from None
    return source


def _tfds(directory: Path, *, test: str = "test") -> Source:
    """The parts of a prepared directory; validation is the test part if alone."""
    splits, names = _readers.tfds_splits(directory)
    test = test if test in splits else "validation"
    own = {"train": "train", "val": "validation", "test": test}
    if test == "validation":
        del own["val"]
    parts = {
        part: _readers.tfds_images(directory, split)
        for part, split in own.items()
        if split in splits
    }
    return Source(parts, len(names), tuple(names))


def _from_table(table: _readers.Table, task: str | None) -> Source:
    """Regression if the target is numbers, unless ``task`` says otherwise."""
    try:
        target = table.target.astype(np.float64)
    except ValueError:
        target = None
    if task == "regression" and target is None:
        raise ValueError("the target has text in it: task must be classification.")
    if task == "regression" or (task is None and target is not None):
        return Source({"train": Labelled(table.features, target)})
    names, labels = np.unique(
        table.target if target is None else target, return_inverse=True
    )
    if target is not None:
        names = [f"{n:g}" for n in names]
    return Source(
        {"train": Labelled(table.features, labels)}, len(names), tuple(map(str, names))
    )


READERS: dict[str, Callable[..., Source]] = {
    "digits": _digits,
    "synthetic": _synthetic,
    "diabetes": _diabetes,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "mnist": _mnist,
    "imagenet_lt": _imagenet_lt,
    "inaturalist2018": _inaturalist2018,
    "places_lt": _places_lt,
    "clothing1m": _clothing1m,
    "california": _california,
    "abalone": _abalone,
    "bike": _bike,
    "adult": _adult,
    "arrays": _arrays,
    "csv": _csv,
    "folder": _folder,
    "lists": _lists,
    "tfds": _tfds_directory,
}
