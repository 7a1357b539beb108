"""Operations on numbers: elementwise, along axes, complex, linear algebra."""

from tests.jacobian.programs.registry import operation
from tests.jacobian.programs.source import fits

UNARY = (
    *("jnp.sin({})", "jnp.tanh({})", "jnp.square({})", "jnp.exp(jnp.tanh({}))"),
    *("jax.nn.relu({})", "jax.nn.softplus({})", "jax.nn.gelu({})", "jax.nn.silu({})"),
    *("jnp.abs({})", "jax.nn.sigmoid({})", "lax.rsqrt(1 + {0} * {0})", "{} ** 3"),
    *("jnp.log1p(jnp.abs({}))", "lax.erf({})", "jnp.sinc({})", "-{}", "2.0 * {}"),
    *("jnp.floor({0}) + {0}", "jnp.clip({}, -0.5, 0.7)", "lax.stop_gradient({})"),
    *("jnp.where({0} > 0, {0}, 0.1 * {0})", "{0} - lax.stop_gradient({0})"),
    *(
        "{0}.astype(jnp.complex128).real * {0}",
        "jnp.nan_to_num({})",
        "jnp.sign({0}) * {0}",
    ),
    *(
        "jnp.exp(1j * {}).imag",
        "jax.nn.leaky_relu({})",
        "jnp.arctan({})",
        "jax.nn.elu({})",
    ),
    *(
        "lax.optimization_barrier({})",
        "jax.lax.reduce_precision({}, 11, 52)",
        "jnp.cbrt(2 + jnp.tanh({}))",
    ),
)


BINARY = (
    *("{} + {}", "{} * {}", "{} - {}", "{0} / (1 + {1} * {1})", "jnp.maximum({}, {})"),
    *("jnp.minimum({}, {})", "jnp.where({0} > {1}, {0}, 2 * {1})", "{} * jnp.tanh({})"),
    *("jnp.arctan2({}, 2 + jnp.tanh({}))", "jnp.clip({0}, {1} - 1, {1} + 1)"),
    *("jnp.logaddexp({}, {})", "jnp.hypot({}, 1 + jnp.abs({}))", "lax.complex({}, {})"),
    *(
        "jnp.where({1} > 0, {0}, lax.stop_gradient({1}))",
        "lax.clamp({1} - 1, {0}, {1} + 1)",
    ),
)


@operation(3)
def unary(s):
    s.emit(s.any(*UNARY).format(s.real()))


@operation(4)
def binary(s):
    a = s.real()
    b = s.real(lambda v: v is not a and fits(a.shape, v.shape))
    s.emit(s.any(*BINARY).format(*s.rng.sample([a, b], 2)))


@operation(1)
def self_binary(s):
    a = s.real()
    s.emit(
        s.any(
            "{0} * {0}", "{0} + {0}[::-1]", "{0} * {0}.mean()", "jnp.outer({0}, {0})"
        ).format(a)
    )


@operation(2)
def affine(s):
    """A parameter broadcast against a value."""
    a = s.real()
    shape = tuple(
        1 if s.chance(0.3) else d for d in a.shape[s.rng.randrange(a.ndim + 1) :]
    )
    s.emit(s.any("{} + {}", "{} * {}", "{} * (1 + {})").format(a, s.parameter(*shape)))


@operation(1.5)
def reduce(s):
    a = s.real()
    axis = s.axis(a)
    name = s.any(
        *(
            "sum",
            "mean",
            "max",
            "min",
            "prod",
            "var",
            "std",
            "ptp",
            "median",
            "linalg.norm",
        ),
        *("cumsum", "cumprod", "diff", "nanmean", "average"),
    )
    if name not in ("cumsum", "cumprod", "diff") and s.chance(0.4):
        s.emit(f"jnp.{name}({a}, axis={axis}, keepdims=True)")
    else:
        s.emit(f"jnp.{name}({a}, axis={axis})")


@operation(1)
def normalise(s):
    a = s.real(lambda v: v.ndim > 0)
    k = s.any(s.axis(a), tuple(sorted(s.order(a.ndim)[: s.any(1, 2)])))
    code = s.any(
        "jax.nn.softmax({a}, {k})",
        "jax.nn.log_softmax({a}, {k})",
        "jax.nn.standardize({a}, {k}, epsilon=0.1)",
        "{a} - {a}.mean({k}, keepdims=True)",
        "{a} / (1 + jnp.square({a}).sum({k}, keepdims=True))",
        "{a} - lax.stop_gradient({a}.mean({k}, keepdims=True))",
        "{a} - jax.nn.logsumexp({a}, {k}, keepdims=True)",
        "({a} - {a}.mean({k}, keepdims=True)) * lax.rsqrt({a}.var({k}, keepdims=True) + 0.1)",
    )
    s.emit(code.format(a=a, k=k))


@operation(1)
def cumulative(s):
    a = s.real()
    name = s.any("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
    s.emit(f"lax.{name}({a}, axis={s.axis(a)}, reverse={s.chance(0.4)})")


@operation(0.3)
def associative(s):
    a = s.real()
    s.emit(
        f"lax.associative_scan(jnp.{s.any('add', 'multiply')}, {a}, axis={s.axis(a)})"
    )


@operation(1)
def fourier(s):
    a = s.pick(lambda v: v.ndim > 0 and v.size > 0)
    k = s.axis(a)
    s.emit(
        s.any(
            f"jnp.fft.fft({a}, axis={k})",
            f"jnp.fft.ifft({a}, axis={k})",
            f"jnp.fft.rfft({a}, axis={k})",
            f"jnp.fft.irfft({a}, axis={k}, n={s.any(3, 4, 5)})",
            f"jnp.fft.fft2({a})",
            f"jnp.fft.fftshift({a})",
        )
    )


@operation(0.8)
def filter(s):
    a = s.real(lambda v: v.ndim > 0 and v.shape[-1] > 1)
    n = a.shape[-1]
    if s.chance(0.5):
        k = f"jnp.fft.rfft({s.parameter(n)})"
    else:
        k = str(s.parameter(n // 2 + 1))
    s.emit(f"jnp.fft.irfft(jnp.fft.rfft({a}) * {k}, n={n})")


@operation(1.2)
def to_complex(s):
    a = s.real()
    s.emit(
        s.any(
            f"lax.complex({a}, {s.parameter(*a.shape)})",
            f"{a} + 1j * {a}[::-1]" if a.ndim else f"1j * {a}",
            f"jnp.exp(1j * {a})",
            f"{a}.astype(complex)",
            f"lax.complex({a}, jnp.sin({a}))",
            f"{a} * (1 + 2j)",
        )
    )


@operation(1.5)
def of_complex(s):
    c = s.pick(lambda v: v.complex)
    b = s.pick(lambda v: fits(v.shape, c.shape))
    s.emit(
        s.any(
            *(
                f"jnp.abs({c}) ** 2",
                f"jnp.real({c})",
                f"jnp.imag({c})",
                f"jnp.angle(3 + 0.1 * {c})",
            ),
            *(
                f"{c} * {b}",
                f"{c} + {b}",
                f"{c} * jnp.conj({c})",
                f"jnp.tanh(0.1 * {c})",
            ),
            *(
                f"{c} * {c}",
                f"jnp.sum({c}, 0)",
                f"({c} * jnp.conj({b})).real",
                f"{c} @ {b}",
            ),
            f"jnp.concatenate([{c}.real, {c}.imag], -1)",
            f"jnp.real({c} * {s.parameter(*c.shape[-1:])})",
        )
    )


@operation(0.5)
def linear_algebra(s):
    a = s.real(lambda v: v.ndim >= 2 and v.shape[-1] == v.shape[-2] <= 4 and v.size > 0)
    n = a.shape[-1]
    b = s.real(lambda v: v.ndim >= 2 and v.shape[-2] == n)
    m = f"(3 * jnp.eye({n}) + jnp.tanh({a}))"
    s.emit(
        s.any(
            *(
                f"jnp.linalg.inv({m})",
                f"jnp.linalg.solve({m}, {b})",
                f"jnp.linalg.slogdet({m})[1]",
            ),
            f"jax.scipy.linalg.solve_triangular({m}, {b}, lower=True)",
            f"jnp.linalg.cholesky({m} @ jnp.swapaxes({m}, -1, -2))",
            f"jnp.linalg.det({m})",
        )
    )


@operation(0.8)
def dropout(s):
    a = s.real()
    key = f"jax.random.key({s.seed()})"
    s.emit(
        s.any(
            f"jax.random.bernoulli({key}, 0.7, {a.shape}) * {a}",
            f"{a} + 0.1 * jax.random.normal({key}, {a.shape}, {a}.dtype)",
            f"jax.vmap(lambda k, r: jax.random.bernoulli(k, 0.7, r.shape) * r)(jax.random.split({key}, {a.shape[0] if a.ndim else 1}), {a})",
        )
    )
