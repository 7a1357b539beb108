"""Equinox, and GDW, whose weights are steered by a small clean set."""

import equinox as eqx
import jax
import optax

import ltjax
from examples import digits

NUM_CLASSES = digits.NUM_CLASSES
RATE = 0.1
tx = optax.chain(
    ltjax.gdw(NUM_CLASSES, lookahead_lr=RATE, key=jax.random.key(1)),
    optax.sgd(RATE, momentum=0.9),
)


@eqx.filter_jit
def train_step(model, opt_state, x, y, clean):
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def logits_fn(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    def meta_loss(params):
        x, y = clean
        logits = logits_fn(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    _, jac = ltjax.linearize(lambda p: logits_fn(p, x), params)
    updates, opt_state = tx.update(
        jac, opt_state, params, labels=y, meta_grad_fn=jax.grad(meta_loss)
    )
    return eqx.apply_updates(model, updates), opt_state


def main() -> float:
    data = digits.load()
    model = eqx.nn.MLP(64, NUM_CLASSES, 64, 1, key=jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for x, y in digits.batches(data.train):
        model, opt_state = train_step(model, opt_state, x, y, data.clean)
    x, y = data.test
    return digits.report(jax.vmap(model)(x), y)


if __name__ == "__main__":
    main()
