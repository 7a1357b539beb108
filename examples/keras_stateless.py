"""Keras on JAX: its optimiser takes the ordinary gradient of a weighting."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import optax

import ltjax
from examples import digits


def main() -> float:
    keras.utils.set_random_seed(0)
    data = digits.load()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(digits.NUM_CLASSES),
        ]
    )
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)

    def losses_fn(trained, rest, x, y):
        logits, rest = model.stateless_call(trained, rest, x, training=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y), rest

    weighting = ltjax.absgd(temperature=2.0)
    value_and_grad = ltjax.weighted_value_and_grad(losses_fn, weighting, has_aux=True)

    @jax.jit
    def train_step(trained, rest, own, opt_state, x, y):
        (_, rest), gradient, own = value_and_grad(trained, own, rest, x, y)
        trained, opt_state = optimizer.stateless_apply(opt_state, gradient, trained)
        return trained, rest, own, opt_state

    trained = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    own = weighting.init(trained)
    opt_state = [v.value for v in optimizer.variables]
    for x, y in digits.batches(data.train):
        trained, rest, own, opt_state = train_step(trained, rest, own, opt_state, x, y)
    x, y = data.test
    return digits.report(model.stateless_call(trained, rest, x)[0], y)


if __name__ == "__main__":
    main()
