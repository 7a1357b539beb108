"""A run as compiled functions: first state, a block of training steps, a forward pass.

The same step runs everywhere. On accelerators a block is a whole epoch in one
`jax.lax.scan`; on CPU, where XLA's convolution gradients are many times slower inside a
loop, it is one step and the host loops. Data that fits lies on the device, and batches
are gathered there; otherwise they are handed in. Several seeds are one `jax.vmap`.
Batches are split over a mesh of devices, parameters copied to all or split (fsdp).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from experiments import methods
from experiments.configs import TrainConfig
from experiments.datasets import Splits
from experiments.methods import Batch
from experiments.models import Outputs, functional, make_model, xla
from experiments.training import batches, parameters
from experiments.training.batches import Data, Examples, key_for
from experiments.training.devices import (
    batch_split,
    copied,
    parameter_sharding,
    per_seed,
    place,
)
from experiments.training.seen import Seen, nothing_seen, with_batch
from experiments.training.totals import Totals, add_step, zero_totals


class Carry(NamedTuple):
    """Everything that changes during training; what a checkpoint holds."""

    state: methods.State
    totals: Totals
    seen: Seen


class Program:
    """The compiled functions of a run; all results have a leading axis of seeds."""

    def __init__(
        self,
        config: TrainConfig,
        splits: Splits,
        mesh: Mesh,
        *,
        fsdp: bool = False,
        scan: bool | None = None,
        initial: Mapping[str, np.ndarray] | None = None,
        make: Callable[..., nnx.Module] | None = None,
    ):
        """Builds the functions; nothing is compiled before it is called.

        Args:
          config: what to compute.
          splits: its data; in memory it is placed on the devices here.
          mesh: as made by `make_mesh`.
          fsdp: split parameters and optimiser state over the devices.
          scan: whole epochs in one program; by default where that is fast.
          initial: parameters to start from, by path.
          make: ``rngs -> model``, in place of ``config.model``.
        """
        _check(config, splits, mesh)
        if scan is None:
            scan = jax.default_backend() != "cpu" or config.model.name == "mlp"
        self.scans = scan and not splits.streaming
        self.steps_per_epoch = len(splits.train.targets) // config.batch_size
        self._config, self._splits, self._mesh = config, splits, mesh
        self._initial, self._make = initial, make or self._configured_model
        self._data = batches.place_data(config, splits, mesh)
        self._seeds = jnp.arange(config.seed, config.seed + config.seeds)
        apply, _, _ = functional(nnx.eval_shape(lambda: self._make(rngs=nnx.Rngs(0))))
        self._apply = parameters.partly_trained(apply, config)
        self._method = methods.make_method(
            config.method,
            self._apply,
            optimizer=config.optimizer,
            epochs=config.epochs,
            steps_per_epoch=self.steps_per_epoch,
            class_counts=splits.class_counts,
            targets=splits.train.targets if splits.num_classes is None else None,
        )
        self._compile(fsdp)

    def _compile(self, fsdp: bool) -> None:
        """Maps the functions below over seeds, and compiles them with shardings."""
        everywhere = copied(self._mesh)
        mapped = functools.partial(per_seed, seeds=self._config.seeds)
        init = mapped(self._init, 0)
        self.shapes: Carry = jax.eval_shape(init, self._seeds)  # of what init returns
        carry = jax.tree.map(
            lambda x: parameter_sharding(x, self._mesh, fsdp=fsdp), self.shapes
        )
        self._run_init = xla.jit_once(init, out_shardings=carry)
        self._run_order = jax.jit(
            mapped(self._order, 0, None), out_shardings=everywhere
        )
        self._run_block = xla.jit(
            mapped(self._block, 0, 0, None, 0),
            donate_argnums=0,
            out_shardings=(carry, everywhere),
        )
        self._run_reset = jax.jit(
            mapped(self._reset, 0), donate_argnums=0, out_shardings=carry
        )
        self._run_forward = xla.jit(
            mapped(self._forward, 0, None), out_shardings=everywhere
        )
        self._run_finite = jax.jit(
            mapped(parameters.all_finite, 0), out_shardings=everywhere
        )

    def init(self) -> Carry:
        """Everything as it is before the first step."""
        return self._run_init(self._seeds)

    def order(self, epoch: int) -> np.ndarray:
        """``[seeds, steps, batch]`` positions in the training set, on the host."""
        return np.asarray(self._run_order(self._seeds, epoch))

    def train(self, carry: Carry, block: Any) -> tuple[Carry, jax.Array]:
        """Takes the steps of a block: ``(carry, [seeds, size] losses)``.

        Args:
          carry: donated; use the returned one instead.
          block: ``[seeds, size, batch]`` positions in the training set, or streamed
            ``(training, meta)`` `Examples` with the same leading axes.
        """
        if isinstance(block, np.ndarray):
            block = place(block, copied(self._mesh))
        return self._run_block(carry, self._seeds, self._data, block)

    def reset(self, carry: Carry) -> Carry:
        """Starts the sums of an epoch."""
        return self._run_reset(carry)

    def forward(self, carry: Carry, inputs: jax.Array) -> Outputs:
        """Outputs in evaluation mode."""
        return self._run_forward(carry.state, inputs)

    def finite(self, carry: Carry) -> bool:
        """Whether all parameters are finite."""
        return bool(np.asarray(self._run_finite(carry.state.params)).all())

    def model_arrays(self, carry: Carry) -> dict[str, jax.Array]:
        """All arrays of the model by path: parameters, batch statistics, fixed ones."""
        state = carry.state
        return parameters.named(
            *parameters.whole(state.params, state.rest, self._config)
        )

    def learning_rate(self, epoch: int) -> float:
        """That of the steps of an epoch."""
        return float(self._method.context.learning_rate(epoch * self.steps_per_epoch))

    # What is compiled, for a single seed

    def _init(self, seed):
        model_key, method_key = jax.random.split(key_for(seed, "init"))
        _, params, rest = functional(self._make(rngs=nnx.Rngs(model_key)))
        if self._initial is not None:
            params, rest = (
                parameters.replaced(tree, self._initial) for tree in (params, rest)
            )
        params, rest = parameters.partition(params, rest, self._config)
        inputs = jnp.zeros((self._config.batch_size, *self._splits.input_shape))
        return Carry(
            self._method.init(params, rest, inputs, method_key),
            zero_totals(self._groups),
            nothing_seen(len(self._splits.train.targets)),
        )

    def _order(self, seed, epoch):
        count, size = len(self._splits.train.targets), self._config.batch_size
        return batches.shuffled_batches(seed, epoch, count=count, size=size)

    def _block(self, carry, seed, data, block):
        def step(carry, chosen):
            train, meta = self._gathered(chosen, seed, carry.state.step, data)
            key = jax.random.fold_in(key_for(seed, "step"), carry.state.step)
            train_key, meta_key, method_key = jax.random.split(key, 3)
            state, metrics = self._method.step(
                carry.state,
                self._prepared(train, train_key),
                None if meta is None else self._prepared(meta, meta_key),
                method_key,
            )
            seen = with_batch(carry.seen, metrics, train.position)
            totals = add_step(carry.totals, metrics, train, data)
            return Carry(state, totals, seen), metrics["loss"]

        if len(jax.tree.leaves(block)[0]) > 1:
            return jax.lax.scan(step, carry, block)
        carry, loss = step(carry, jax.tree.map(lambda x: x[0], block))
        return carry, loss[None]

    def _gathered(
        self, chosen: Any, seed: jax.Array, step: jax.Array, data: Data
    ) -> tuple[Examples, Examples | None]:
        """The examples of a step, and clean ones where the method needs them."""
        if data.train is None:
            return chosen
        train = batches.take(data.train, chosen)
        if data.meta is None:
            return train, None
        key = jax.random.fold_in(key_for(seed, "meta"), step)
        return train, batches.draw(key, data.meta, self._config.meta_batch_size)

    def _prepared(self, examples: Examples, key: jax.Array) -> Batch:
        """A batch for the model: augmented (streamed ones come so), then normalised."""
        sharding = batch_split(self._mesh)
        inputs, targets = jax.lax.with_sharding_constraint(
            (examples.inputs, examples.targets), sharding
        )
        if not self._splits.streaming:
            inputs = batches.augment(key, inputs, self._config)
        inputs = batches.normalise(inputs, self._splits)
        return Batch(jax.lax.with_sharding_constraint(inputs, sharding), targets)

    def _reset(self, carry):
        return carry._replace(totals=zero_totals(self._groups))

    def _forward(self, state, inputs):
        inputs = batches.normalise(inputs, self._splits)
        return self._apply(state.params, state.rest, inputs, train=False)[0]

    @property
    def _groups(self):
        return 3 if self._splits.num_classes is None else self._splits.num_classes

    def _configured_model(self, *, rngs):
        return make_model(
            self._config.model,
            input_shape=self._splits.input_shape,
            num_outputs=self._splits.num_classes or 1,
            rngs=rngs,
        )


def _check(config: TrainConfig, splits: Splits, mesh: Mesh) -> None:
    """Refuses what cannot run, in terms of the settings."""
    if config.method.is_regression != (splits.num_classes is None):
        raise ValueError(
            f"method.loss={config.method.loss.name!r} does not fit the targets of "
            f"data.name={config.data.name!r}: mse and huber are for numbers, all "
            "others for classes."
        )
    if (config.model.name == "unet") != splits.dense:
        raise ValueError(
            f"model.name={config.model.name!r} does not fit data.name="
            f"{config.data.name!r}: unet is for labels by pixel."
        )
    if splits.dense and (config.crop or config.flip or config.rotate):
        raise ValueError("crop, flip and rotate must be off for labels by pixel.")
    sizes = {"batch_size": (config.batch_size, len(splits.train.targets))}
    if config.method.needs_meta:
        available = 0 if splits.meta is None else len(splits.meta.targets)
        sizes["meta_batch_size"] = (config.meta_batch_size, available)
    for name, (size, available) in sizes.items():
        if size > available:
            raise ValueError(
                f"{name} must be at most the {available} examples, got {size}."
            )
        if size % mesh.size:
            raise ValueError(
                f"{name} must be a multiple of the {mesh.size} devices, got {size} "
                "(--devices N uses fewer)."
            )
    if splits.streaming and config.seeds > 1:
        raise ValueError(f"seeds must be 1 for streamed data, got {config.seeds}.")
