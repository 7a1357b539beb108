"""CIFAR's archives in their three forms, and MNIST's idx files.

Files come from other people's servers, so none of them may run code: pickles are read
by an unpickler that knows arrays and plain containers only, and ``.npy`` files without
pickled objects. Members of archives are read by name into memory; nothing is unpacked.
"""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np

from experiments.datasets.images import decode
from experiments.datasets.source import Labelled


def members(place: Path, names: Sequence[str]) -> list[bytes]:
    """The named files of an unpacked folder or of a ``.tar.gz``."""
    if place.is_dir():
        return [(place / name).read_bytes() for name in names]
    with tarfile.open(place) as archive:
        found = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(f"{place} has no {', '.join(missing)}.")
        files = (archive.extractfile(found[name]) for name in names)
        return [file.read() for file in files if file is not None]


def cifar_pickles(files: Iterable[bytes]) -> Labelled:
    """The python version: pickled dictionaries of pixels and lists of labels."""
    batches = [_CifarUnpickler(io.BytesIO(f), encoding="bytes").load() for f in files]
    pixels = np.concatenate([b[b"data"] for b in batches])
    fine = b"fine_labels" if b"fine_labels" in batches[0] else b"labels"
    labels = np.concatenate([np.asarray(b[fine], np.int32) for b in batches])
    return Labelled(_from_planes(pixels), labels)


def cifar_records(files: Iterable[bytes], *, label_bytes: int) -> Labelled:
    """The binary version: one or two labels, the last one fine, and the pixels."""
    records = np.concatenate(
        [np.frombuffer(f, np.uint8).reshape(-1, label_bytes + 3072) for f in files]
    )
    pixels = _from_planes(records[:, label_bytes:])
    return Labelled(pixels, records[:, label_bytes - 1].astype(np.int32))


def webp_strips(paths: Iterable[Path]) -> Labelled:
    """Zips of lossless WebP strips (images stacked downwards) and ``.npy`` labels."""
    with futures.ThreadPoolExecutor() as pool:
        images, labels = zip(*pool.map(_webp_zip, paths), strict=True)
    return Labelled(np.concatenate(images), np.concatenate(labels).astype(np.int32))


def _webp_zip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
        fine = "fine_labels.npy" if "fine_labels.npy" in names else "labels.npy"
        strips = [archive.read(name) for name in names if name.endswith(".webp")]
        labels = np.load(io.BytesIO(archive.read(fine)), allow_pickle=False)
    pixels = np.concatenate([np.asarray(decode(strip)) for strip in strips])
    return pixels.reshape(-1, pixels.shape[1], *pixels.shape[1:]), labels


def _from_planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _CifarUnpickler(pickle.Unpickler):
    """Loads arrays and plain containers only: an archive must not run code."""

    def find_class(self, module, name):
        if name == "_reconstruct" and module.startswith("numpy."):
            return np.zeros(0).__reduce__()[0]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return lambda kind, align, copy: np.dtype(kind, bool(align), bool(copy))
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an archive.")


def idx(path: Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes, gzipped or not."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    zeros, kind, ndim = struct.unpack(">HBB", data[:4])
    if (zeros, kind) != (0, 8):
        raise ValueError(f"{path} is not an idx file of unsigned bytes.")
    shape = struct.unpack(f">{ndim}I", data[4 : 4 + 4 * ndim])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)
