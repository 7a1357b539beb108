"""Many small runs as one program: hyperparameters and seeds are mapped over.

A `Draw` (one per seed) says by indices which digits are for training and how they are
labelled. `Sweep` trains a method on every pair of a candidate and a draw, one compiled
epoch at a time::

    sweep = Sweep(task, candidates, draws, epochs=30)
    logs = [sweep.epoch() for _ in range(30)]
    logits = sweep.logits("test")  # [candidates, seeds, examples, classes]
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import models
from experiments.digits.draws import NUM_CLASSES, Draw, load_images
from experiments.methods import Batch, MethodConfig, OptimizerConfig, make_method
from experiments.models import ModelConfig
from ltjax import data

BATCH, STEPS = 50, 20  # STEPS make an epoch

Split = Literal["train", "val", "test"]


class Task(NamedTuple):
    """What is compiled: a method and the network that it trains."""

    method: MethodConfig
    model: ModelConfig


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a candidate's numbers change, by paths such as ``method.loss.tau``."""

    method: MethodConfig
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    def replaced(self, numbers: Mapping[str, Any]) -> "Settings":
        """The settings with those at some paths changed."""
        settings = self
        for path, value in numbers.items():
            settings = _replaced(settings, path.split("."), value)
        return settings


class EpochLog(NamedTuple):
    """What happened in an epoch; arrays begin with the axes [candidates, seeds]."""

    loss: np.ndarray  # mean over the training examples
    weights: np.ndarray  # [..., 2, C]: mean by whether the label is wrong, and by class
    losses: np.ndarray  # [..., 2, C]
    val_loss: np.ndarray
    val_accuracy: np.ndarray  # [..., C]
    seconds: float  # of training, evaluation left out


class Sweep:
    """A method on every pair of a candidate and a draw, trained together."""

    def __init__(
        self,
        task: Task,
        candidates: Sequence[Mapping[str, float]],
        draws: Sequence[Draw],
        *,
        epochs: int,
        with_meta: bool = False,
    ):
        """Prepares the runs; ``with_meta`` trains on the clean set as well."""
        self._compiled = _compiled(task, epochs)
        self._draws = draws
        self._train = [
            np.concatenate([d.train, d.meta]) if with_meta else d.train for d in draws
        ]
        self._orders = [
            (_endless(t, [i, 2]), _endless(d.meta, [i, 3]))
            for i, (t, d) in enumerate(zip(self._train, draws, strict=True))
        ]
        self.class_counts = np.stack(
            [
                data.class_counts(d.given[t], NUM_CLASSES)
                for d, t in zip(draws, self._train, strict=True)
            ]
        )
        self._numbers = {
            name: jnp.asarray([c[name] for c in candidates], jnp.float32)
            for name in candidates[0]
        }
        self._seeds = Seed(
            key=jax.random.split(jax.random.key(0), len(draws)),
            class_counts=jnp.asarray(self.class_counts, jnp.float32),
            labels=jnp.asarray([d.labels for d in draws], jnp.int32),
            given=jnp.asarray([d.given for d in draws], jnp.int32),
        )
        networks = _networks(task.model, len(draws))
        self._state = self._compiled.init(self._numbers, self._seeds, *networks[1:])
        self.example_weights = np.full(
            (len(candidates), *self._seeds.given.shape), np.nan, np.float32
        )
        """``[candidates, seeds, N]``: the last ones, NaN for what is not trained on."""

    def epoch(self) -> EpochLog:
        """Trains all runs for an epoch."""
        order, meta_order = (
            np.stack([[next(o) for _ in range(STEPS)] for o in orders])
            for orders in zip(*self._orders, strict=True)
        )
        start = time.perf_counter()
        self._state, log = self._compiled.epoch(
            self._state, self._numbers, self._seeds, order, meta_order
        )
        jax.block_until_ready(self._state)
        seconds = time.perf_counter() - start
        log = jax.device_get(log)
        self._keep(order, log.pop("example_weights"))
        labels = np.stack([d.labels[d.val] for d in self._draws])
        logits = self.logits("val")
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[None])
        of_class = np.eye(NUM_CLASSES)[labels]  # [seeds, examples, C]
        right = logits.argmax(-1) == labels
        return EpochLog(
            **log,
            val_loss=np.asarray(losses.mean(-1)),
            val_accuracy=(right[..., None] * of_class).sum(-2) / of_class.sum(-2),
            seconds=seconds,
        )

    def _keep(self, order: np.ndarray, weights: np.ndarray) -> None:
        """Overwrites weights by those of the batches, ``order [seeds, steps, B]``."""
        for seed, steps in enumerate(order):
            for step, batch in enumerate(steps):
                self.example_weights[:, seed, batch] = weights[:, seed, step]

    def logits(self, split: Split) -> np.ndarray:
        """``[candidates, seeds, examples, classes]`` of a split."""
        index = np.stack([getattr(d, split) for d in self._draws])
        return np.asarray(self._compiled.logits(self._state, index))


class Seed(NamedTuple):
    """What depends on the seed of a run."""

    key: jax.Array
    class_counts: jax.Array  # [C]
    labels: jax.Array  # [N]
    given: jax.Array  # [N]


class _Compiled(NamedTuple):
    """Functions over all runs."""

    init: Callable
    epoch: Callable
    logits: Callable


@functools.cache
def _compiled(task: Task, epochs: int) -> _Compiled:
    """Shared by all scenarios, so that each function is compiled once."""
    images = jnp.asarray(load_images()[0])
    apply = _networks(task.model, 1)[0]

    def method(numbers, seed):
        settings = Settings(task.method).replaced(numbers)
        return make_method(
            settings.method,
            apply,
            optimizer=settings.optimizer,
            epochs=epochs,
            steps_per_epoch=STEPS,
            class_counts=seed.class_counts,
        )

    def init(numbers, seed, params, rest):
        return method(numbers, seed).init(params, rest, images[:BATCH], seed.key)

    def epoch(state, numbers, seed, order, meta_order):
        step = method(numbers, seed).step

        def body(state, indices):
            own, meta = indices
            key = jax.random.fold_in(seed.key, state.step)
            state, metrics = step(
                state,
                Batch(images[own], seed.given[own]),
                Batch(images[meta], seed.labels[meta]),
                key,
            )
            return state, (metrics["losses"], metrics["weights"])

        state, (losses, weights) = jax.lax.scan(body, state, (order, meta_order))
        wrong = seed.given[order] != seed.labels[order]
        group = (wrong * NUM_CLASSES + seed.given[order]).ravel()

        def mean_by_group(x):
            total = jnp.zeros(2 * NUM_CLASSES).at[group].add(x.ravel())
            count = jnp.zeros(2 * NUM_CLASSES).at[group].add(1.0)
            return (total / count).reshape(2, NUM_CLASSES)

        log = {
            "loss": losses.mean(),
            "weights": mean_by_group(weights),
            "losses": mean_by_group(losses),
            "example_weights": weights,
        }
        return state, log

    def logits(state, index):
        outputs, _ = apply(state.params, state.rest, images[index], train=False)
        return outputs.logits

    def over_runs(fun, of_candidate, of_seed):
        fun = jax.vmap(fun, of_seed)
        return jax.jit(jax.vmap(fun, of_candidate))

    return _Compiled(
        init=over_runs(init, (0, None, None, None), (None, 0, 0, 0)),
        epoch=over_runs(epoch, (0, 0, None, None, None), (0, None, 0, 0, 0)),
        logits=over_runs(logits, (0, None), (0, 0)),
    )


def _replaced(config: Any, path: Sequence[str], value: Any) -> Any:
    """Settings with the one at a path changed."""
    name, *rest = path
    if rest:
        value = _replaced(getattr(config, name), rest, value)
    return dataclasses.replace(config, **{name: value})


@functools.cache
def _networks(config: ModelConfig, seeds: int) -> tuple[Any, Any, Any]:
    """A network per seed: ``apply``, and ``params`` and ``rest`` stacked over seeds."""
    # Eagerly: compiling the draw of all weights takes longer than drawing them.
    parts = [
        models.functional(
            models.make_model(
                config, input_shape=(64,), num_outputs=NUM_CLASSES, rngs=nnx.Rngs(seed)
            )
        )
        for seed in range(seeds)
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(part[1:] for part in parts))
    return parts[0][0], *stacked


def _endless(indices: np.ndarray, seed: Sequence[int]):
    """Endless batches of random permutations, one after the other."""
    rng = np.random.default_rng(seed)
    left = rng.permutation(indices)
    while True:
        while len(left) < BATCH:
            left = np.concatenate([left, rng.permutation(indices)])
        yield left[:BATCH]
        left = left[BATCH:]
