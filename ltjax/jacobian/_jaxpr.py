"""A traced function as a flat list of operations.

`jax.make_jaxpr` nests jitted functions; here they are inlined, so that every operation
of a model is one entry, and single operations can be evaluated and differentiated.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util

from ltjax.jacobian._placement import vary

_INLINED = {"jit", "pjit", "closed_call", "core_call"}


class Value:
    """An array of a traced program, known by its identity."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any):
        self.aval = aval

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(getattr(self.aval, "shape", ()))

    @property
    def dtype(self) -> Any:
        return getattr(self.aval, "dtype", None)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * getattr(self.dtype, "itemsize", 0)


class Op:
    """One operation: a primitive with its parameters, operands and results."""

    __slots__ = ("_eqn", "inputs", "outputs")

    def __init__(
        self,
        eqn: core.JaxprEqn,
        inputs: Sequence[Value | core.Literal],
        outputs: Sequence[Value],
    ):
        self._eqn = eqn
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    @property
    def name(self) -> str:
        return self._eqn.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        return self._eqn.params

    @property
    def values(self) -> list[Value]:
        """Operands that are not literals."""
        return [a for a in self.inputs if isinstance(a, Value)]

    @property
    def exchanges_along(self) -> frozenset[str]:
        """Axes of the mesh along which devices exchange values in the operation."""
        if self.name in ("pvary", "pcast", "axis_index"):
            return frozenset()
        found = (self.params.get(name) for name in ("axes", "axis_name"))
        names = [a for x in found for a in (x if isinstance(x, tuple) else (x,))]
        return frozenset(a for a in names if isinstance(a, str))

    @property
    def where(self) -> str:
        """The primitive, and the line of the user's program that calls it."""
        line = source_info_util.summarize(self._eqn.source_info)
        place = ":".join(line.rsplit("/", 1)[-1].split(":")[:2])
        return f"{self.name} ({place})" if place else self.name

    def renamed(
        self, inputs: Sequence[Value | core.Literal], outputs: Sequence[Value]
    ) -> "Op":
        """The same operation on other values."""
        return Op(self._eqn, inputs, outputs)

    def bind(self, *operands: Any, **changed: Any) -> tuple[Any, ...]:
        """Results of the operation, with some of its parameters ``changed``."""
        primitive = self._eqn.primitive
        if self.name == "pvary":  # nothing where shard_map does not check what varies
            return (vary(operands[0], frozenset(self.params["axes"])),)
        with self._eqn.ctx.manager:
            out = primitive.bind(
                *operands, **primitive.get_bind_params({**self.params, **changed})
            )
        return tuple(out) if primitive.multiple_results else (out,)


class Program:
    """A closed jaxpr, flattened."""

    def __init__(self, jaxpr: core.ClosedJaxpr):
        self.consts: dict[Value, Any] = {}
        self.ops: list[Op] = []
        self.inputs = [Value(v.aval) for v in jaxpr.jaxpr.invars]
        self.outputs = self._flatten(jaxpr.jaxpr, jaxpr.consts, self.inputs)

    def _flatten(self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]):
        names: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
        _refuse_references(jaxpr)
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            names[var] = Value(var.aval)
            self.consts[names[var]] = const

        def atom(a):
            return a if isinstance(a, core.Literal) else names[a]

        for eqn in jaxpr.eqns:
            operands = [atom(a) for a in eqn.invars]
            if eqn.primitive.name in _INLINED:
                body = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
                results = self._flatten(body.jaxpr, body.consts, operands)
            else:
                results = [Value(v.aval) for v in eqn.outvars]
                self.ops.append(Op(eqn, operands, results))
            names.update(zip(eqn.outvars, results, strict=True))
        return [atom(a) for a in jaxpr.outvars]


def _refuse_references(jaxpr: core.Jaxpr) -> None:
    """What is written to a mutable array is not followed."""
    made = [v for eqn in jaxpr.eqns for v in eqn.outvars]
    if any(hasattr(v.aval, "inner_aval") for v in (*jaxpr.constvars, *made)):
        raise ValueError(
            "losses_fn reads or writes a mutable array (jax.new_ref), which is not "
            "supported: compute its value, and return it beside the losses with "
            "has_aux=True."
        )


def read(env: dict[Value, Any], atom: Value | core.Literal) -> Any:
    """Value of an operand in an environment."""
    return atom.val if isinstance(atom, core.Literal) else env[atom]


def as_array(x: Any, atom: Value | core.Literal) -> Any:
    """``x``, a Python number perhaps, as an array of the dtype of ``atom``."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x, dtype_of(atom))


def run(ops: Iterable[Op], env: dict[Value, Any]) -> None:
    """Evaluates ``ops`` in order into ``env``."""
    for op in ops:
        results = op.bind(*(read(env, a) for a in op.inputs))
        env.update(zip(op.outputs, results, strict=True))


def inlined(
    program: Program, inputs: Sequence[Any]
) -> tuple[list[Op], list[Value | core.Literal]]:
    """Operations of a program on values of another one, and its outputs."""
    names = dict(zip(program.inputs, inputs, strict=True))

    def atom(a):
        return names.get(a, a) if isinstance(a, Value) else a

    ops = [op.renamed([atom(a) for a in op.inputs], op.outputs) for op in program.ops]
    return ops, [atom(a) for a in program.outputs]


def trace(fun: Callable[..., Any], *args: Any) -> tuple[Program, Any]:
    """``fun`` as a program, and the tree of shapes that it returns."""
    jaxpr, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
    return Program(jaxpr), shapes


def shape_of(atom: Value | core.Literal) -> tuple[int, ...]:
    """Shape of a value or of a literal."""
    return atom.shape if isinstance(atom, Value) else np.shape(atom.val)


def dtype_of(atom: Value | core.Literal) -> Any:
    """Dtype of a value or of a literal."""
    aval: Any = atom.aval
    return aval.dtype


def is_inexact(atom: Value | core.Literal) -> bool:
    """Whether a value can have a derivative."""
    return jnp.issubdtype(dtype_of(atom), jnp.inexact)


def abstract(atoms: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    """Shapes and dtypes, to trace functions of operands with."""
    return [jax.ShapeDtypeStruct(shape_of(a), dtype_of(a)) for a in atoms]


def closed(body: Any) -> Program:
    """The program of a jaxpr that is a parameter of an operation."""
    is_closed = isinstance(body, core.ClosedJaxpr)
    return Program(body if is_closed else core.ClosedJaxpr(body, ()))


def bodies(op: Op) -> list[Program]:
    """Functions inside an operation: loop bodies, branches."""
    kinds = core.Jaxpr, core.ClosedJaxpr
    params = jax.tree.leaves(
        list(op.params.values()), is_leaf=lambda x: isinstance(x, kinds)
    )
    return [closed(p) for p in params if isinstance(p, kinds)]


def scan_sizes(op: Op) -> tuple[int, int] | None:
    """How many operands of a scan are constants, and how many are carried."""
    if "num_consts" in op.params:
        return op.params["num_consts"], op.params["num_carry"]
    if "ft_in" not in op.params:
        return None
    consts, carry, _ = map(len, op.params["ft_in"].unpack())  # since jax 0.12
    return consts, carry


def nested(op: Op) -> Iterator[Op]:
    """The operation, and all that it holds at any depth."""
    yield op
    for body in bodies(op):
        for inner in body.ops:
            yield from nested(inner)
