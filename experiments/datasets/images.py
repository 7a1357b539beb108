"""Encoded images that are read, decoded and cut only when they are needed."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np
from PIL import Image

_AREA = (0.08, 1.0)  # share of the picture in a random resized crop
_LOG_RATIO = (np.log(3 / 4), np.log(4 / 3))  # its width over its height
_EVAL_MARGIN = 256 / 224  # shorter side before the centre crop, over its size


@dataclasses.dataclass(frozen=True)
class LazyImages:
    """Encoded images by position; indexing with an array selects, as in NumPy."""

    read: Callable[[int], bytes]  # picklable: worker processes get a copy
    indices: np.ndarray
    names: Sequence[str] | None = None
    """Files that ``read`` reads, if it reads files."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key):
        if isinstance(key, (int, np.integer)):
            return decode(self.read(int(self.indices[key])))
        return dataclasses.replace(self, indices=self.indices[key])

    @property
    def files(self) -> list[str] | None:
        """Those of the images here."""
        return None if self.names is None else [self.names[i] for i in self.indices]


def decode(data: bytes) -> Image.Image:
    """The RGB image in the bytes of a JPEG, PNG or WebP file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def random_resized_crop(
    image: Image.Image, size: int, rng: np.random.Generator
) -> np.ndarray:
    """A random part, mirrored half of the time, as ``[size, size, 3]`` uint8."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*_AREA)
        ratio = np.exp(rng.uniform(*_LOG_RATIO))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            break
    else:  # a very long picture: its middle
        w = h = min(width, height)
        left, top = (width - w) // 2, (height - h) // 2
    box = (left, top, left + w, top + h)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def random_place_crop(
    image: Image.Image, size: int, rng: np.random.Generator
) -> np.ndarray:
    """A square at a random place, mirrored half of the time, ``[size, size, 3]``."""
    width, height = image.size
    side = min(width, height) / _EVAL_MARGIN
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    box = (left, top, left + side, top + side)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


CROPS = {"area": random_resized_crop, "place": random_place_crop}


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The middle of the picture, as ``[size, size, 3]`` uint8."""
    width, height = image.size
    if (width, height) == (size, size):
        return np.asarray(image)
    side = min(width, height) / _EVAL_MARGIN
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))


def example(
    images: LazyImages,
    targets: np.ndarray,
    size: int,
    crop: str,
    index: int,
    rng: np.random.Generator | None = None,
) -> dict[str, np.ndarray]:
    """One example of a batch, augmented if there is a generator, empty past the end."""
    if index >= len(images):
        pixels, target, index = np.zeros((size, size, 3), np.uint8), targets[0] * 0, -1
    elif rng is None:
        pixels, target = centre_crop(images[index], size), targets[index]
    else:
        pixels, target = CROPS[crop](images[index], size, rng), targets[index]
    return {"inputs": pixels, "targets": target, "index": np.int32(index)}


def materialise(images: LazyImages, size: int | None) -> np.ndarray:
    """All images as one ``[N, H, W, 3]`` array; ``None`` keeps their common size."""

    def pixels(i):
        return np.asarray(images[i]) if size is None else centre_crop(images[i], size)

    if not len(images):
        return np.zeros((0, size or 0, size or 0, 3), np.uint8)
    with futures.ThreadPoolExecutor() as pool:
        decoded = list(pool.map(pixels, range(len(images))))
    shapes = {d.shape for d in decoded}
    if len(shapes) > 1:
        raise ValueError(
            f"images of {len(shapes)} different sizes, such as "
            f"{sorted(shapes)[:2]}: choose one size with image_size."
        )
    return np.stack(decoded)
