"""Sets too large for memory: published lists, or prepared directories."""

from experiments.datasets import lookup
from experiments.datasets.config import DataConfig
from experiments.datasets.readers import pictures
from experiments.datasets.sets import prepared
from experiments.datasets.source import Source, count_classes


def imagenet_lt(config: DataConfig) -> Source:
    return _official(
        config,
        "ImageNet_LT",
        tfds="imagenet_lt",
        get="images: https://image-net.org/download (ILSVRC 2012; validation images in "
        "one folder per class); lists: "
        "https://github.com/zhmiao/OpenLongTailRecognition-OLTR. Or, where TensorFlow "
        "is installed: tfds build imagenet_lt --file_format=array_record",
    )


def inaturalist2018(config: DataConfig) -> Source:
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


def places_lt(config: DataConfig) -> Source:
    return _official(
        config,
        "Places_LT",
        get="images: http://places2.csail.mit.edu/download.html (Places365-Standard, "
        "small images, easy directory structure); lists: "
        "https://github.com/zhmiao/OpenLongTailRecognition-OLTR",
    )


def _official(
    config: DataConfig,
    prefix: str,
    *,
    get: str,
    tfds: str | None = None,
    test: str = "test",
) -> Source:
    """Published lists and a folder of images, or a prepared directory."""
    name = f"{prefix}_train.txt"
    if place := lookup.find(config, name, f"{config.name}/{name}", f"lt_splits/{name}"):
        paths = {
            part: place.with_name(f"{prefix}_{own}.txt")
            for part, own in {"train": "train", "val": "val", "test": test}.items()
            if part != "val" or test != "val"
        }
        return prepared.from_lists(config, paths, get)
    if tfds and (place := lookup.find_tfds(config, tfds)):
        return prepared.from_tfds(place, test="validation" if test == "val" else "test")
    or_tfds = f", or a tensorflow-datasets directory {tfds}/VERSION" if tfds else ""
    lists = f"{prefix}_{{train,val}}.txt" if test == "val" else f"{prefix}_*.txt"
    raise lookup.missing(config, f"{lists} and the images they name{or_tfds}", get)


def clothing1m(config: DataConfig) -> Source:
    """Noisy training labels; the clean training part is the meta part."""
    name, get = "noisy_train_key_list.txt", "https://github.com/Cysu/noisy_label"
    keys = lookup.find(config, name, f"{config.name}/{name}")
    if keys is None:
        needed = "noisy_train_key_list.txt, clean_{train,val,test}_key_list.txt, "
        needed += "noisy_label_kv.txt, clean_label_kv.txt and the folder images"
        raise lookup.missing(config, needed, get)
    root = lookup.image_root(config, keys.parent)
    own = {"train": "noisy_train", "meta": "clean_train"}
    own |= {"val": "clean_val", "test": "clean_test"}
    parts = {
        part: pictures.key_list(
            keys.with_name(f"{name}_key_list.txt"),
            keys.with_name(f"{name.split('_')[0]}_label_kv.txt"),
            root,
        )
        for part, name in own.items()
    }
    return prepared.present(config, Source(parts, count_classes(parts)), root, get)
