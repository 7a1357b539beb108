"""Complex values between real parameters and real losses."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.jacobian.reference import array, assert_products, jacobian

pytestmark = pytest.mark.usefixtures("x64")

B = 4
X = (B, 6)


def _filter(k):
    x = array(1, *X)
    return jnp.sum(jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(k)[None], n=6) ** 3, 1)


def _spectral_filter(k):
    x = array(1, *X)
    spectrum = jnp.fft.rfft(x) * k.astype(jnp.complex128)[None]
    return jnp.sum(jnp.fft.irfft(spectrum, n=6) ** 3, 1)


def _complex_weights(p):
    x = array(1, *X)
    z = lax.complex(x, x[::-1]) @ lax.complex(p[0], p[1])
    return jnp.sum(jnp.abs(z) ** 2, 1)


def _diagonal_recurrence(p):
    """A linear recurrent unit: complex decays, real input and output."""
    x = array(1, *X)
    decay = jnp.exp(lax.complex(-jnp.exp(p["log_decay"]), p["phase"]))
    state = jnp.zeros((B, 3), jnp.complex128)
    for t in range(6):
        inputs = x[:, t : t + 1] @ p["input"]
        state = decay[None] * state + inputs.astype(jnp.complex128)
    return jnp.sum((state * state).real @ p["output"], 1)


def _fourier_operator(p):
    """Modes mixed by complex weights, and a real path beside them."""
    x = array(1, B, 6, 2)
    modes = jnp.fft.rfft(x, axis=1)[:, :3]
    weights = lax.complex(p["re"], p["im"])
    mixed = jnp.einsum("bmc,mcd->bmd", modes, weights)
    h = jnp.fft.irfft(mixed, n=6, axis=1) + x @ p["skip"]
    return jnp.sum(jnp.tanh(h) ** 2, (1, 2))


MODELS = {
    "filter": (_filter, lambda: array(2, 6)),
    "spectral": (_spectral_filter, lambda: array(2, 4)),
    "weights": (_complex_weights, lambda: (array(2, 6, 2), array(3, 6, 2))),
    "recurrence": (
        _diagonal_recurrence,
        lambda: {
            "log_decay": array(2, 3),
            "phase": array(3, 3),
            "input": array(4, 1, 3),
            "output": array(5, 3, 2),
        },
    ),
    "operator": (
        _fourier_operator,
        lambda: {
            "re": array(2, 3, 2, 2),
            "im": array(3, 3, 2, 2),
            "skip": array(4, 2, 2),
        },
    ),
}


@pytest.mark.parametrize(("losses_fn", "make"), MODELS.values(), ids=MODELS)
def test_products_through_complex_values(losses_fn, make):
    params = make()
    assert jacobian(losses_fn, params).method == "intercept"
    assert_products(losses_fn, params)


def test_convolution_of_complex_values():
    x = array(1, B, 8, 2)

    def losses_fn(p):
        kernel = lax.complex(p["re"], p["im"])
        z = lax.conv_general_dilated(
            lax.complex(x, x[:, ::-1]),
            kernel,
            (1,),
            "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return jnp.sum(jnp.abs(z) ** 2, (1, 2))

    params = {"re": array(2, 3, 2, 2), "im": array(3, 3, 2, 2)}
    with jax.default_matmul_precision("highest"):
        assert_products(losses_fn, params)
