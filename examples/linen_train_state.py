"""Flax Linen: `TrainState.apply_gradients` takes the Jacobian too."""

import jax
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import ltjax
from examples import digits


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(digits.NUM_CLASSES)(nn.relu(nn.Dense(64)(x)))


@jax.jit
def train_step(state, x, y):
    def losses_fn(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    losses, jac = ltjax.linearize(losses_fn, state.params)
    return state.apply_gradients(grads=jac), losses.mean()


def main() -> float:
    data = digits.load()
    model = Model()
    state = TrainState.create(
        apply_fn=model.apply,
        params=model.init(jax.random.key(0), data.train[0][:1])["params"],
        tx=optax.chain(ltjax.absgd(temperature=2.0), optax.sgd(0.1, momentum=0.9)),
    )
    for x, y in digits.batches(data.train):
        state, _ = train_step(state, x, y)
    x, y = data.test
    return digits.report(state.apply_fn({"params": state.params}, x), y)


if __name__ == "__main__":
    main()
