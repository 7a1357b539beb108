"""Small arguments, and calls with a bad one."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ltjax

B, C, E = 4, 3, 5
Z = jnp.zeros((B, C))
Y = jnp.array([0, 1, 2, 0])
H = jnp.ones((B, E))
PRIORS = jnp.array([0.5, 0.3, 0.2])
COUNTS = jnp.array([50, 30, 20])
LABELS = np.array([0, 0, 1, 1, 2, 2])
FEATURES = np.arange(18.0).reshape(6, 3)
KEY = jax.random.key(0)
L, D, M, HD = ltjax.losses, ltjax.data, ltjax.metrics, ltjax.heads
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
DENSE = jax.tree.map(lambda p: jnp.ones((B, *p.shape)), PARAMS)


def rng():
    return np.random.default_rng(0)


def losses_fn(p):
    return jnp.arange(1.0, B + 1) * (p["w"].sum() + p["b"].sum())


def logits_fn(p):
    return jnp.tile(p["w"].sum(0)[None] + p["b"][None], (B, 1))


def step(tx, fn=losses_fn, **extra):
    _, jac = ltjax.linearize(fn, PARAMS)
    return tx.update(jac, tx.init(PARAMS), PARAMS, **extra)


def gdw(**kwargs):
    return ltjax.gdw(C, lookahead_lr=0.1, key=KEY, **kwargs)


def meta(p):
    return jax.tree.map(jnp.ones_like, p)


class Case(NamedTuple):
    call: object
    error: type
    message: str

    def check(self):
        """The call raises this error with this message."""
        with pytest.raises(self.error) as caught:
            self.call()
        assert re.search(self.message, str(caught.value)), str(caught.value)
