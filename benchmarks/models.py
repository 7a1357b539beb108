"""The models and batches that costs are measured on."""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.models import Apply, ModelConfig, Outputs, functional, make_model

NUM_CLASSES = 10

Dtype = Literal["float32", "bfloat16"]


class Batch(NamedTuple):
    """Inputs ``[B, ...]`` and labels ``[B]``."""

    inputs: jax.Array
    labels: jax.Array


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


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model with its parameters, as pure functions of flat lists of arrays.

    Containers of Flax NNX are flattened in Python; as lists, what a call of a compiled
    step costs is the dispatch alone.
    """

    apply: Apply
    params: list[jax.Array]
    rest: list[jax.Array]  # batch statistics and fixed weights
    structure: tuple[Any, Any]

    def forward(
        self, params: list[jax.Array], rest: list[jax.Array], batch: Batch
    ) -> tuple[Outputs, list[jax.Array]]:
        """Training-mode outputs (logits and embeddings), and the new ``rest``."""
        trees = (
            jax.tree.unflatten(self.structure[0], params),
            jax.tree.unflatten(self.structure[1], rest),
        )
        outputs, new = self.apply(*trees, batch.inputs, train=True)
        return outputs, jax.tree.leaves(new)


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

    params, rest = init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    fixed, fixed_structure = jax.tree.flatten(rest)
    return Problem(found["apply"], leaves, fixed, (structure, fixed_structure))


def make_batch(spec: Spec, size: int, seed: int) -> Batch:
    """Gaussian inputs with long-tailed labels."""
    inputs, labels = jax.random.split(jax.random.key(seed))
    return Batch(
        jax.random.normal(inputs, (size, *spec.input_shape)),
        jax.random.categorical(labels, jnp.log(class_priors()), shape=(size,)),
    )


def class_priors() -> jax.Array:
    """Class frequencies that fall a hundredfold."""
    counts = 100.0 ** (-jnp.arange(NUM_CLASSES) / (NUM_CLASSES - 1))
    return counts / counts.sum()


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """One loss for each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
