"""Programs as text: what is drawn, printed, shrunk and run is the same source.

A program is a Python function of parameters, one assignment a line, each with the
shape of its value in a comment. `Scope` grows it line by line; whatever JAX refuses to
trace is not added.
"""

import contextlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.jacobian.programs import rules, words

MAX_SIZE = 240
_NAME = re.compile(r"\b[a-z]+\d+\b")


class Reject(Exception):
    """The operation has no meaning for the values that there are."""


class Var(NamedTuple):
    """A value by name."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    active: bool = False  # whether it depends on a parameter

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def complex(self) -> bool:
        return jnp.issubdtype(self.dtype, jnp.complexfloating)

    def __str__(self) -> str:
        return self.name


class Program(NamedTuple):
    """Source of ``losses(p)`` and the shapes of its parameters."""

    batch: int
    params: dict[str, tuple[int, ...]]
    lines: tuple[str, ...]
    single: bool = False  # float32 rather than float64
    network: bool = False  # of `networks`

    def __str__(self) -> str:
        dtype = "float32" if self.single else "float64"
        return "\n".join([f"# {dtype}, parameters {self.params}", *self.lines])

    def function(self, **names: Any) -> Callable[..., Any]:
        """``losses``, with some ``names`` meaning other things than they usually do."""
        scope = namespace(self.single, **names)
        exec("\n".join(self.lines), scope)
        return scope["losses"]

    def values(self) -> dict[str, jax.Array]:
        """Parameters to evaluate at."""
        data = namespace(self.single)["data"]
        return {k: data(100 + i, *s) for i, (k, s) in enumerate(self.params.items())}


def namespace(single: bool, **names: Any) -> dict[str, Any]:
    """What the source of a program may refer to."""
    dtype = np.float32 if single else np.float64

    def data(seed, *shape):
        values = np.random.default_rng(seed).normal(size=shape)
        return jnp.asarray(np.round(values, 3), dtype)

    return {
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "lax": lax,
        "rules": rules,
        "data": data,
        **words.NAMES,
        **names,
    }


class Scope:
    """A function under construction: its lines, and the values that it can see."""

    def __init__(
        self,
        rng: random.Random,
        batch: int,
        single: bool = False,
        outer: "Scope | None" = None,
        arguments: Sequence[Var] = (),
    ):
        self.rng = rng
        self.batch = batch
        self.single = single
        self.outer = outer
        self.root: Scope = outer.root if outer else self
        self.depth: int = outer.depth + 1 if outer else 0
        self.arguments = list(arguments)
        self.vars: list[Var] = list(arguments)
        self.lines: list[str] = []
        self.functions: dict[str, list[str]] = {}
        if not outer:
            self.params: dict[str, tuple[int, ...]] = {}
            self.names = namespace(single)
            self.count = 0

    # What operations draw from.

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def any(self, *options: Any) -> Any:
        return self.rng.choice(options)

    def visible(self) -> list[Var]:
        """Values of this function and, less often, of those around it."""
        seen = list(self.vars)
        if self.outer and (self.chance(0.2) or not seen):
            seen += self.outer.visible()
        return seen

    def pick(self, ok: Callable[[Var], bool] = lambda v: True) -> Var:
        """A value that will do; more often a late one, or one made of parameters."""
        found = [v for v in self.visible() if ok(v)]
        if not found:
            raise Reject
        weights = [(1 + i) * (5 if v.active else 1) for i, v in enumerate(found)]
        return self.rng.choices(found, weights)[0]

    def real(self, ok: Callable[[Var], bool] = lambda v: True) -> Var:
        return self.pick(lambda v: not v.complex and ok(v))

    def dim(self) -> int:
        return self.any(1, 2, 2, 3, 3, 4, 5, *[self.batch] * 7)

    def axis(self, v: Var) -> int:
        if not v.ndim:
            raise Reject
        return self.rng.randrange(v.ndim)

    def order(self, n: int) -> tuple[int, ...]:
        return tuple(self.rng.sample(range(n), n))

    def seed(self) -> int:
        return self.rng.randrange(90)

    # What they add.

    def fresh(self, letter: str) -> str:
        self.root.count += 1
        return f"{letter}{self.root.count}"

    def emit(self, code: str) -> Var:
        """Adds ``name = code``, or rejects what JAX cannot trace."""
        out = self.shape_of(code)
        if not isinstance(out, jax.ShapeDtypeStruct):
            raise Reject
        return self.add(code, out)

    def emit_all(self, code: str) -> list[Var]:
        """Adds an assignment of every array of a tuple."""
        out = self.shape_of(code)
        whole = self.fresh("t")
        self.lines.append(f"{whole} = {code}")
        active = any(v.active for v in self.used(code))
        return [self.add(f"{whole}[{i}]", x, active) for i, x in enumerate(out)]

    def add(self, code: str, out: jax.ShapeDtypeStruct, active: bool = False) -> Var:
        if not jnp.issubdtype(out.dtype, jnp.inexact):
            raise Reject
        if np.prod(out.shape, dtype=int) > MAX_SIZE or len(out.shape) > 5:
            raise Reject
        active = active or any(v.active for v in self.used(code))
        v = Var(self.fresh("v"), tuple(out.shape), out.dtype, active)
        self.lines.append(f"{v} = {code}  # {_describe(v)}")
        self.vars.append(v)
        return v

    def shape_of(self, code: str) -> Any:
        """What ``code`` would return, by tracing it."""
        used, body = self.used(code), self.sources(code)
        head = f"def probe({', '.join(map(str, used))}):"
        scope = dict(self.root.names)
        try:
            exec("\n".join([head, *map(_indent, body), f"    return {code}"]), scope)
            at = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in used]
            return jax.eval_shape(scope["probe"], *at)
        except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise Reject from error
        except NotImplementedError as error:
            raise Reject from error

    def used(self, code: str) -> list[Var]:
        """Values that ``code`` refers to, in functions that it calls too."""
        found = set(_NAME.findall("\n".join([*self.sources(code), code])))
        return [v for v in self.everything() if v.name in found]

    def sources(self, code: str) -> list[str]:
        return [line for name in _NAME.findall(code) for line in self.source(name)]

    def source(self, name: str) -> list[str]:
        """Lines of a function, if ``name`` is one."""
        outer = self.outer.source(name) if self.outer else []
        return self.functions.get(name, outer)

    def everything(self) -> list[Var]:
        return self.vars + (self.outer.everything() if self.outer else [])

    def parameter(self, *shape: int) -> Var:
        """A parameter, or a value of that shape that is there already."""
        same = [v for v in self.visible() if v.shape == shape and not v.complex]
        if same and self.chance(0.3):
            return self.rng.choice(same)
        root = self.root
        name = f"p{len(root.params)}"
        root.params[name] = shape
        dtype = np.float32 if self.single else np.float64
        v = Var(name, shape, np.dtype(dtype), True)
        root.vars.append(v)
        return v

    def constant(self, *shape: int) -> Var:
        return self.emit(f"data({self.seed()}, *{shape})")

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Takes back all lines of an operation that is rejected on the way."""
        root = self.root
        lines, vars_, drawn = len(self.lines), list(self.vars), list(root.vars)
        params = dict(root.params)
        try:
            yield
        except Reject:
            del self.lines[lines:]
            root.vars[:] = drawn
            self.vars[:] = vars_ if self is not root else drawn
            root.params.clear()
            root.params.update(params)
            raise

    def function(self, *arguments: Var) -> "Scope":
        """A function inside this one; `define` closes it."""
        renamed = [v._replace(name=self.fresh("a")) for v in arguments]
        return Scope(self.rng, self.batch, self.single, self, renamed)

    def define(self, inner: "Scope", result: str, first: str = "") -> str:
        """Adds the source of an inner function that returns ``result``; its name."""
        name = self.fresh("f")
        names = first + ", ".join(v.name for v in inner.arguments)
        body = [f"def {name}({names}):", *map(_indent, inner.lines)]
        self.functions[name] = [*body, _indent(f"return {result}")]
        self.lines += self.functions[name]
        return name


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether shapes broadcast."""
    pairs = itertools.zip_longest(a[::-1], b[::-1], fillvalue=1)
    return all(x == y or 1 in (x, y) for x, y in pairs)


def _describe(v: Var) -> str:
    return f"{np.dtype(v.dtype).name}{list(v.shape)}"


def _indent(line: str) -> str:
    return "    " + line
