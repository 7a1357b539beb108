"""A run as compiled programs: initial state, a block of training steps, a forward pass.

The same step runs everywhere. On accelerators a block is a whole epoch in one
`jax.lax.scan`; on CPU, where XLA's convolution gradients are many times slower inside a
loop, it is one step and the host loops. Data that fits lies on the device, and batches
are gathered there; otherwise they are handed in. Several seeds are one `jax.vmap`.
Batches are split over a mesh of devices, parameters copied to all or split (fsdp).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments import methods
from experiments.configs import TrainConfig
from experiments.datasets import Arrays, Splits
from experiments.methods import Batch
from experiments.models import functional, make_model, xla
from experiments.training.evaluation import target_groups

_SMALL = 2**12  # arrays below this size are not worth splitting


class Examples(NamedTuple):
    """Examples as stored, with what is known about them."""

    inputs: jax.Array  # [N, ...], uint8 images or float32 features
    targets: jax.Array  # [N]
    index: jax.Array  # [N] int32, position in the training set


class Totals(NamedTuple):
    """Sums over the steps of an epoch; groups are classes, or regions of a target."""

    steps: jax.Array  # shape=()
    loss: jax.Array  # shape=()
    weighted_loss: jax.Array  # shape=()
    hits: jax.Array  # shape=(); training examples classified as labelled
    weight_square: jax.Array  # shape=()
    weight_min: jax.Array  # shape=()
    weight_max: jax.Array  # shape=()
    group_count: jax.Array  # [G]
    group_weight: jax.Array  # [G]
    group_loss: jax.Array  # [G]
    changed_count: jax.Array  # [2]; of right and of changed labels
    changed_weight: jax.Array  # [2]


class Carry(NamedTuple):
    """Everything that changes during training; what a checkpoint holds."""

    state: methods.State
    totals: Totals
    example_weights: jax.Array  # [N]; last weight of every training example, or NaN


class Program(NamedTuple):
    """The compiled parts of a run; all results have a leading axis of seeds."""

    init: Callable[[], Carry]
    order: Callable[[int], jax.Array]
    """``epoch -> [seeds, steps, batch]``, indices of training examples."""
    block: Callable[..., tuple[Carry, jax.Array]]
    """``(carry, order, start, size) -> (carry, [seeds, size] losses)``."""
    step: Callable[..., tuple[Carry, jax.Array]]
    """``(carry, train, meta) -> (carry, losses)``, for batches that are handed in."""
    reset: Callable[[Carry], Carry]
    """Starts the sums of an epoch."""
    forward: Callable[[Carry, np.ndarray], Any]
    """``(carry, inputs) -> outputs`` in evaluation mode."""
    finite: Callable[[Carry], jax.Array]
    """Whether all parameters are finite, ``[seeds]``."""
    weights: Callable[[Carry], dict[str, jax.Array]]
    """All arrays of the model by path, such as ``head.kernel``."""
    learning_rate: Callable[[int], jax.Array]
    """Learning rate of a step."""
    steps_per_epoch: int
    scans: bool
    """Whether blocks may be longer than one step."""


def make_mesh(devices: int | None = None) -> Mesh:
    """A line of devices: the first few, or all of all processes."""
    available = jax.devices()
    if devices is not None and not 1 <= devices <= len(available):
        raise ValueError(f"devices must be in 1 to {len(available)}, got {devices}.")
    chosen = available[:devices]
    # Explicit axes, the default, refuse gathers by label and the like.
    return jax.make_mesh(
        (len(chosen),), ("data",), axis_types=(AxisType.Auto,), devices=chosen
    )


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has in full, on the devices of all of them."""
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: np.asarray(array[index])
    )


def make_program(
    config: TrainConfig,
    splits: Splits,
    mesh: Mesh,
    *,
    fsdp: bool = False,
    scan: bool | None = None,
    initial: Mapping[str, np.ndarray] | None = None,
    make: Callable[..., nnx.Module] | None = None,
) -> Program:
    """Builds the programs of a run.

    Args:
      config: what to compute.
      splits: its data; in memory it is placed on the devices here.
      mesh: as made by `make_mesh`.
      fsdp: split parameters and optimiser state over the devices.
      scan: whole epochs in one program; by default where that is fast.
      initial: weights to start from, by path.
      make: ``rngs -> model``, in place of ``config.model``.
    """
    _check(config, splits, mesh)
    if scan is None:
        scan = jax.default_backend() != "cpu" or config.model.name == "mlp"
    copied = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    steps_per_epoch = len(splits.train.targets) // config.batch_size
    per_seed = _over_seeds(config)
    seeds = jnp.arange(config.seed, config.seed + config.seeds)
    constrain = functools.partial(jax.lax.with_sharding_constraint, shardings=split)

    if make is None:
        make = functools.partial(
            make_model,
            config.model,
            input_shape=splits.input_shape,
            num_outputs=splits.num_classes or 1,
        )
    apply, _, _ = functional(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    apply = _partly_trained(apply, config)
    method = methods.make_method(
        config.method,
        apply,
        optimizer=config.optimizer,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        class_counts=splits.class_counts,
    )
    prepare = _prepare(splits)
    augment = _augment(config, splits)
    count = len(splits.train.targets)
    groups = 3 if splits.num_classes is None else splits.num_classes
    tables = {
        "group": target_groups(splits.train.targets, splits),
        "changed": (splits.train.targets != splits.clean_targets).astype(np.int32),
    }
    train, meta = None, None
    if not splits.streaming:
        train = _examples(splits.train)
        meta = _examples(splits.meta) if config.method.needs_meta else None
    pool = jax.tree.map(lambda x: place(x, copied), (train, meta, tables))

    @per_seed(0)
    def init(seed):
        model_key, method_key = jax.random.split(_key(seed, "init"))
        _, params, rest = functional(make(rngs=nnx.Rngs(model_key)))
        if initial is not None:
            params, rest = (_replaced(tree, initial) for tree in (params, rest))
        params, rest = _partition(params, rest, config)
        inputs = jnp.zeros((config.batch_size, *splits.input_shape))
        return Carry(
            method.init(params, rest, inputs, method_key),
            _zero_totals(groups),
            jnp.full((count,), jnp.nan),
        )

    @per_seed(0, None)
    def order(seed, epoch):
        shuffled = jax.random.permutation(
            jax.random.fold_in(_key(seed, "order"), epoch), count
        )
        used = shuffled[: steps_per_epoch * config.batch_size]
        return used.reshape(steps_per_epoch, config.batch_size)

    def update(carry, seed, batch, meta, tables):
        key = jax.random.fold_in(_key(seed, "step"), carry.state.step)
        crop_key, meta_key, method_key = jax.random.split(key, 3)

        def ready(key, examples):
            inputs = constrain(prepare(augment(key, constrain(examples.inputs))))
            return Batch(inputs, constrain(examples.targets))

        state, metrics = method.step(
            carry.state,
            ready(crop_key, batch),
            None if meta is None else ready(meta_key, meta),
            method_key,
        )
        seen = carry.example_weights.at[batch.index].set(metrics["weights"])
        totals = _add(carry.totals, metrics, batch, tables)
        return Carry(state, totals, seen), metrics["loss"]

    def block(carry, seed, pool, order, start, size):
        train, meta, tables = pool

        def body(carry, index):
            if meta is None:
                return update(carry, seed, _take(train, index), None, tables)
            key = jax.random.fold_in(_key(seed, "meta"), carry.state.step)
            lots = jax.random.bits(key, (len(meta.targets),))
            chosen = jax.lax.top_k(lots, config.meta_batch_size)[1]
            return update(carry, seed, _take(train, index), _take(meta, chosen), tables)

        rows = jax.lax.dynamic_slice_in_dim(order, start, size)
        if size > 1:
            return jax.lax.scan(body, carry, rows)
        carry, loss = body(carry, rows[0])
        return carry, loss[None]

    def forward(state, inputs):
        outputs, _ = apply(state.params, state.rest, prepare(inputs), train=False)
        return outputs

    shapes = jax.eval_shape(init, seeds)
    shardings = jax.tree.map(lambda x: _sharding(x, mesh, fsdp), shapes)
    mapped_block = {}

    def run_block(carry, order, start, size):
        if size not in mapped_block:
            mapped_block[size] = xla.jit(
                per_seed(0, 0, None, 0, None)(functools.partial(block, size=size)),
                donate_argnums=0,
                out_shardings=(shardings, copied),
            )
        return mapped_block[size](carry, seeds, pool, order, jnp.asarray(start))

    run_step = xla.jit(
        per_seed(0, 0, None, None, None)(update),
        donate_argnums=0,
        out_shardings=(shardings, copied),
    )
    run_forward = xla.jit(per_seed(0, None)(forward), out_shardings=copied)
    return Program(
        init=lambda: jax.jit(init, out_shardings=shardings)(seeds),
        order=functools.partial(jax.jit(order, out_shardings=copied), seeds),
        block=run_block,
        step=lambda carry, batch, meta: run_step(carry, seeds, batch, meta, pool[2]),
        reset=jax.jit(
            lambda carry: carry._replace(
                totals=per_seed(0)(lambda _: _zero_totals(groups))(seeds)
            ),
            donate_argnums=0,
            out_shardings=shardings,
        ),
        forward=lambda carry, inputs: run_forward(carry.state, inputs),
        finite=jax.jit(per_seed(0)(_all_finite), out_shardings=copied),
        weights=lambda carry: _named(
            *_whole(carry.state.params, carry.state.rest, config)
        ),
        learning_rate=method.context.learning_rate,
        steps_per_epoch=steps_per_epoch,
        scans=scan and not splits.streaming,
    )


def _over_seeds(config: TrainConfig) -> Callable[..., Callable]:
    """``per_seed(*axes)``: maps a function over a leading axis of seeds.

    A single seed is not mapped, only given the axis: XLA makes slower convolutions of
    mapped ones.
    """

    def per_seed(*axes):
        def transform(fun):
            if config.seeds > 1:
                return jax.vmap(fun, in_axes=axes)

            def single(*args):
                args = [
                    x if axis is None else jax.tree.map(lambda leaf: leaf[0], x)
                    for x, axis in zip(args, axes, strict=True)
                ]
                return jax.tree.map(lambda x: x[None], fun(*args))

            return single

        return transform

    return per_seed


def _key(seed: jax.Array, purpose: str) -> jax.Array:
    """A key of its own for everything random in a run."""
    purposes = ("init", "order", "step", "meta")
    return jax.random.fold_in(jax.random.key(seed), purposes.index(purpose))


def _prepare(splits: Splits) -> Callable[[jax.Array], jax.Array]:
    """Stored inputs to normalised floats."""

    def prepare(inputs):
        if inputs.dtype != jnp.uint8:
            return inputs
        return (inputs.astype(jnp.float32) / 255 - splits.mean) / splits.std

    return prepare


def _augment(
    config: TrainConfig, splits: Splits
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Random crops and mirror images; streamed ones come augmented."""
    pad, mode = config.crop, {"zero": "constant"}.get(config.crop_padding, "reflect")

    def one(key, image):
        crop_key, flip_key = jax.random.split(key)
        if config.rotate:
            image = _rotated(jax.random.fold_in(key, 2), image, config.rotate)
        if pad:
            shape = image.shape
            image = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode)
            image = pix.random_crop(crop_key, image, shape)
        if config.flip:
            image = pix.random_flip_left_right(flip_key, image)
        return image

    def augment(key, images):
        if splits.streaming or not (pad or config.flip or config.rotate):
            return images
        return jax.vmap(one)(jax.random.split(key, len(images)), images)

    return augment


def _rotated(key: jax.Array, image: jax.Array, degrees: float) -> jax.Array:
    """Turned by up to this angle either way, black where nothing was."""
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-degrees, maxval=degrees))
    turned = pix.rotate(image.astype(jnp.float32), angle, mode="constant")
    return jnp.round(turned).astype(image.dtype)


def _examples(arrays: Arrays) -> Examples:
    index = np.arange(len(arrays.targets), dtype=np.int32)
    return Examples(arrays.inputs, arrays.targets, index)


def _take(examples: Examples, index: jax.Array) -> Examples:
    return jax.tree.map(lambda x: x[index], examples)


def _zero_totals(groups: int) -> Totals:
    sizes = Totals(*[()] * 7, *[(groups,)] * 3, *[(2,)] * 2)
    zeros = Totals(*(jnp.zeros(size) for size in sizes))
    return zeros._replace(weight_min=jnp.float32(jnp.inf))


def _add(
    totals: Totals, metrics: dict[str, jax.Array], batch: Examples, tables: dict
) -> Totals:
    """Sums that include one more step."""
    weights, losses = metrics["weights"], metrics["losses"]
    group, changed = tables["group"][batch.index], tables["changed"][batch.index]
    hits = jnp.mean(metrics["predictions"] == batch.targets)
    return Totals(
        steps=totals.steps + 1,
        loss=totals.loss + metrics["loss"],
        weighted_loss=totals.weighted_loss + metrics["weighted_loss"],
        hits=totals.hits + hits,
        weight_square=totals.weight_square + jnp.mean(weights**2),
        weight_min=jnp.minimum(totals.weight_min, weights.min()),
        weight_max=jnp.maximum(totals.weight_max, weights.max()),
        group_count=totals.group_count.at[group].add(1.0),
        group_weight=totals.group_weight.at[group].add(weights),
        group_loss=totals.group_loss.at[group].add(losses),
        changed_count=totals.changed_count.at[changed].add(1.0),
        changed_weight=totals.changed_weight.at[changed].add(weights),
    )


def _all_finite(carry: Carry) -> jax.Array:
    leaves = jax.tree.leaves(carry.state.params)
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in leaves]))


# Training the classifier alone: the other parameters count as the model's other state.


def _partition(params: Any, rest: Any, config: TrainConfig) -> tuple[Any, Any]:
    """``(trained, everything else)``."""
    if config.trained == "all":
        return params, rest
    head, body = nnx.split_state(params, nnx.PathContains("head"), ...)
    return head, (body, rest)


def _whole(params: Any, rest: Any, config: TrainConfig) -> tuple[Any, Any]:
    """The inverse of `_partition`."""
    if config.trained == "all":
        return params, rest
    body, rest = rest
    return nnx.merge_state(body, params), rest


def _partly_trained(apply: Callable, config: TrainConfig) -> Callable:
    """``apply`` for parameters that went through `_partition`."""
    if config.trained == "all":
        return apply

    def apply_head(head, others, x, **kwargs):
        outputs, rest = apply(*_whole(head, others, config), x, **kwargs)
        return outputs, (others[0], rest)

    return apply_head


def _named(*trees: Any) -> dict[str, jax.Array]:
    """Leaves by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): x
        for tree in trees
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def _replaced(tree: Any, initial: Mapping[str, np.ndarray]) -> Any:
    """``tree`` with its leaves from ``initial``, all of which must fit."""
    leaves = _named(tree)
    different = {
        name: (initial[name].shape if name in initial else None, leaf.shape)
        for name, leaf in leaves.items()
        if name not in initial or initial[name].shape != leaf.shape
    }
    if different:
        raise ValueError(
            "init_from must hold weights of this model, got other shapes (found, "
            f"expected) for {different}."
        )
    new = [jnp.asarray(initial[name], leaf.dtype) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), new)


def _sharding(x: jax.ShapeDtypeStruct, mesh: Mesh, fsdp: bool) -> NamedSharding:
    """A copy everywhere, or (fsdp) the largest axis that divides split."""
    axes = [a for a in range(1, x.ndim) if x.shape[a] % mesh.size == 0]
    if not fsdp or x.size < _SMALL or not axes:
        return NamedSharding(mesh, PartitionSpec())
    axis = max(axes, key=lambda a: x.shape[a])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def _check(config: TrainConfig, splits: Splits, mesh: Mesh) -> None:
    """Refuses what cannot run, in terms of the settings."""
    if config.method.is_regression != (splits.num_classes is None):
        raise ValueError(
            f"method.loss={config.method.loss.name!r} does not fit the targets of "
            f"data.name={config.data.name!r}: mse and huber are for numbers, all "
            "others for classes."
        )
    sizes = {"batch_size": (config.batch_size, len(splits.train.targets))}
    if config.method.needs_meta:
        size = len(splits.meta.targets)
        sizes["meta_batch_size"] = (config.meta_batch_size, size)
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
