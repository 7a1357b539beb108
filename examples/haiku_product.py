"""Haiku, and the product of two weightings in one backward pass."""

import haiku as hk
import jax
import optax

import ltjax
from examples import digits

model = hk.without_apply_rng(
    hk.transform(lambda x: hk.nets.MLP([64, digits.NUM_CLASSES])(x))
)
tx = optax.chain(
    ltjax.product(ltjax.gradtail(), ltjax.absgd(temperature=5.0)),
    optax.sgd(0.1, momentum=0.9),
)


@jax.jit
def train_step(params, opt_state, x, y):
    def losses_fn(params):
        logits = model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    losses, jac = ltjax.linearize(losses_fn, params)
    updates, opt_state = tx.update(jac, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, losses.mean()


def main() -> float:
    data = digits.load()
    params = model.init(jax.random.key(0), data.train[0][:1])
    opt_state = tx.init(params)
    for x, y in digits.batches(data.train):
        params, opt_state, _ = train_step(params, opt_state, x, y)
    x, y = data.test
    return digits.report(model.apply(params, x), y)


if __name__ == "__main__":
    main()
