"""Functions with derivative rules of their own, good and bad, for random programs.

Names say what the rule does. All of them work for any shape; those that mix do so
along the leading axis.
"""

import jax
import jax.numpy as jnp
import numpy as np

import ltjax


def _vjp(forward, backward):
    fun = jax.custom_vjp(forward)
    fun.defvjp(lambda *xs: (forward(*xs), xs), backward)
    return fun


def _jvp(forward, rule):
    fun = jax.custom_jvp(forward)
    fun.defjvp(rule)
    return fun


def _flip(g):
    return jnp.flip(g, 0)


# One operand.
identity = _vjp(lambda x: x, lambda _, g: (g,))
half = _vjp(lambda x: x, lambda _, g: (g * 0.5,))
reverse = _vjp(lambda x: x, lambda _, g: (-g,))
by_value = _vjp(jnp.tanh, lambda xs, g: (g * xs[0],))
by_mean = _vjp(lambda x: x, lambda xs, g: (g * xs[0].mean(0, keepdims=True),))
mixed = _vjp(lambda x: 2 * x, lambda _, g: (_flip(g),))
centred = _vjp(lambda x: x, lambda _, g: (g - g.mean(0, keepdims=True),))
straight_round = _vjp(jnp.round, lambda _, g: (g,))
straight_rolled = _vjp(lambda x: jnp.roll(x, 1, 0), lambda _, g: (g,))
nothing = _vjp(lambda x: x, lambda _, g: (jnp.zeros_like(g),))
constant = _vjp(lambda x: x, lambda _, g: (jnp.ones_like(g),))
clipped = _vjp(lambda x: x, lambda _, g: (jnp.clip(g, -0.1, 0.1),))
normed = _vjp(lambda x: x, lambda _, g: (g / (1e-3 + jnp.sqrt(jnp.sum(g * g))),))
squared = _vjp(lambda x: x, lambda _, g: (g * g,))
jvp_identity = _jvp(lambda x: x, lambda p, t: (p[0], t[0]))
jvp_scaled = _jvp(lambda x: x, lambda p, t: (p[0], 3 * t[0] * p[0]))
jvp_mixed = _jvp(lambda x: x, lambda p, t: (p[0], _flip(t[0])))
jvp_centred = _jvp(lambda x: x, lambda p, t: (p[0], t[0] - t[0].mean(0, keepdims=True)))
jvp_round = _jvp(jnp.round, lambda p, t: (jnp.round(p[0]), t[0]))
jvp_rolled = _jvp(
    lambda x: jnp.roll(x, 1, 0), lambda p, t: (jnp.roll(p[0], 1, 0), t[0])
)
jvp_by_mean = _jvp(
    jnp.sin, lambda p, t: (jnp.sin(p[0]), t[0] * p[0].mean(0, keepdims=True))
)


@jax.custom_gradient
def by_gradient(x):
    return jnp.sin(x), lambda g: g * jnp.cos(x) * 2


def _counted_forward(x, n):
    return x, n


def _counted_backward(n, g):
    return g * 2, np.zeros(n.shape, jax.dtypes.float0)


_counted = jax.custom_vjp(lambda x, n: x)
_counted.defvjp(_counted_forward, _counted_backward)


def counted(x):
    """With an integer operand."""
    return _counted(x, jnp.arange(3))


_symbolic = jax.custom_vjp(lambda x, y: x * y)
_symbolic.defvjp(
    lambda x, y: (x.value * y.value, (x.value, y.value)),
    lambda xs, g: (g * xs[1], g * xs[0]),
    symbolic_zeros=True,
)


def symbolic(x):
    return _symbolic(x, jnp.full(x.shape, 2, x.dtype))


def _rest(x, axis):
    """The sum over all other axes."""
    others = tuple(k for k in range(x.ndim) if k != axis % x.ndim)
    return x.sum(others, keepdims=True)


# Said, and true, to keep the entries of an axis apart.
asserted = ltjax.independent(lambda x: jnp.sin(x) * _rest(x, 0))
asserted_last = ltjax.independent(lambda x: jnp.sin(x) * _rest(x, -1), -1, -1)
asserted_product = ltjax.independent(lambda x, y: jnp.sin(x) * _rest(y, 0))
asserted_shared = ltjax.independent(lambda x, y: jnp.sin(x) * y.sum(), (0, None))

_times = _vjp(lambda x, s: x * s, lambda xs, g: (g * xs[1], jnp.sum(g * xs[0])))


def tempered(x):
    """With a number among the operands."""
    return _times(x, 0.5)


# Two operands of one shape.
straight_through = _vjp(lambda z, q: q, lambda _, g: (g, jnp.zeros_like(g)))
straight_both = _vjp(lambda z, q: q, lambda _, g: (g, g))
straight_flipped = _vjp(lambda z, q: q, lambda _, g: (_flip(g), g))
product = _vjp(lambda a, b: a * b, lambda xs, g: (g * xs[1], g * xs[0]))
product_mixed = _vjp(lambda a, b: a * b, lambda xs, g: (g * xs[1], _flip(g * xs[0])))
add_loss = _vjp(lambda y, aux: y, lambda _, g: (g, jnp.ones_like(g)))
add_squared = _vjp(lambda y, aux: y, lambda xs, g: (g, xs[1] * 0.1))
crossed = _vjp(lambda a, b: a + b, lambda xs, g: (g * xs[1], g * _flip(xs[0])))
jvp_unused = _jvp(lambda z, q: q, lambda p, t: (p[1], t[0]))
jvp_unused_mixed = _jvp(lambda z, q: q, lambda p, t: (p[1], _flip(t[0])))

# An operand and one of any shape that the forward ignores.
add_total = _vjp(lambda y, aux: y, lambda xs, g: (g, jnp.ones_like(xs[1])))
add_weighted = _vjp(lambda y, aux: y, lambda xs, g: (g, jnp.sum(g) * jnp.cos(xs[1])))

# Two results.
_both = _vjp(lambda a, c: (a * 2, c), lambda _, g: (g[0] * 2, g[1]))
_leaking = _vjp(
    lambda a, c: (a * 2, c), lambda _, g: (jnp.zeros_like(g[0]), g[1] + g[0])
)
_swapped = _vjp(lambda a, c: (a, c), lambda _, g: (g[1], g[0]))
_pooled = _vjp(
    lambda a, c: (a, c.mean(0)),
    lambda xs, g: (
        g[0],
        jnp.broadcast_to(g[1] / len(xs[1]), xs[1].shape) + _flip(g[0]),
    ),
)


def _sum_of(fun, couple):
    def both(a, c):
        first, second = fun(a, c)
        return first * (second - second.mean(0) if couple else second)

    return both


both = _sum_of(_both, False)
both_coupled = _sum_of(_both, True)
leaking = _sum_of(_leaking, False)
leaking_coupled = _sum_of(_leaking, True)
swapped = _sum_of(_swapped, False)


def pooled(a, c):
    first, shared = _pooled(a, c)
    return first * shared


ONE = (
    *("identity", "half", "reverse", "by_value", "by_mean", "mixed", "centred"),
    *("straight_round", "straight_rolled", "nothing", "constant", "clipped"),
    *("normed", "squared", "jvp_identity", "jvp_scaled", "jvp_mixed", "jvp_centred"),
    *("jvp_round", "jvp_rolled", "jvp_by_mean", "by_gradient", "counted", "symbolic"),
    "tempered",
    *("asserted", "asserted_last"),
)
TWO = (
    *("straight_through", "straight_both", "straight_flipped", "product"),
    *("product_mixed", "add_loss", "add_squared", "crossed", "jvp_unused"),
    *("jvp_unused_mixed", "both", "both_coupled", "leaking", "leaking_coupled"),
    *("swapped", "pooled", "asserted_product", "asserted_shared"),
)
UNUSED = ("add_total", "add_weighted")
# Rules that are not linear in their cotangents: there is no one Jacobian.
NONLINEAR = (
    "constant",
    "clipped",
    "normed",
    "squared",
    "add_loss",
    "add_squared",
    "add_total",
)


# Functions that are given, under a rule.
def wrapped_vjp(fun, *args):
    """``fun`` with the rule that JAX would make itself.

    Values that ``fun`` closes over become operands, as custom rules need.
    """
    fun, hoisted = jax.closure_convert(fun, *args)
    rule = jax.custom_vjp(fun)
    rule.defvjp(lambda *xs: (fun(*xs), xs), lambda xs, g: jax.vjp(fun, *xs)[1](g))
    return rule(*args, *hoisted)


def wrapped_half(fun, *args):
    """The same at half the slope."""
    fun, hoisted = jax.closure_convert(fun, *args)
    rule = jax.custom_vjp(fun)
    rule.defvjp(lambda *xs: (fun(*xs), xs), lambda xs, g: jax.vjp(fun, *xs)[1](g / 2))
    return rule(*args, *hoisted)


def wrapped_jvp(fun, *args):
    fun, hoisted = jax.closure_convert(fun, *args)
    rule = jax.custom_jvp(fun)
    rule.defjvp(lambda p, t: jax.jvp(fun, p, t))
    return rule(*args, *hoisted)
