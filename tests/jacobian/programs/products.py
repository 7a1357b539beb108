"""Products with parameters and between values, with any axis in any role."""

import string

from tests.jacobian.programs.registry import operation
from tests.jacobian.programs.source import Scope, Var


@operation(2)
def einsum(s):
    a = s.pick()
    b = s.pick(lambda v: v.complex == a.complex)
    operands = [a, b] if s.chance(0.85) else [a]
    letters = _letters(s, operands)
    used = sorted({c for word in letters for c in word})
    kept = [c for c in used if s.chance(0.55)]
    s.rng.shuffle(kept)
    names = ", ".join(map(str, operands))
    s.emit(f"jnp.einsum('{','.join(letters)}->{''.join(kept)}', {names})")


@operation(3)
def dense(s):
    """A matrix product with a parameter on any axis, or between values."""
    a = s.real(lambda v: v.ndim > 0)
    k = s.axis(a)
    w = (
        s.parameter(a.shape[k], s.dim())
        if s.chance(0.7)
        else s.parameter(s.dim(), a.shape[k])
    )
    j = w.shape.index(a.shape[k])
    s.emit(
        s.any(
            f"jnp.tensordot({a}, {w}, ({k}, {j}))",
            f"jnp.tensordot({w}, {a}, ({j}, {k}))",
            f"jnp.moveaxis({a}, {k}, -1) @ {w if j == 0 else f'{w}.T'}",
            f"jnp.dot({a}, {w})",
            f"{w} @ {a}",
        )
    )


@operation(1.5)
def dot_general(s):
    a, b = s.real(), s.real()
    pairs = [
        (i, j) for i in range(a.ndim) for j in range(b.ndim) if a.shape[i] == b.shape[j]
    ]
    s.rng.shuffle(pairs)
    contract, batch = [], []
    for i, j in pairs[:4]:
        taken = contract + batch
        if all(i != x and j != y for x, y in taken):
            s.any(contract, batch).append((i, j))
    sides = [
        tuple(tuple(p[side] for p in group) for side in (0, 1))
        for group in (contract, batch)
    ]
    s.emit(f"lax.dot_general({a}, {b}, ({sides[0]}, {sides[1]}))")


@operation(2)
def convolution(s):
    a = s.real(lambda v: v.ndim in (3, 4) and v.size > 0)
    spatial = a.ndim - 2
    lhs, rhs, out = (
        "".join(s.rng.sample(w + "HW"[:spatial], a.ndim)) for w in ("NC", "OI", "NC")
    )
    channels = a.shape[lhs.index("C")]
    groups = s.any(1, 1, channels, *(g for g in (2, 3) if channels % g == 0))
    sizes = {
        "O": groups * s.any(1, 2),
        "I": channels // groups,
        "H": s.any(1, 2, 3),
        "W": s.any(1, 2),
    }
    extra = ""
    if groups == 1 and s.chance(0.15):
        extra += ", batch_group_count=" + str(a.shape[lhs.index("N")])
        sizes["O"] = a.shape[lhs.index("N")]
    if s.chance(0.25):
        extra += f", rhs_dilation={(2,) * spatial}"
    if s.chance(0.2):
        extra += f", lhs_dilation={(2,) * spatial}"
    shape = tuple(sizes[c] for c in rhs)
    kernels = [v for v in s.visible() if v.shape == shape and not v.complex]
    w = s.rng.choice(kernels) if kernels and s.chance(0.3) else s.parameter(*shape)
    padding = s.any("'SAME'", "'VALID'", str([(1, 1), (0, 1)][:spatial]))
    s.emit(
        f"lax.conv_general_dilated({a}, {w}, {(s.any(1, 1, 2),) * spatial}, {padding}, "
        f"dimension_numbers={(lhs, rhs, out)}, feature_group_count={groups}{extra})"
    )


@operation(0.8)
def own_kernels(s):
    """A convolution of every example with a kernel of its own."""
    a = s.real(lambda v: v.ndim == 3 and v.size > 0)
    n, _, c = a.shape
    shape = (2, c, s.any(1, 2))
    if s.chance(0.5):
        k, axes = s.parameter(n, *shape), (0, 0)
    else:
        m = s.constant(n, 2, c, 1)
        k, axes = s.emit(f"{m} * {s.parameter(*shape)}"), (0, 0)
    numbers = ("NWC", "WIO", "NWC")
    s.emit(
        f"jax.vmap(lambda i, k: lax.conv_general_dilated(i[None], k, (1,), 'SAME', "
        f"dimension_numbers={numbers})[0], {axes})({a}, {k})"
    )


@operation(0.7)
def convolve(s):
    a = s.real(lambda v: v.ndim in (1, 2) and v.size > 0)
    k = s.parameter(s.any(1, 2, 3))
    mode = s.any("same", "full", "valid")
    if a.ndim == 1:
        s.emit(f"jnp.convolve({a}, {k}, mode='{mode}')")
    else:
        s.emit(
            f"jax.vmap(lambda r: jnp.convolve(r, {k}, mode='{mode}'), {s.any(0, 1)})({a})"
        )


@operation(0.8)
def window(s):
    a = s.real(lambda v: v.ndim > 0 and v.size > 0)
    shape = tuple(s.any(1, 1, 2) for _ in a.shape)
    strides = tuple(s.any(1, 1, 2) for _ in a.shape)
    start, how = s.any(("0.0", "add"), ("-np.inf", "max"), ("np.inf", "min"))
    extra = (
        f", window_dilation={tuple(s.any(1, 2) for _ in a.shape)}"
        if s.chance(0.2)
        else ""
    )
    s.emit(
        f"lax.reduce_window({a}, {a}.dtype.type({start}), lax.{how}, {shape}, {strides}, '{s.any('SAME', 'VALID')}'{extra})"
    )


@operation(1)
def slices(s):
    """Slices of one parameter, layer by layer."""
    a = s.real(lambda v: 0 < v.ndim <= 3)
    n, d = s.any(2, 3), a.shape[-1]
    w = s.parameter(n, d, d)
    read = s.any(
        "{w}[{i}]",
        "jnp.unstack({w})[{i}]",
        "jnp.split({w}, {n})[{i}][0]",
        "lax.dynamic_index_in_dim({w}, {i}, keepdims=False)",
    )
    for i in range(n):
        a = s.emit(f"jnp.tanh({a} @ {read.format(w=w, i=i, n=n)})")


@operation(0.6)
def heads(s):
    """Queries, keys and values out of one weight; attention over some axis."""
    a = s.real(lambda v: v.ndim in (2, 3))
    d = a.shape[-1]
    w = s.parameter(d, 3 * 2)
    q, k, v = s.emit_all(f"tuple(jnp.split({a} @ {w}, 3, axis=-1))")
    scores = s.emit(f"jax.nn.softmax(jnp.einsum('...qd,...kd->...qk', {q}, {k}), -1)")
    s.emit(f"{scores} @ {v}")


def _letters(s: Scope, operands: list[Var]) -> list[str]:
    """Subscripts: axes of one size share a letter, or not."""
    free = iter(string.ascii_lowercase)
    known: dict[int, list[str]] = {}
    words = []
    for v in operands:
        word = ""
        for d in v.shape:
            old = [c for c in known.get(d, []) if c not in word or s.chance(0.1)]
            letter = s.rng.choice(old) if old and s.chance(0.7) else next(free)
            known.setdefault(d, []).append(letter)
            word += letter
        words.append(word)
    return words
