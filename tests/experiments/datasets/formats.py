"""Writes small data sets in the formats that the real ones come in."""

import contextlib
import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def images(count: int, seed: int = 0, size: int = 32) -> np.ndarray:
    """Random colour images."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def planes(pixels: np.ndarray) -> np.ndarray:
    """Rows of 3,072 bytes, channel by channel, as in CIFAR's archives."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def cifar_pickle(pixels: np.ndarray, labels: dict[str, np.ndarray]) -> bytes:
    """A batch as Python 2 pickled it, opcode by opcode."""

    def text(s: str) -> bytes:
        return b"U" + bytes([len(s)]) + s.encode()

    data = planes(pixels)
    out = [b"\x80\x02}(", text("batch_label"), text("a batch")]
    for key, values in labels.items():
        numbers = b"".join(b"K" + bytes([v]) for v in values)
        out += [text(key), b"](", numbers, b"e"]
    out += [
        text("data"),
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
        b"(K\x01" + b"".join(b"J" + struct.pack("<i", n) for n in data.shape) + b"\x86",
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN",
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        b"T" + struct.pack("<i", data.size) + data.tobytes() + b"tbu.",
    ]
    return b"".join(out)


def cifar_record_file(pixels: np.ndarray, *labels: np.ndarray) -> bytes:
    """The binary version: label bytes before the pixels of every image."""
    columns = [np.asarray(y, np.uint8)[:, None] for y in labels]
    return np.concatenate([*columns, planes(pixels)], 1).tobytes()


def webp_zip(path: Path, pixels: np.ndarray, labels: dict[str, np.ndarray]) -> None:
    """A zip of strips of up to four images and a file per label array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for start in range(0, len(pixels), 4):
            strip = np.concatenate(pixels[start : start + 4])
            archive.writestr(f"images/{start:05}.webp", encoded(strip, "WEBP"))
        for name, values in labels.items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(values, np.uint8))
            archive.writestr(f"{name}.npy", buffer.getvalue())
        archive.writestr("filenames.txt", "\n".join(map(str, range(len(pixels)))))


def write(folder: Path, files: dict[str, bytes], *, packed: bool, name: str) -> None:
    """Files in a folder, or in a ``.tar.gz`` that has that folder."""
    if packed:
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            for file, content in files.items():
                member = tarfile.TarInfo(f"folder/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return
    (folder / name).mkdir()
    for file, content in files.items():
        (folder / name / file).write_bytes(content)


def idx_file(path: Path, values: np.ndarray) -> None:
    """An idx file of bytes, gzipped if its name says so."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = header + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def tfds_directory(
    folder: Path,
    name: str,
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    class_names: list[str],
    ids: bool = False,
) -> Path:
    """A version directory prepared by tensorflow-datasets itself."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=class_names),
    }
    if ids:
        features["id"] = tfds.features.Text()

    class Own(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {s: self._generate_examples(s) for s in splits}

        def _generate_examples(self, split):
            for i, (x, y) in enumerate(zip(*splits[split], strict=True)):
                example = {"image": io.BytesIO(encoded(x)), "label": int(y)}
                yield i, example | ({"id": f"{split}_{i:05}"} if ids else {})

    Own.name = name
    builder = Own(data_dir=str(folder), file_format="array_record")
    with contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare()
    return Path(builder.data_dir)


def image_list(
    path: Path, root: Path, pixels: np.ndarray, labels: np.ndarray, *, sub: str
) -> None:
    """A list of the literature and the images it names."""
    lines = []
    for i, (x, y) in enumerate(zip(pixels, labels, strict=True)):
        name = f"{sub}/class{y}/{i:05}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(x))
        lines.append(f"{name} {y}")
    path.write_text("\n".join(lines) + "\n")


TRAIN, TEST = images(60, 0), images(20, 1)
LABELS, TEST_LABELS = np.arange(60) * 7 % 10, np.arange(20) % 10


def cifar10(folder: Path, form: str) -> None:
    """CIFAR-10 of 60 + 20 images in one of its forms."""
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
        files = {n: cifar_pickle(x, {"labels": y}) for n, (x, y) in parts.items()}
        name = "cifar-10-python" if packed else "cifar-10-batches-py"
        write(folder, files, packed=bool(packed), name=name)
    elif kind == "binary":
        files = {f"{n}.bin": cifar_record_file(x, y) for n, (x, y) in parts.items()}
        name = "cifar-10-binary" if packed else "cifar-10-batches-bin"
        write(folder, files, packed=bool(packed), name=name)
    elif kind == "webp":
        for n, (x, y) in parts.items():
            webp_zip(folder / "cifar10" / f"{n}.zip", x, {"labels": y})
    else:
        tfds_directory(
            folder,
            "cifar10",
            {"train": (TRAIN, LABELS), "test": (TEST, TEST_LABELS)},
            class_names=[f"c{i}" for i in range(10)],
            ids=True,
        )
