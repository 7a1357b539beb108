"""`optax.MultiSteps` and `optax.apply_if_finite`: after the weighting, in its chain.

Each microbatch has weights of its own. `examples/microbatches.py` has the weights of
the whole batch.
"""

import jax
import optax
from flax import nnx

import ltjax
from examples import digits

graphdef, start = nnx.split(nnx.Linear(64, digits.NUM_CLASSES, rngs=nnx.Rngs(0)))
sgd = optax.apply_if_finite(optax.sgd(0.5, momentum=0.9), max_consecutive_errors=5)
tx = optax.chain(
    ltjax.absgd(temperature=2.0),
    optax.MultiSteps(sgd, every_k_schedule=4).gradient_transformation(),
)


@jax.jit
def train_step(params, opt_state, x, y):
    def losses_fn(params):
        logits = nnx.merge(graphdef, params)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    losses, jac = ltjax.linearize(losses_fn, params)
    updates, opt_state = tx.update(jac, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, losses.mean()


def main() -> float:
    data = digits.load()
    params, opt_state = start, tx.init(start)
    for x, y in digits.batches(data.train, size=16, steps=800):
        params, opt_state, _ = train_step(params, opt_state, x, y)
    x, y = data.test
    return digits.report(nnx.merge(graphdef, params)(x), y)


if __name__ == "__main__":
    main()
