"""The network that labels pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models


def _network(shape, norm="group"):
    config = models.ModelConfig(name="unet", width=4, norm=norm)
    model = models.make_model(
        config, input_shape=shape, num_outputs=5, rngs=nnx.Rngs(0)
    )
    return models.functional(model)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_pixel_has_logits_and_an_embedding(norm):
    def outputs(x):
        apply, params, rest = _network((16, 24, 1), norm)
        return apply(params, rest, x, train=True)[0]

    outputs = jax.eval_shape(outputs, jnp.ones((3, 16, 24, 1)))
    assert outputs.logits.shape == (3, 16, 24, 5)
    assert outputs.embeddings.shape == (3, 16, 24, 4)


def test_a_pixel_sees_a_whole_digit():
    apply, params, rest = _network((64, 64, 1))
    x = jax.random.normal(jax.random.key(1), (1, 64, 64, 1))

    def center(x):
        # Normalisation lets a pixel see everything; its statistics are left out here.
        embeddings = apply(params, rest, x, train=False)[0].embeddings
        return jnp.square(embeddings[0, 32, 32]).sum()

    slopes = np.abs(jax.jit(jax.grad(center))(x)[0, :, :, 0])
    near = slopes[32 - 14 : 32 + 14, 32 - 14 : 32 + 14]
    assert (near > 0).all()
    assert near.mean() > 3 * slopes.mean()


def test_sizes_that_cannot_be_halved_are_named():
    with pytest.raises(ValueError, match=r"multiples of 8 pixels for unet.*20"):
        _network((20, 16, 1))
