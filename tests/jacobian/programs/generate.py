"""Random programs, each determined by a seed and an index."""

import random
import re

from tests.jacobian.programs import (
    arithmetic,
    control,
    indexing,
    layout,
    networks,
    products,
    registry,
)
from tests.jacobian.programs.shrink import prune
from tests.jacobian.programs.source import Program, Reject, Scope, Var

# Operations are registered on import.
FAMILIES = (arithmetic, control, indexing, layout, products)


def program(seed: int, index: int, attempt: int = 0) -> Program:
    """The program of an index: a network, or operations on values of any shape."""
    rng = random.Random(f"{seed}/{index}/{attempt}")
    make = networks.network if rng.random() < 0.25 else _operations
    return prune(make(rng))


def _operations(rng: random.Random) -> Program:
    """A program over values that are known by shape alone."""
    while True:
        s = Scope(rng, rng.choice([1, 2, 3, 4, 4, 4, 6]), rng.random() < 0.2)
        try:
            begin(s)
            for _ in range(rng.randint(2, 9)):
                registry.draw(s)
            result = _losses(s)
        except Reject:
            continue
        lines = [f"{p} = p['{p}']" for p in s.params] + s.lines
        body = ["def losses(p):", *(f"    {line}" for line in lines)]
        lines = (*body, f"    return {result}")
        return Program(s.batch, s.params, lines, s.single)


def begin(s: Scope) -> None:
    """Data with a batch axis, a parameter, and what they make."""
    shape = [s.dim() for _ in range(s.any(1, 1, 2, 2, 3))]
    shape.insert(s.rng.randrange(len(shape) + 1) if s.chance(0.3) else 0, s.batch)
    s.constant(*shape)
    if s.chance(0.4):
        s.constant(s.batch, *[s.dim() for _ in range(s.any(0, 1, 2))])
    if s.chance(0.4):
        s.parameter(*[s.dim() for _ in range(s.any(1, 2, 3))])
    if s.chance(0.9):
        with s.attempt():
            s.any(products.dense, arithmetic.affine, products.dense)(s)


def _losses(s: Scope) -> str:
    """Losses of the last value and of others that nothing uses."""
    text = "\n".join(s.lines)
    idle = [v for v in s.vars if len(re.findall(rf"\b{v}\b", text)) == 1]
    chosen = [s.vars[-1], *(v for v in idle[-3:] if v is not s.vars[-1])]
    if not any(v.active for v in chosen):
        raise Reject
    parts = [_rows(s, v) for v in chosen if v.size]
    if not parts:
        raise Reject
    return " + ".join(parts)


def _rows(s: Scope, v: Var) -> str:
    """One number per example out of a value: along an axis of that size, or shared."""
    code = f"jnp.abs({v}) ** 2" if v.complex else s.any("{}", "jnp.sin({})", "{} ** 2")
    code = code.format(v)
    axes = [k for k, d in enumerate(v.shape) if d == s.batch]
    if axes:
        kept = s.any(axes[0], *axes)
        rest = tuple(k for k in range(v.ndim) if k != kept)
        return f"({code}).sum({rest})"
    if v.size % s.batch == 0:
        return f"({code}).reshape({s.batch}, -1).sum(1)"
    return f"jnp.full({s.batch}, 0.1) * ({code}).sum()"
