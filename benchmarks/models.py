"""The models and batches that costs are measured on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.methods import Batch
from experiments.models import ModelConfig, Outputs, functional, make_model

NUM_CLASSES = 10

Dtype = Literal["float32", "bfloat16"]


class Spec(NamedTuple):
    """A model and the batch it is trained with."""

    config: ModelConfig
    input_shape: tuple[int, ...]
    batch_size: int

    @property
    def couples_examples(self) -> bool:
        """Whether batch statistics make examples depend on each other."""
        return self.config.name.startswith("resnet") and self.config.norm == "batch"


_IMAGE = (32, 32, 3)

SPECS = {
    "mlp": Spec(ModelConfig(name="mlp", hidden=(512, 512)), (784,), 128),
    "resnet32-bn": Spec(ModelConfig(name="resnet32", norm="batch"), _IMAGE, 128),
    "resnet32-gn": Spec(ModelConfig(name="resnet32", norm="group"), _IMAGE, 128),
    "vit": Spec(ModelConfig(name="vit", width=192), _IMAGE, 64),
}


def with_dtype(spec: Spec, dtype: Dtype) -> Spec:
    """The spec with activations and matrix products of a dtype."""
    return spec._replace(config=dataclasses.replace(spec.config, dtype=dtype))


TINY = Spec(ModelConfig(name="mlp", hidden=(16,)), (8,), 8)


class Problem(NamedTuple):
    """A model with its parameters, as a pure function of flat lists of arrays.

    Containers of Flax NNX are flattened in Python; as lists, what a call of a compiled
    step costs is the dispatch alone.
    """

    apply: Callable[..., tuple[Outputs, list[jax.Array]]]  # as `experiments.models`'
    params: list[jax.Array]
    rest: list[jax.Array]  # batch statistics and fixed weights


@functools.cache
def make_problem(spec: Spec) -> Problem:
    """Initialises a model: always the same weights for the same spec."""
    found = {}

    @jax.jit  # one program instead of one for each layer
    def init(key):
        model = make_model(
            spec.config,
            input_shape=spec.input_shape,
            num_outputs=NUM_CLASSES,
            rngs=nnx.Rngs(key),
        )
        found["apply"], params, rest = functional(model)
        return params, rest

    trees = init(jax.random.key(0))
    (params, of_params), (rest, of_rest) = map(jax.tree.flatten, trees)

    def apply(params, rest, inputs, **mode):
        trees = (
            jax.tree.unflatten(of_params, params),
            jax.tree.unflatten(of_rest, rest),
        )
        outputs, new = found["apply"](*trees, inputs, **mode)
        return outputs, jax.tree.leaves(new)

    return Problem(apply, params, rest)


def make_batch(spec: Spec, size: int, seed: int) -> Batch:
    """Gaussian inputs with long-tailed labels."""
    inputs, labels = jax.random.split(jax.random.key(seed))
    return Batch(
        jax.random.normal(inputs, (size, *spec.input_shape)),
        jax.random.categorical(labels, jnp.log(class_counts()), shape=(size,)),
    )


def class_counts() -> jax.Array:
    """Of training sets in which class frequencies fall a hundredfold."""
    return 5000 * 100.0 ** (-jnp.arange(NUM_CLASSES) / (NUM_CLASSES - 1))
