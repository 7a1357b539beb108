"""The scanned transformer: its price, and that products through it are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from benchmarks import loops
from tests.jacobian.programs.evaluate import evaluate
from tests.jacobian.reference import random_like

SIZE = loops.Size(blocks=2, batch=4, tokens=5, width=6, heads=2)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_products_of_the_scanned_transformer(checkpoint, x64):
    params = loops.make_params(jax.random.key(0), SIZE)
    x = jax.random.normal(jax.random.key(1), (SIZE.batch, SIZE.tokens, SIZE.width))
    direction = random_like(params)

    def losses_fn(p):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return loops.losses_of(p, x, SIZE.heads, checkpoint=checkpoint)

    def both(params):
        losses, pullback = jax.vjp(losses_fn, params)
        (rows,) = jax.vmap(pullback)(jnp.eye(SIZE.batch, dtype=losses.dtype))
        _, jac = ltjax.linearize(losses_fn, params)
        return rows, jac.jvp(direction), jac.norms()

    rows, dots, norms = evaluate(both, params)
    rows = np.concatenate(
        [np.reshape(g, (SIZE.batch, -1)) for g in jax.tree.leaves(rows)], 1
    )
    along = np.concatenate([np.ravel(v) for v in jax.tree.leaves(direction)])
    np.testing.assert_allclose(dots, rows @ along, rtol=1e-9)
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-9)


def test_products_in_a_scan_meet_their_targets():
    size = loops.Size(blocks=2, batch=4, tokens=9, width=48, heads=2)
    with jax.numpy_rank_promotion("allow"):
        found = loops.measure(size, checkpoint=False)
    flops, _ = found["plain"]
    for step in ("weighted", "dots", "norms"):
        assert found[step][0] <= loops.LOOPS["scan", step].flops * flops
