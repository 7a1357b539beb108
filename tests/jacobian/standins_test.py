"""A Jacobian in place of a gradient, in the loops and wrappers that pass it on."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from optax.experimental import aggregating

import ltjax
from ltjax.jacobian._updates import as_jacobian

X = jax.random.normal(jax.random.key(0), (6, 3))
Y = jnp.array([0, 1, 0, 1, 0, 0])
STEPS = 3


class Model(nnx.Module):
    """Two layers, and state that is not trained."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros(()))
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


def apply(params, x):
    h = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"][None, :])
    return h @ params["last"]["kernel"] + params["last"]["bias"][None, :]


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y)


def start():
    return nnx.to_pure_dict(nnx.state(Model(nnx.Rngs(0)), nnx.Param))


def plain_loop(tx):
    """What optax alone makes of the Jacobian."""

    @jax.jit
    def step(params, state):
        losses, jac = ltjax.linearize(lambda p: cross_entropy(apply(p, X)), params)
        updates, state = tx.update(jac, state, params, losses=losses)
        return optax.apply_updates(params, updates), state

    params = start()
    state = tx.init(params)
    for _ in range(STEPS):
        params, state = step(params, state)
    return params


def nnx_loop(tx, **settings):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param, **settings)

    @nnx.jit
    def step(model, optimizer):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def losses_fn(params):
            return cross_entropy(nnx.merge(graphdef, params, rest, copy=True)(X))

        losses, jac = ltjax.linearize(losses_fn, params)
        optimizer.update(model, jac, losses=losses)

    for _ in range(STEPS):
        step(model, optimizer)
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def train_state_loop(tx):
    @jax.jit
    def step(state):
        _, jac = ltjax.linearize(lambda p: cross_entropy(apply(p, X)), state.params)
        return state.apply_gradients(grads=jac)

    state = TrainState.create(apply_fn=apply, params=start(), tx=tx)
    for _ in range(STEPS):
        state = step(state)
    return state.params


CHAINS = {
    "absgd": lambda: optax.chain(ltjax.absgd(0.5), optax.sgd(0.5, momentum=0.9)),
    "gradtail": lambda: optax.chain(
        ltjax.gradtail(burn_in=1), optax.clip_by_global_norm(1.0), optax.sgd(0.5)
    ),
    "gradtail with a mask": lambda: optax.chain(
        ltjax.gradtail(burn_in=1, mask=_last_only), optax.sgd(0.5)
    ),
    "injected": lambda: optax.inject_hyperparams(
        lambda rate: optax.chain(ltjax.absgd(0.5), optax.sgd(rate))
    )(rate=0.5),
    "MultiSteps": lambda: optax.chain(
        ltjax.absgd(0.5), optax.MultiSteps(optax.sgd(0.5), 2).gradient_transformation()
    ),
    "apply_if_finite": lambda: optax.chain(
        ltjax.absgd(0.5), optax.apply_if_finite(optax.sgd(0.5), 2)
    ),
}


def _last_only(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "last" in jax.tree_util.keystr(path), params
    )


every_chain = pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)


@pytest.fixture
def loose_promotion():
    """What optax's `MultiSteps` relies on."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@every_chain
@pytest.mark.usefixtures("loose_promotion")
def test_nnx_optimizer_takes_a_jacobian(make):
    expected = plain_loop(make())
    assert not np.allclose(expected["last"]["kernel"], start()["last"]["kernel"])
    chex.assert_trees_all_close(nnx_loop(make()), expected, rtol=1e-5, atol=1e-6)


def test_nnx_optimizer_in_tree_mode_takes_a_jacobian():
    expected = plain_loop(CHAINS["absgd"]())
    got = nnx_loop(CHAINS["absgd"](), graph=False)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


@every_chain
@pytest.mark.usefixtures("loose_promotion")
def test_train_state_takes_a_jacobian(make):
    expected = plain_loop(make())
    chex.assert_trees_all_close(
        train_state_loop(make()), expected, rtol=1e-5, atol=1e-6
    )


def test_aggregating_process_takes_a_jacobian():
    parts = ltjax.absgd(0.5), optax.sgd(0.5, momentum=0.9)
    tx = aggregating.process(optax.identity(), *parts)
    state, params = tx.init(start()), start()

    @jax.jit
    def step(params, state):
        _, jac = ltjax.linearize(lambda p: cross_entropy(apply(p, X)), params)
        updates, state = tx.update(jac, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    expected = plain_loop(optax.chain(*parts))
    chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)


def test_gdw_in_an_nnx_optimizer(x64):
    """Meta gradients are taken at parameters as the optimiser holds them."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    x, clean = X.astype(jnp.float64), jnp.array([0, 1, 0, 1, 0, 1])
    weighting = ltjax.gdw(2, lookahead_lr=0.5, key=jax.random.key(0))
    tx = optax.chain(weighting, optax.sgd(0.5))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graphdef, params = nnx.split(model, nnx.Param)
    pure = nnx.to_pure_dict(params)

    def logits_fn(params):
        return nnx.merge(graphdef, params)(x)

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, clean).mean()

    @nnx.jit
    def step(model, optimizer):
        _, jac = ltjax.linearize(logits_fn, nnx.state(model, nnx.Param))
        meta_grad_fn = jax.grad(lambda p: loss(logits_fn(p)))
        optimizer.update(model, jac, labels=Y, meta_grad_fn=meta_grad_fn)

    def linear(p):
        return x @ p["kernel"] + p["bias"][None, :]

    @jax.jit
    def expected(params):
        logits, jac = ltjax.linearize(linear, params)
        meta_grad_fn = jax.grad(lambda p: loss(linear(p)))
        updates, _ = tx.update(
            jac,
            tx.init(params),
            params,
            logits=logits,
            labels=Y,
            meta_grad_fn=meta_grad_fn,
        )
        return optax.apply_updates(params, updates)

    step(model, optimizer)
    got = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    chex.assert_trees_all_close(got, expected(pure), rtol=1e-12)


@pytest.mark.parametrize("method", ["intercept", "linearize"])
def test_a_part_of_the_parameters(method, x64):
    """All products with the rows of some parameters, in another tree."""
    params = jax.tree.map(lambda p: p.astype(jnp.float64), start())
    x = X.astype(jnp.float64)

    def losses_fn(p):
        return cross_entropy(apply(p, x))

    def seen(tree):
        """The rows of two parameters, as a method sees them."""
        return as_jacobian(
            (tree["last"]["kernel"], [tree["first"]["bias"]]), None, None
        )

    @jax.jit
    def products(params, direction, cotangents):
        _, jac = ltjax.linearize(losses_fn, params, method=method)
        part = seen(jax.tree.map(lambda g: g, jac))
        mask = (True, [False])
        return (
            part.jvp(direction),
            part.vjp(cotangents),
            part.dense(),
            part.norms(),
            part.norms(mask=mask),
        )

    rows = jax.jacrev(losses_fn)(params)
    rows = rows["last"]["kernel"], [rows["first"]["bias"]]
    direction = jax.tree.map(
        lambda r: jnp.cos(jnp.arange(r[0].size)).reshape(r[0].shape), rows
    )
    cotangents = jnp.linspace(-1.0, 1.0, 6)
    expected = (
        sum(
            jnp.sum((r * v[None]).reshape(6, -1), 1)
            for r, v in zip(
                jax.tree.leaves(rows), jax.tree.leaves(direction), strict=True
            )
        ),
        jax.tree.map(lambda r: jnp.tensordot(cotangents, r, 1), rows),
        rows,
        jnp.sqrt(sum(jnp.sum(r.reshape(6, -1) ** 2, 1) for r in jax.tree.leaves(rows))),
        jnp.sqrt(jnp.sum(rows[0].reshape(6, -1) ** 2, 1)),
    )
    got = products(params, direction, cotangents)
    chex.assert_trees_all_close(got, expected, rtol=1e-10, atol=1e-12)


def test_one_array_as_parameters():
    _, jac = ltjax.linearize(lambda w: (X @ w) ** 2, jnp.ones(3))
    (leaf,) = jax.tree.leaves(jac)
    assert leaf.shape == (6, 3)
    assert leaf.dtype == jnp.float32
    tx = ltjax.absgd(1.0)
    got, _ = tx.update(jax.tree.map(lambda g: g, jac), tx.init(jnp.ones(3)))
    expected, _ = tx.update(jac, tx.init(jnp.ones(3)))
    chex.assert_trees_all_close(got, expected, rtol=1e-6)


def test_what_cannot_work_is_refused_and_nothing_is_computed():
    params = start()
    _, jac = ltjax.linearize(lambda p: cross_entropy(apply(p, X)), params)
    weighted = optax.chain(ltjax.absgd(0.5), optax.sgd(0.1))
    for tx in (
        optax.sgd(0.1),
        optax.MultiSteps(weighted, 2).gradient_transformation(),
        optax.apply_if_finite(weighted, 2),
    ):
        with pytest.raises(TypeError, match="PerExampleGradient"):
            tx.update(jac, tx.init(params), params)
    with pytest.raises(TypeError, match="PerExampleGradient"):
        jax.jit(lambda: jac)()
    _, other = ltjax.linearize(lambda p: cross_entropy(apply(p, X)), params)
    mixed = {"first": jac, "last": other}
    with pytest.raises(ValueError, match=r"updates must stand for .* one Jacobian"):
        ltjax.absgd(0.5).update(mixed, ltjax.absgd(0.5).init(params), params)
    first = next(iter(jax.tree.leaves(jac)))
    with pytest.raises(ValueError, match="PerExampleGradient"):
        ltjax.absgd(0.5).update({"a": first, "b": jnp.ones(3)}, None, params)


def test_names_of_parameters_are_looked_up():
    _, jac = ltjax.linearize(lambda p: cross_entropy(apply(p, X)), start())
    assert "first" in jac
    assert "_overwrite_with_gradient" not in jac
    _, jac = ltjax.linearize(lambda w: (X @ w) ** 2, jnp.ones(3))
    assert "first" not in jac
