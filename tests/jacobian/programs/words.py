"""Words that a random network is written in, and their other meanings.

``each(layer, p, values, shared)`` does to every example what ``layer`` does to a batch
of one; ``stat(x)`` is where examples meet; ``wrap(name, block, p, h)`` puts a block of
both into control flow, or on several devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.jacobian.programs import rules


def each(layer, p, values, shared=()):
    return layer(p, *values, *shared)


def each_with_copies(layer, p, values, shared=()):
    """``layer`` of every example under parameters of its own."""

    def one(p, *example):
        return layer(p, *(x[None] for x in example), *shared)[0]

    return jax.vmap(one)(p, *values)


def _twice(f, p, h):
    return f(p, f(p, h))


def _once(f, p, h):
    return f(p, h)


def _halved(p):
    return jax.tree.map(lambda x: x / 2, p)


def _layers(f, p, h):
    """A loop over parameters that are stacked."""
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), p, _halved(p))
    return lax.scan(lambda c, q: (f(q, c), None), h, stacked, reverse=True)[0]


def _layers_apart(f, p, h):
    return f(p, f(_halved(p), h))


def spread(f, cuts, out, *args, check_vma=True):
    """``f`` on each of two devices, of halves of what is cut along an axis."""
    kinds = (AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("half",), axis_types=kinds, devices=jax.devices()[:2])
    specs = [P() if k is None else P(*[None] * k, "half") for k in (*cuts, out)]
    options = {"in_specs": tuple(specs[:-1]), "out_specs": specs[-1]}
    return jax.shard_map(f, mesh=mesh, check_vma=check_vma, **options)(*args)


def _halves(check_vma):
    def wrapped(f, p, h):
        return spread(f, (None, 0), 0, p, h, check_vma=check_vma)

    return wrapped


def _halves_apart(f, p, h):
    return jnp.concatenate([f(p, half) for half in jnp.split(h, 2)])


def _again(f, p, h):
    return lax.scan(lambda c, _: (f(p, c), None), h, None, length=2)[0]


# Ways to wrap a block, and what they amount to.
WRAPPERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "plain": (_once, _once),
    "checkpoint": (lambda f, p, h: jax.checkpoint(f)(p, h), _once),
    "jit": (lambda f, p, h: jax.jit(f)(p, h), _once),
    "cond": (
        lambda f, p, h: lax.cond(h.sum() < 1e9, f, lambda p, h: 2 * f(p, h), p, h),
        _once,
    ),
    "switch": (
        lambda f, p, h: lax.switch(1, [lambda p, h: -f(p, h), f], p, h),
        _once,
    ),
    "scan": (_again, _twice),
    "scan of checkpoints": (lambda f, p, h: _again(jax.checkpoint(f), p, h), _twice),
    "checkpointed scan": (
        lambda f, p, h: jax.checkpoint(lambda p, h: _again(f, p, h))(p, h),
        _twice,
    ),
    "layers": (_layers, _layers_apart),
    "checkpointed layers": (
        lambda f, p, h: _layers(jax.checkpoint(f, prevent_cse=False), p, h),
        _layers_apart,
    ),
    "fori": (lambda f, p, h: lax.fori_loop(0, 2, lambda i, c: f(p, c), h), _twice),
    "custom_vjp": (rules.wrapped_vjp, _once),
    "custom_jvp": (rules.wrapped_jvp, _once),
    "devices": (_halves(True), _halves_apart),
    "devices, unchecked": (_halves(False), _halves_apart),
}


def wrap(name, f, p, h):
    return WRAPPERS[name][0](f, p, h)


def unwrapped(name, f, p, h):
    return WRAPPERS[name][1](f, p, h)


def stat(x):
    return x


NAMES = {"each": each, "wrap": wrap, "stat": stat, "spread": spread}
