"""GDW names what is wrong with its arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax
from ltjax import transforms
from tests.transforms.gdw_problem import (
    KEY,
    LR,
    B,
    C,
    F,
    gdw_step,
    make_problem,
    meta_gradient,
    mlp,
)


def _gdw(**changes):
    return transforms.gdw(
        **({"num_classes": C, "lookahead_lr": LR, "key": KEY} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, r"num_classes.*at least 2.*1"),
        ({"num_classes": 5.0}, TypeError, r"num_classes.*integer.*5\.0"),
        ({"lookahead_lr": -0.1}, ValueError, r"lookahead_lr.*-0\.1"),
        ({"lookahead_lr": float("nan")}, ValueError, r"lookahead_lr.*nan"),
        ({"lookahead_lr": None}, TypeError, r"lookahead_lr.*None"),
        ({"key": 0}, TypeError, r"key.*jax\.random\.key.*0"),
        ({"key": jax.random.split(KEY)}, ValueError, r"key.*\(2,\)"),
        ({"step_size": -1.0}, ValueError, r"step_size.*-1\.0"),
        ({"clip": -0.2}, ValueError, r"clip.*-0\.2"),
        ({"clip": "0.2"}, TypeError, r"clip.*'0\.2'"),
        ({"hidden": 0}, ValueError, r"hidden.*at least 1.*0"),
        ({"net_learning_rate": -1e-3}, ValueError, r"net_learning_rate.*-0\.001"),
        ({"net_weight_decay": np.inf}, ValueError, r"net_weight_decay.*inf"),
        ({"level": "pixel"}, ValueError, r"level.*'class', 'instance'.*'pixel'"),
    ],
)
def test_bad_hyperparameters_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        _gdw(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"logits": jnp.ones((B, C + 1))}, ValueError, r"shape \(8, 5\).*\(8, 6\)"),
        ({"logits": jnp.ones(B)}, ValueError, r"logits.*2 dimensions.*\(8,\)"),
        ({"labels": jnp.ones(B)}, TypeError, r"labels.*integer.*float32"),
        ({"labels": jnp.ones(3, int)}, ValueError, r"labels.*\(8,\).*\(3,\)"),
        ({"params": None}, ValueError, r"params must be given.*None"),
        ({"meta_grad_fn": None}, TypeError, r"meta_grad_fn.*function.*NoneType"),
        (
            {"meta_grad_fn": lambda p: p["w1"]},
            ValueError,
            r"meta_grad_fn must return.*structure",
        ),
        (
            {"meta_grad_fn": lambda p: p | {"w2": jnp.ones(2)}},
            ValueError,
            r"meta_grad_fn must return.*w2.*\(7, 5\).*\(2,\)",
        ),
        (
            {"updates": {"w1": jnp.ones((F, 7))}},
            ValueError,
            r"updates must have the structure of params",
        ),
    ],
)
def test_bad_updates_are_named(changes, error, message):
    params, (x, y), meta = make_problem()
    logits, jac = ltjax.linearize(lambda p: mlp(p, x), params)
    tx = _gdw()
    call = {
        "updates": jac,
        "state": tx.init(params),
        "params": params,
        "logits": logits,
        "labels": y,
        "meta_grad_fn": meta_gradient("mlp", meta),
    }
    with pytest.raises(error, match=message):
        tx.update(**(call | changes))


def test_averaged_gradients_and_other_class_counts_are_refused():
    params, batch, meta = make_problem()
    tx = _gdw()
    extra = {
        "logits": mlp(params, batch[0]),
        "labels": batch[1],
        "meta_grad_fn": meta_gradient("mlp", meta),
    }
    with pytest.raises(ValueError, match="averaged"):
        tx.update(params, tx.init(params), params, **extra)
    with pytest.raises(ValueError, match=r"logits.*\(any, 9\).*\(8, 5\)"):
        gdw_step(_gdw(num_classes=9), params, tx.init(params), batch, meta)
    with pytest.raises(TypeError, match="labels"):
        tx.update(params, tx.init(params), params, logits=extra["logits"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda z, y: transforms.zero_mean_weights(jnp.ones((2, 2)), z, y),
            r"weights.*\(2, 3\).*\(2, 2\)",
        ),
        (
            lambda z, y: transforms.logit_cotangents(jnp.ones(2), z, y),
            r"weights.*\(2, 3\).*\(2,\)",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(3), z, z, y),
            r"example_weights.*\(2,\).*\(3,\)",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(2), jnp.ones(2), z, y),
            r"meta_gradient.*\(2, 3\).*\(2,\)",
        ),
        (
            lambda z, y: transforms.apply_weighting_net(
                transforms.init_weighting_net(KEY), z
            ),
            r"losses.*1 dimension.*\(2, 3\)",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(2), z, z, y, step_size=-1.0),
            r"step_size.*-1\.0",
        ),
        (
            lambda z, y: transforms.gdw_weights(jnp.ones(2), z, z, y, clip=np.nan),
            r"clip.*nan",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 3)), jnp.array([0, 1]))
