"""Batches of images that stay on disk, read and augmented in the background.

Every process of a run calls ``stream`` with the same seed and its own index, and
gets its share of the same global batches: with one process or with eight, step t
trains on the same examples with the same crops.
"""

import functools
import os

import grain
import numpy as np
from absl import flags

from experiments.datasets import images as pictures
from experiments.datasets.splits import Splits

Batch = dict[str, np.ndarray]  # "inputs", "targets", "index"


class Stream:
    """Iterator over batches whose position can be saved and restored."""

    def __init__(self, batches: grain.MapDataset, workers: int):
        self._batches = batches
        self._workers = workers
        self._position = 0
        self._iterator: grain.DatasetIterator | None = None  # begins with a batch

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._begin()
        batch = next(self._iterator)
        self._position += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The position, valid for any number of workers."""
        return {"batches": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues as if this many batches had been taken."""
        self.close()
        self._position = state["batches"]

    def close(self) -> None:
        """Ends reading in the background."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _begin(self) -> grain.DatasetIterator:
        threads = max(1, min(16, os.cpu_count() or 1) // max(1, self._workers))
        rest = self._batches[self._position :].to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        )
        if self._workers:
            # Worker processes read absl flags, which other scripts never parse.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            rest = rest.mp_prefetch(grain.MultiprocessingOptions(self._workers))
        return iter(rest)


def stream(
    splits: Splits,
    split: str,
    *,
    batch_size: int,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> Stream:
    """Batches of one split for one process.

    "train" and "meta" are endless: reshuffled every epoch, cut and mirrored at
    random, ``len(targets) // batch_size`` batches an epoch. "val" and "test" are one
    pass in order, the middle of every picture; the last batch is filled up with
    targets 0 and index -1, so all batches of all processes have one shape.

    Args:
      splits: of a streamed set, ``splits.streaming``.
      split: "train", "val", "test" or "meta".
      batch_size: over all processes; each gets ``batch_size // process_count``.
      seed: of order and augmentation.
      process_index: which share is read here.
      process_count: number of shares.
      workers: processes that decode; 0 uses threads of this one.

    Returns:
      Dictionaries of "inputs" ``[b, H, W, 3]`` uint8, "targets" ``[b]`` and "index"
      ``[b]``, the position in the split.
    """
    if not splits.streaming:
        raise ValueError("splits must be of a streamed set, got arrays in memory.")
    if batch_size % process_count:
        raise ValueError(
            f"batch_size must be a multiple of the {process_count} processes, "
            f"got {batch_size}."
        )
    images, targets = getattr(splits, split)
    size = splits.input_shape[0]
    count = len(targets)
    training = split in ("train", "meta")
    if training and count < batch_size:
        raise ValueError(
            f"batch_size must be at most the {count} {split} examples, "
            f"got {batch_size}."
        )
    read = functools.partial(pictures.example, images, targets, size, splits.crop)
    share = slice(process_index, None, process_count)
    if training:
        examples = grain.MapDataset.range(count).seed(seed).shuffle()
        examples = examples[: count // batch_size * batch_size].random_map(read)
    else:
        examples = grain.MapDataset.range(-(-count // batch_size) * batch_size)
        examples = examples.map(read)
    batches = examples[share].batch(batch_size // process_count)
    return Stream(batches.repeat() if training else batches, workers)
