"""Several devices: jit with a sharded batch, nothing else changes."""

import os

# Eight devices on a CPU; on accelerators this changes nothing.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ltjax
from examples import digits

graphdef, start = nnx.split(nnx.Linear(64, digits.NUM_CLASSES, rngs=nnx.Rngs(0)))
tx = optax.chain(ltjax.gradtail(), optax.sgd(0.5, momentum=0.9))


def train_step(params, opt_state, x, y):
    def losses_fn(params):
        logits = nnx.merge(graphdef, params)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    losses, jac = ltjax.linearize(losses_fn, params)
    updates, opt_state = tx.update(jac, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, losses.mean()


def main() -> float:
    data = digits.load()
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(
        train_step,
        in_shardings=(whole, whole, by_example, by_example),
        out_shardings=whole,
    )
    params, opt_state = start, tx.init(start)
    for x, y in digits.batches(data.train):
        params, opt_state, loss = step(params, opt_state, x, y)
        loss.block_until_ready()  # virtual devices of a CPU cannot queue steps
    x, y = data.test
    return digits.report(nnx.merge(graphdef, params)(x), y)


if __name__ == "__main__":
    main()
