"""The network of six convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models


def _outputs(norm, train):
    config = models.ModelConfig(name="conv6", width=16, norm=norm)
    model = models.make_model(
        config, input_shape=(16, 16, 3), num_outputs=5, rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(jax.random.key(1), (6, 16, 16, 3))
    apply, params, rest = models.functional(model)
    return x, lambda x: jax.jit(apply, static_argnames="train")(
        params, rest, x, train=train
    )[0]


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("train", [False, True])
def test_shapes(norm, train):
    x, forward = _outputs(norm, train)
    outputs = forward(x)
    assert outputs.logits.shape == (6, 5)
    assert outputs.embeddings.shape == (6, 64)
    assert (outputs.embeddings >= 0).all()


def test_every_pixel_counts():
    x, forward = _outputs("group", False)
    slopes = jax.grad(lambda x: jnp.square(forward(x).logits).sum())(x)
    assert (np.abs(slopes).max(axis=-1) > 0).mean() > 0.9


@pytest.mark.parametrize("shape", [(16, 8, 3), (4, 4, 3)])
def test_shapes_it_cannot_take(shape):
    with pytest.raises(ValueError, match=r"input_shape must be square.*conv6"):
        models.make_model(
            models.ModelConfig(name="conv6"),
            input_shape=shape,
            num_outputs=5,
            rngs=nnx.Rngs(0),
        )
