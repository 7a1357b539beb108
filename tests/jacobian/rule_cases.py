"""What rules answer: functions of one primitive, and the axes of their examples."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ltjax.jacobian._rules import SHARED

B = 3
S = SHARED


def array(seed, *shape):
    values = np.random.default_rng(seed).uniform(0.1, 0.9, size=shape)
    return jnp.asarray(values, jnp.float32)


def integers(seed, *shape):
    values = np.random.default_rng(seed).integers(1, 9, size=shape)
    return jnp.asarray(values, jnp.int32)


def _window(shape, window, strides=(1, 1), padding=((0, 0), (0, 0))):
    return lambda x: lax.reduce_window(x, 0.0, lax.add, window, strides, padding)


def _conv(numbers, groups=1, batch_groups=1):
    return lambda x, k: lax.conv_general_dilated(
        x,
        k,
        (1,),
        "SAME",
        dimension_numbers=numbers,
        feature_group_count=groups,
        batch_group_count=batch_groups,
    )


def _solve(a, b):
    """``a^-1 b`` by a solver of the user."""
    transposed = jnp.swapaxes(a, -1, -2)
    return lax.custom_linear_solve(
        lambda x: a @ x,
        b,
        lambda _, b: jnp.linalg.inv(a) @ b,
        lambda _, b: jnp.linalg.inv(transposed) @ b,
    )


_NWC = ("NWC", "WIO", "NWC")
_COUNT = np.arange(B)
_PLACE = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
_TWICE = np.array([0, 1, 1])


def _put(method, index):
    return lambda x, u: getattr(x.at[index], method)(u)


_SCATTERS = {"sub": "subtract", "mul": "multiply", "min": "min", "max": "max"}

# primitive: (function, shapes of its arguments, axis of the result, axes of operands)
FOLLOWED = {
    "optimization_barrier": [
        (lambda x: lax.optimization_barrier((x, x)), [(B, 2)], 0, [0, 0])
    ],
    "broadcast_in_dim": [
        (lambda x: jnp.broadcast_to(x[:, None], (B, 2)), [(B,)], 0, [0]),
        (lambda x: jnp.broadcast_to(x[None], (2, B)), [(B,)], 1, [1]),
    ],
    "reshape": [
        (lambda x: x.reshape(B, 8), [(B, 2, 4)], 0, [0]),
        (lambda x: x.reshape(2 * B, 4), [(B, 2, 4)], 0, [0]),
        (lambda x: x.reshape(B, 2, 4), [(2 * B, 4)], 0, [0]),
        (lambda x: x.reshape(2, B, 2, 2), [(2, B, 4)], 1, [1]),
    ],
    "squeeze": [(lambda x: lax.squeeze(x, (0,)), [(1, B, 2)], 0, [1])],
    "transpose": [(lambda x: x.transpose(1, 2, 0), [(B, 2, 4)], 2, [0])],
    **{
        name: [(fun, [(2, B, 4)], 0, [1])]
        for name, fun in {
            "reduce_sum": lambda x: x.sum((0, 2)),
            "reduce_max": lambda x: x.max((0, 2)),
            "reduce_min": lambda x: x.min((0, 2)),
            "reduce_prod": lambda x: x.prod((0, 2)),
            "reduce_and": lambda x: jnp.all(x > 0.5, (0, 2)),
            "reduce_or": lambda x: jnp.any(x > 0.5, (0, 2)),
            "reduce_xor": lambda x: lax.reduce_xor(_bits(x), (0, 2)),
        }.items()
    },
    "argmax": [(lambda x: jnp.argmax(x, 1), [(B, 4)], 0, [0])],
    "argmin": [(lambda x: jnp.argmin(x, 0), [(4, B)], 0, [1])],
    **{
        name: [(fun, [(B, 4)], 0, [0])]
        for name, fun in {
            "cumsum": lambda x: lax.cumsum(x, 1),
            "cumprod": lambda x: lax.cumprod(x, 1),
            "cummax": lambda x: lax.cummax(x, 1),
            "cummin": lambda x: lax.cummin(x, 1),
            "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 1),
        }.items()
    },
    "sort": [
        (lambda x: jnp.sort(x, 1), [(B, 4)], 0, [0]),
        (lambda x, y: lax.sort((x, y), dimension=0), [(4, B), (4, B)], 1, [1, 1]),
    ],
    "top_k": [
        (lambda x: lax.top_k(x, 2), [(B, 4)], 0, [0]),
        (lambda x: lax.top_k(x, 2, axis=0), [(4, B)], 1, [1]),
    ],
    "split": [(lambda x: jnp.split(x, 2, 1), [(B, 4)], 0, [0])],
    "dot_general": [
        (lambda x, w: x @ w, [(B, 4), (4, 2)], 0, [0, S]),
        (lambda w, x: w @ x, [(2, 4), (4, B)], 1, [S, 1]),
        (
            lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
            [(B, 2, 4), (B, 4, 2)],
            0,
            [0, 0],
        ),
        (lambda x, w: x.reshape(-1, 4) @ w, [(B, 2, 4), (4, 2)], 0, [0, S]),
    ],
    "conv_general_dilated": [
        (_conv(_NWC), [(B, 5, 2), (3, 2, 4)], 0, [0, S]),
        (_conv(_NWC, groups=2), [(B, 5, 4), (3, 2, 4)], 0, [0, S]),
        (_conv(("WNC", "WIO", "WNC")), [(5, B, 2), (3, 2, 4)], 1, [1, S]),
        (_conv(_NWC), [(2, 5, 2), (3, 2, 2 * B)], 2, [S, 2]),
        (_conv(_NWC, groups=B), [(2, 5, 2 * B), (3, 2, 4 * B)], 2, [2, 2]),
    ],
    "pad": [(lambda x: lax.pad(x, 0.0, ((0, 0, 0), (1, 2, 1))), [(B, 4)], 0, [0, S])],
    "slice": [(lambda x: x[:, 1:3], [(B, 4)], 0, [0])],
    "dynamic_slice": [
        (
            lambda x, i: lax.dynamic_slice(x, (_index(i), _index(i)), (B, 2)),
            [(B, 4), ()],
            0,
            [0, S, S],
        )
    ],
    "dynamic_update_slice": [
        (
            lambda x, u, i: lax.dynamic_update_slice(x, u, (_index(i), _index(i))),
            [(B, 4), (B, 2), ()],
            0,
            [0, 0, S, S],
        )
    ],
    "concatenate": [
        (lambda x, y: jnp.concatenate([x, y], 1), [(B, 4), (B, 2)], 0, [0, 0])
    ],
    "rev": [(lambda x: x[:, ::-1], [(B, 4)], 0, [0])],
    "reduce_window_sum": [(_window((B, 4), (1, 2)), [(B, 4)], 0, [0])],
    "reduce_window_max": [
        (
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID"),
            [(B, 4)],
            0,
            [0],
        )
    ],
    "reduce_window_min": [
        (
            lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 2), (1, 2), "VALID"),
            [(B, 4)],
            0,
            [0],
        )
    ],
    "fft": [(lambda x: jnp.fft.rfft(x, axis=1).real, [(B, 4)], 0, [0])],
    "gather": [
        (lambda t: t[jnp.array([[0, 2], [1, 1], [0, 0]])], [(5, 2)], 0, [S, 0]),
        (lambda x: x[_COUNT, jnp.array([1, 0, 2])], [(B, 4)], 0, [0, 0]),
        (lambda x: x[jnp.arange(B), jnp.array([1, 0, 2])], [(B, 4)], 0, [0, 0]),
        (lambda x: x[:, jnp.array([1, 1])], [(B, 4)], 0, [0, S]),
        (
            lambda x, i: jnp.take_along_axis(x, _index(i)[:, None], 1),
            [(B, 4), (B,)],
            0,
            [0, 0],
        ),
    ],
    "scatter": [
        (_put("set", (_COUNT, np.array([1, 0, 2]))), [(B, 4), (B,)], 0, [0, 0, 0]),
        (_put("set", (slice(None), np.array([1, 0]))), [(B, 4), (B, 2)], 0, [0, S, 0]),
    ],
    "scatter-add": [
        (_put("add", (_COUNT, np.array([1, 0, 2]))), [(B, 4), (B,)], 0, [0, 0, 0]),
        (_put("add", (slice(None), np.array([1, 0]))), [(B, 4), (B, 2)], 0, [0, S, 0]),
        (
            lambda x, u: jax.vmap(lambda x, u: x.at[jnp.array([0, 0])].add(u))(x, u),
            [(B, 4), (B, 2)],
            0,
            [0, None, 0],
        ),
    ],
    **{
        f"scatter-{name}": [
            (_put(method, (_COUNT, np.array([1, 0, 2]))), [(B, 4), (B,)], 0, [0, 0, 0])
        ]
        for name, method in _SCATTERS.items()
    },
    "tile": [
        (lambda x: jnp.tile(x, (1, 2)), [(B, 4)], 0, [0]),
        (lambda x: jnp.tile(x, (2, 1)), [(2, B)], 1, [1]),
    ],
    "approx_top_k": [(lambda x: lax.approx_max_k(x, 2), [(B, 4)], 0, [0])],
    **{
        name: [(fun, [(B, 2, 2)], 0, [0])]
        for name, fun in {
            "cholesky": lambda x: lax.linalg.cholesky(_definite(x)),
            "eigh": lambda x: lax.linalg.eigh(_definite(x)),
            "eig": lambda x: lax.linalg.eig(x),
            "lu": lambda x: lax.linalg.lu(x),
            "qr": lambda x: lax.linalg.qr(x),
            "svd": lambda x: lax.linalg.svd(x),
        }.items()
    },
    "householder_product": [
        (lax.linalg.householder_product, [(B, 2, 2), (B, 2)], 0, [0, 0])
    ],
    "triangular_solve": [
        (
            lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True),
            [(B, 2, 2), (B, 2, 3)],
            0,
            [0, 0],
        )
    ],
    "custom_linear_solve": [
        (jnp.linalg.solve, [(B, 2, 2), (B, 2, 1)], 0, [None] * 6 + [0]),
        (jax.vmap(_solve), [(B, 2, 2), (B, 2)], 0, [0, 0, 0, 0, 0]),
    ],
    "tridiagonal_solve": [
        (
            lambda d, b: lax.linalg.tridiagonal_solve(d, d + 4, d, b),
            [(B, 3), (B, 3, 2)],
            0,
            [0, 0, 0, 0],
        )
    ],
    "sharding_constraint": [
        (lambda x: lax.with_sharding_constraint(x, _PLACE), [(B, 4)], 0, [0])
    ],
    "checkpoint": [
        (jax.checkpoint(lambda x, w: jnp.tanh(x @ w)), [(B, 4), (4, 2)], 0, [0, S])
    ],
    "cond": [
        (
            lambda i, x: lax.cond(i > 0, jnp.sin, lambda y: 2 * y, x),
            [(), (B, 4)],
            0,
            [S, 0],
        )
    ],
    "scan": [
        (
            lambda x, w: lax.scan(lambda h, v: (jnp.tanh(h @ v), None), x, w)[0],
            [(B, 4), (2, 4, 4)],
            0,
            [0, S],
        ),
        (lambda x: lax.map(lambda r: jnp.cumsum(r), x), [(B, 4)], 0, [0]),
    ],
    "custom_jvp_call": [(jax.nn.relu, [(B, 4)], 0, [0])],
}


def _definite(x):
    return x @ x.swapaxes(1, 2) + jnp.eye(2)[None]


def _bits(x):
    return (x > 0.5).astype(jnp.int32)


def _index(i):
    return i.astype(jnp.int32)


_SCRAMBLED = np.array([2, 0, 1])
# The same, where the axis of the examples cannot be followed.
REFUSED = {
    "broadcast_in_dim": (lambda x: jnp.broadcast_to(x, (B, B)), [(B,)], 0),
    "reshape": (lambda x: x.reshape(2 * B, 4), [(2, B, 4)], 0),
    "squeeze": None,  # moves axes only
    "transpose": None,
    "optimization_barrier": None,
    "cumsum": (lambda x: lax.cumsum(x, 0), [(B, 4)], 0),
    "cumprod": (lambda x: lax.cumprod(x, 0), [(B, 4)], 0),
    "cummax": (lambda x: lax.cummax(x, 0), [(B, 4)], 0),
    "cummin": (lambda x: lax.cummin(x, 0), [(B, 4)], 0),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, 0), [(B, 4)], 0),
    "sort": (lambda x: jnp.sort(x, 0), [(B, 4)], 0),
    "top_k": (lambda x: lax.top_k(x, B), [(2, 2 * B)], 1),
    "split": (lambda x: jnp.split(x, [1, B + 1], 0), [(2 * B, 4)], 0),
    "dot_general": (lambda x: x @ x.T, [(B, 4)], 0),
    "conv_general_dilated": (_conv(_NWC), [(2, B, 2), (3, 2, 4)], 1),
    "pad": (lambda x: lax.pad(x, 0.0, ((1, -1, 0), (0, 0, 0))), [(B, 4)], 0),
    "slice": (lambda x: x[1 : B + 1], [(2 * B, 4)], 0),
    "dynamic_slice": (
        lambda x, i: lax.dynamic_slice(x, (_index(i), _index(i)), (B, 2)),
        [(2 * B, 4), ()],
        0,
    ),
    "dynamic_update_slice": (
        lambda x, u, i: lax.dynamic_update_slice(x, u, (_index(i), _index(i))),
        [(B, 4), (2, 4), ()],
        0,
    ),
    "concatenate": (
        lambda x, y: jnp.concatenate([x, y], 0),
        [(1, 4), (2, 4)],
        0,
    ),
    "rev": (lambda x: x[::-1], [(B, 4)], 0),
    "reduce_window_sum": (
        _window((B, 4), (2, 1), padding=((1, 0), (0, 0))),
        [(B, 4)],
        0,
    ),
    "reduce_window_max": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1), (2, 1), "VALID"),
        [(2 * B, 4)],
        0,
    ),
    "reduce_window_min": (
        lambda x: lax.reduce_window(x, jnp.inf, lax.min, (3, 1), (1, 1), "SAME"),
        [(B, 4)],
        0,
    ),
    "fft": (lambda x: jnp.fft.fft(x, axis=-1).real, [(4, B)], 1),
    "gather": (lambda x: x[jnp.array([1, 0, 2])], [(B, 4)], 0),
    "scatter": (_put("set", np.array([1, 0, 2])), [(B, 4), (B, 4)], 0),
    "scatter-add": (_put("add", _TWICE), [(B, 4), (B, 4)], 0),
    **{
        f"scatter-{name}": (_put(method, _SCRAMBLED), [(B, 4), (B, 4)], 0)
        for name, method in _SCATTERS.items()
    },
    "tile": (lambda x: jnp.tile(x, (B, 1)), [(2, 4)], 0),
    "approx_top_k": (
        lambda x: lax.approx_max_k(x, B, reduction_dimension=0),
        [(2 * B, 4)],
        0,
    ),
    "custom_linear_solve": (_solve, [(2, 2), (2, B)], 1),
    "cholesky": (lax.linalg.cholesky, [(2, B, B)], 1),
    "eigh": (lax.linalg.eigh, [(2, B, B)], 1),
    "eig": (lax.linalg.eig, [(2, B, B)], 1),
    "lu": (lax.linalg.lu, [(2, B, B)], 1),
    "qr": (lax.linalg.qr, [(2, B, B)], 1),
    "svd": (lax.linalg.svd, [(2, B, B)], 1),
    "householder_product": (lax.linalg.householder_product, [(2, B, B), (2, B)], 1),
    "triangular_solve": (lax.linalg.triangular_solve, [(2, B, B), (2, B, B)], 1),
    "tridiagonal_solve": (
        lambda d, b: lax.linalg.tridiagonal_solve(d, d + 4, d, b),
        [(2, B), (2, B, 2)],
        1,
    ),
    "sharding_constraint": None,
    "checkpoint": (jax.checkpoint(lambda x: x - x.sum(0)[None]), [(B, 4)], 0),
    "cond": (
        lambda i, x: lax.cond(i > 0, jnp.sin, lambda y: y[::-1], x),
        [(), (B, 4)],
        0,
    ),
    "scan": (
        lambda x: lax.scan(lambda h, _: (h - h.sum(0)[None], None), x, length=2)[0],
        [(B, 4)],
        0,
    ),
    "custom_jvp_call": (
        jax.custom_jvp(lambda x: x - x.sum(0)[None]),
        [(B, 4)],
        0,
    ),
}
REFUSED["custom_jvp_call"][0].defjvp(lambda x, t: (x[0] - x[0].sum(0)[None], t[0]))
