"""Flax NNX: `nnx.Optimizer` takes the Jacobian in place of a gradient."""

import optax
from flax import nnx

import ltjax
from examples import digits


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(64, digits.NUM_CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.hidden(x))))


@nnx.jit
def train_step(model, optimizer, x, y):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses_fn(params):
        model = nnx.merge(graphdef, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
        return losses, nnx.state(model, nnx.Not(nnx.Param))

    losses, jac, rest = ltjax.linearize(losses_fn, params, has_aux=True)
    optimizer.update(model, jac)
    nnx.update(model, rest)  # batch statistics, random states
    return losses.mean()


def main() -> float:
    data = digits.load()
    model = Model(nnx.Rngs(0))
    tx = optax.chain(ltjax.gradtail(), optax.sgd(0.1, momentum=0.9))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for x, y in digits.batches(data.train):
        train_step(model, optimizer, x, y)
    model.eval()
    x, y = data.test
    return digits.report(model(x), y)


if __name__ == "__main__":
    main()
