"""A weighting is a tuple like every optax transformation, and its copies work."""

import copy
import dataclasses
import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ltjax

PARAMS = jnp.array([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0]])
X = jnp.array([[1.0, 0.0], [0.5, 2.0], [-1.0, 1.0], [0.0, 0.3]])
LABELS = jnp.array([0, 1, 2, 0])

WEIGHTINGS = {
    "absgd": lambda: ltjax.absgd(0.5),
    "gradtail": lambda: ltjax.gradtail(burn_in=1),
    "l2rw": ltjax.l2rw,
    "product": lambda: ltjax.product(ltjax.absgd(-0.5), ltjax.gradtail(burn_in=1)),
    "gdw": lambda: ltjax.gdw(3, lookahead_lr=0.1, key=jax.random.key(0)),
}
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "tree map": lambda tx: jax.tree.map(lambda leaf: leaf, tx),
    "flatten": lambda tx: jax.tree.unflatten(*reversed(jax.tree.flatten(tx))),
    "replace": lambda tx: tx._replace(init=tx.init),
    "make": lambda tx: type(tx)._make(tx),
    "positions": lambda tx: type(tx)(*tx),
    "names": lambda tx: type(tx)(**tx._asdict()),
}
every_weighting = pytest.mark.parametrize("name", WEIGHTINGS)


def logits_fn(params):
    return X @ params


def losses_fn(params):
    return optax.softmax_cross_entropy_with_integer_labels(logits_fn(params), LABELS)


def inputs(name, params):
    """The Jacobian that a weighting works on, and what its update needs."""
    outputs, jac = ltjax.linearize(logits_fn if name == "gdw" else losses_fn, params)
    own = {"logits": outputs, "labels": LABELS} if name == "gdw" else {}
    return jac, {"losses": losses_fn(params), "meta_grad_fn": lambda p: p, **own}


@functools.partial(jax.jit, static_argnums=(0, 1))
def steps(name, tx):
    """What every function of a weighting returns, over three steps."""

    def step(carry, _):
        params, state = carry
        jac, extra = inputs(name, params)
        weights = tx.weights(jac, state, params, **extra)
        everything = tx.update_with_weights(jac, state, params, **extra)
        gradient, state = tx.update(jac, state, params, **extra)
        out = weights, everything, gradient, state, tx.observe(state, gradient)
        return (params - 0.1 * gradient, state), out

    return jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=3)[1]


def train(tx):
    """Three steps of a chain that ABSGD leads."""

    @jax.jit
    def step(params, state):
        losses, jac = ltjax.linearize(losses_fn, params)
        updates, state = tx.update(jac, state, params, losses=losses)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
    return params


@every_weighting
@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
def test_every_copy_is_the_same_transformation(name, how):
    tx = WEIGHTINGS[name]()
    copied = how(tx)
    assert isinstance(copied, ltjax.Weighting)
    assert len(copied) == 2
    assert copied == tx
    chex.assert_trees_all_equal(steps(name, copied), steps(name, tx))


@every_weighting
def test_weights_gradient_and_state_in_one_call_and_in_parts(name):
    tx = WEIGHTINGS[name]()
    (weights, begun), (gradient, same, ended), updates, state, _ = steps(name, tx)
    chex.assert_trees_all_equal(weights, same)
    chex.assert_trees_all_equal((gradient, ended), (updates, state))
    chex.assert_trees_all_equal_shapes_and_dtypes(begun, ended)
    if name in ("absgd", "gradtail", "gdw"):  # a step is counted at its end
        np.testing.assert_array_equal(ended.step, begun.step + 1)


def test_fields_may_be_replaced():
    tx = ltjax.absgd(0.5)
    later = tx.init(PARAMS)._replace(step=jnp.asarray(7))
    replaced = tx._replace(init=lambda params: later)
    assert replaced.init(PARAMS).step == 7
    assert replaced.weights == tx.weights


def test_chains_that_hold_one_may_be_copied_and_mapped():
    chain = optax.chain(ltjax.absgd(0.5), optax.sgd(0.1))
    expected = train(chain)
    for how in (copy.copy, copy.deepcopy, COPIES["tree map"]):
        chex.assert_trees_all_equal(train(how(chain)), expected)


def test_dataclasses_may_hold_one():
    @dataclasses.dataclass(frozen=True)
    class Trainer:
        weighting: ltjax.Weighting

    trainer = Trainer(ltjax.absgd(0.5))
    expected = steps("absgd", trainer.weighting)
    held = (
        copy.deepcopy(trainer).weighting,
        dataclasses.replace(trainer).weighting,
        dataclasses.asdict(trainer)["weighting"],
        dataclasses.astuple(trainer)[0],
    )
    for weighting in held:
        chex.assert_trees_all_equal(steps("absgd", weighting), expected)


def test_flax_modules_may_hold_one():
    class Trainer(nnx.Module):
        def __init__(self, weighting):
            self.params = nnx.Param(PARAMS)
            self.weighting = weighting

    trainer = Trainer(ltjax.absgd(0.5))
    expected = steps("absgd", trainer.weighting)
    merged = nnx.merge(*nnx.split(trainer))
    for held in (trainer, merged, nnx.clone(trainer), copy.deepcopy(trainer)):
        assert isinstance(held.weighting, ltjax.Weighting)
        chex.assert_trees_all_equal(steps("absgd", held.weighting), expected)


def no_state(params):
    del params
    return optax.EmptyState()


def easy_half(jac, state, params=None, *, losses, **extra_args):
    del jac, params, extra_args
    return jnp.where(losses <= jnp.median(losses), 2.0, 0.0), state


def test_one_of_module_level_functions_may_be_pickled():
    """As optax's own, whose closures cannot be pickled either."""
    tx = ltjax.Weighting.from_weights(no_state, easy_half)
    restored = pickle.loads(pickle.dumps(tx))
    assert isinstance(restored, ltjax.Weighting)
    chex.assert_trees_all_equal(steps("easy", restored), steps("easy", tx))
    ltjax.product(restored, ltjax.absgd(1.0))


def test_weightings_of_logits_have_no_product():
    with pytest.raises(TypeError, match=r"product.*losses.*logits"):
        ltjax.product(ltjax.absgd(1.0), WEIGHTINGS["gdw"]())
