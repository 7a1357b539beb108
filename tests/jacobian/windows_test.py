"""Convolutions of all geometries: exact, and programs that do not grow with windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import ltjax
from tests.jacobian.reference import array, assert_products, dense, flops, jacobian

B = 3
NHWC, NCHW, NWC = (
    ("NHWC", "HWIO", "NHWC"),
    ("NCHW", "OIHW", "NCHW"),
    ("NWC", "WIO", "NWC"),
)


def _losses(x, numbers, strides, padding, **options):
    """Losses whose cotangents depend on the kernel."""

    def losses_fn(kernel):
        y = lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=numbers, **options
        )
        return jnp.sum(jnp.sin(y), tuple(range(1, y.ndim)))

    return losses_fn


GEOMETRIES = {
    "unrolled": ((5, 4, 2), (3, 3, 2, 4), NHWC, (1, 1), "SAME", {}),
    "in a loop": ((5, 6, 2), (4, 3, 2, 3), NHWC, (1, 1), "SAME", {}),
    "Gram matrices in a loop": ((5, 5, 2), (4, 4, 2, 8), NHWC, (1, 1), "VALID", {}),
    "channels first": ((2, 5, 6), (3, 2, 4, 3), NCHW, (2, 1), "SAME", {}),
    "longer than the input": ((12, 2), (70, 2, 3), NWC, (1,), [(70, 0)], {}),
    "patches": ((8, 12, 2), (4, 4, 2, 3), NHWC, (4, 4), "VALID", {}),
    "patches, Gram matrices": ((8, 4, 2), (4, 4, 2, 8), NHWC, (4, 4), "VALID", {}),
    "patches with padding": ((7, 9, 2), (4, 4, 2, 3), NHWC, (4, 4), "SAME", {}),
    "patches that leave a rest": ((11, 9, 2), (4, 4, 2, 3), NHWC, (4, 4), "VALID", {}),
    "patches of groups": (
        (8, 8, 4),
        (4, 4, 2, 6),
        NHWC,
        (4, 4),
        "VALID",
        {"groups": 2},
    ),
    "blocks that overlap": ((9, 9, 2), (6, 4, 2, 3), NHWC, (2, 2), "SAME", {}),
    "two strides": ((9, 6, 2), (4, 5, 2, 3), NHWC, (2, 1), "VALID", {}),
    "strides that do not divide": ((9, 9, 2), (5, 3, 2, 3), NHWC, (2, 2), "SAME", {}),
    "gaps between windows": ((11, 9, 2), (2, 1, 2, 3), NHWC, (3, 4), "VALID", {}),
    "the whole input": ((5, 4, 2), (5, 4, 2, 3), NHWC, (1, 1), "VALID", {}),
    "one place, many offsets": (
        (9, 9, 2),
        (4, 5, 2, 3),
        NHWC,
        (1, 1),
        "VALID",
        {"dilation": (3, 2)},
    ),
    "dilated": ((9, 8, 2), (4, 3, 2, 3), NHWC, (1, 2), "SAME", {"dilation": (2, 3)}),
    "dilated input": (
        (4, 5, 2),
        (4, 3, 2, 3),
        NHWC,
        (1, 1),
        [(2, 1), (1, 1)],
        {"lhs": (2, 3)},
    ),
    "cropped input": ((9, 9, 2), (4, 3, 2, 3), NHWC, (1, 2), [(-1, -2), (2, -1)], {}),
    "depthwise": ((7, 7, 4), (4, 3, 1, 4), NHWC, (1, 1), "SAME", {"groups": 4}),
    "depthwise, several outputs": (
        (6, 7, 2),
        (5, 5, 1, 6),
        NHWC,
        (2, 2),
        "SAME",
        {"groups": 2},
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_equals_dense_rows(name):
    shape, kernel, numbers, strides, padding, more = GEOMETRIES[name]
    losses_fn = _losses(
        array(1, B, *shape),
        numbers,
        strides,
        padding,
        rhs_dilation=more.get("dilation"),
        lhs_dilation=more.get("lhs"),
        feature_group_count=more.get("groups", 1),
    )
    kernel = array(2, *kernel)
    assert jacobian(losses_fn, kernel).method == "intercept"
    assert_products(losses_fn, kernel, tolerance=1e-10)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_narrow_types_and_chunks(dtype, chunk_size):
    x, kernel = array(1, B, 6, 6, 2, dtype=dtype), array(2, 4, 4, 2, 3, dtype=dtype)
    losses_fn = _losses(x, NHWC, (1, 1), "SAME")

    @jax.jit
    def norms(kernel):
        return ltjax.linearize(losses_fn, kernel)[1].norms(chunk_size=chunk_size)

    expected = np.linalg.norm(dense(losses_fn, kernel).astype(np.float64), axis=1)
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    np.testing.assert_allclose(norms(kernel), expected, rtol=tolerance)


@pytest.mark.usefixtures("x64")
def test_window_of_all_iterations_of_a_loop():
    x = array(1, B, 5, 5, 2)

    def losses_fn(kernel):
        def step(h, _):
            y = lax.conv_general_dilated(
                h, kernel, (1, 1), "SAME", dimension_numbers=NHWC
            )
            return jnp.tanh(y), None

        return jnp.sum(lax.scan(step, x, length=3)[0] ** 2, (1, 2, 3))

    kernel = array(2, 4, 3, 2, 2)
    assert jacobian(losses_fn, kernel).method == "intercept"
    assert_products(losses_fn, kernel, tolerance=1e-10)


def test_window_inside_shard_map(eight_devices):
    x, kernel = (
        array(1, 16, 6, 2, dtype=np.float32),
        array(2, 12, 2, 3, dtype=np.float32),
    )

    def norms(x, kernel):
        losses_fn = _losses(x, NWC, (1,), "SAME")
        return ltjax.linearize(losses_fn, kernel)[1].norms()

    sharded = jax.shard_map(
        norms, mesh=eight_devices, in_specs=(P("data"), P()), out_specs=P("data")
    )
    placed = jax.device_put(x, NamedSharding(eight_devices, P("data")))
    np.testing.assert_allclose(
        jax.jit(sharded)(placed, kernel), jax.jit(norms)(x, kernel), rtol=1e-5
    )


def _program_size(use, window, stride, groups):
    """Operations in the program of one layer, whatever its window."""
    x = jnp.zeros((2, 32, 32, 4))
    kernel = jnp.zeros((window, window, 4 // groups, 4))
    losses_fn = _losses(x, NHWC, (stride, stride), "SAME", feature_group_count=groups)
    used = jax.jit(lambda kernel: use(ltjax.linearize(losses_fn, kernel)[1]))
    return used.lower(kernel).as_text().count(" = ")


@pytest.mark.parametrize("use", [lambda jac: jac.norms(), lambda jac: jac.dense()])
@pytest.mark.parametrize(
    ("window", "stride", "groups"),
    [(4, 1, 1), (7, 2, 1), (8, 8, 1), (16, 1, 1), (16, 16, 1), (31, 1, 4), (32, 32, 1)],
)
def test_programs_do_not_grow_with_the_window(use, window, stride, groups):
    small = _program_size(use, 3, 1, groups)
    assert _program_size(use, window, stride, groups) <= 1.3 * small


def test_patches_cost_what_their_matrix_product_does():
    x, size = jnp.zeros((8, 32, 32, 3)), 16
    kernel = jnp.zeros((size, size, 3, 24))
    patches = jnp.zeros((8, 4, size * size * 3))
    convolution = _losses(x, NHWC, (size, size), "VALID")

    def product(kernel):
        return jnp.sum(jnp.sin(patches @ kernel.reshape(-1, 24)), (1, 2))

    def norms(losses_fn):
        return flops(lambda k: ltjax.linearize(losses_fn, k)[1].norms(), kernel)

    assert norms(convolution) <= 1.1 * norms(product)
