"""Gradient accumulation: one step, and its weights, from four microbatches."""

import jax
import optax
from flax import nnx

import ltjax
from examples import digits

SIZE, PARTS = 64, 4
graphdef, start = nnx.split(nnx.Linear(64, digits.NUM_CLASSES, rngs=nnx.Rngs(0)))
tx = optax.chain(ltjax.gradtail(), optax.sgd(0.5, momentum=0.9))


def losses_fn(params, batch):
    x, y = batch
    logits = nnx.merge(graphdef, params)(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


@jax.jit
def train_step(params, opt_state, batch):
    losses, jac = ltjax.linearize_microbatches(
        losses_fn, params, batch, microbatch_size=SIZE // PARTS
    )
    updates, opt_state = tx.update(jac, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, losses.mean()


def main() -> float:
    data = digits.load()
    params, opt_state = start, tx.init(start)
    for batch in digits.batches(data.train, size=SIZE):
        params, opt_state, _ = train_step(params, opt_state, batch)
    x, y = data.test
    return digits.report(nnx.merge(graphdef, params)(x), y)


if __name__ == "__main__":
    main()
