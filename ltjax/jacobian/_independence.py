"""Which axis of an operand holds the examples, given that axis of the result.

An axis ``k`` of size ``m * B`` holds the examples of an array if its ``i``-th block of
``m`` entries belongs to example ``i``. `operand_axes` answers for one operation:
the entries of the result that belong to example ``i`` depend on no more than the
entries that belong to ``i`` on the given axis of each operand, and on the whole of the
operands marked `SHARED`. What is not known to keep examples apart is `SHARED`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ltjax.jacobian._jaxpr import Op, Program, Value, shape_of, trace

SHARED: Final = "shared"
Axis = int | str | None  # None: the value is not used
Rule = Callable[["Question"], Sequence[Axis]]

ELEMENTWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "add",
        "add_any",
        "and",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "bessel_i0e",
        "bessel_i1e",
        "cbrt",
        "ceil",
        "clamp",
        "complex",
        "conj",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "digamma",
        "div",
        "eq",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "igamma",
        "igammac",
        "imag",
        "integer_pow",
        "is_finite",
        "le",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "name",
        "ne",
        "neg",
        "nextafter",
        "not",
        "or",
        "polygamma",
        "population_count",
        "pow",
        "real",
        "reduce_precision",
        "regularized_incomplete_beta",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "shift_left",
        "shift_right_arithmetic",
        "shift_right_logical",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "xor",
        "zeta",
    ]
)


class Question:
    """An operation, the batch axis of its (only) result, and where values come from."""

    def __init__(self, op: Op, axis: int, size: int, producers: dict[Value, Op]):
        self.op = op
        self.axis = axis
        self.size = size
        self.producers = producers
        self.params = op.params
        self.shapes = [shape_of(a) for a in op.inputs]
        self.shape = op.outputs[0].shape


def operand_axes(
    op: Op,
    axes: Sequence[Axis],
    size: int,
    producers: dict[Value, Op],
    *,
    derivative: bool = True,
) -> list[Axis] | None:
    """Batch axes of the operands of ``op``, or None if the primitive is not known.

    Args:
      op: an operation.
      axes: batch axes of its results; at least one is an axis.
      size: number of examples.
      producers: the operation that makes each value.
      derivative: whether derivatives must keep examples apart too. They do unless
        a custom rule says otherwise.
    """
    if op.name in _CUSTOM:
        if derivative:
            return _CUSTOM[op.name](op, axes, size)
        body = _program(op.params["call_jaxpr"])
        return input_axes(body, axes, size, derivative=False)
    if op.name in _CALLS:
        return _CALLS[op.name](op, axes, size, derivative)
    if SHARED in axes:
        return [SHARED] * len(op.inputs)
    if op.name in _PARALLEL:
        return list(axes)
    if op.name in ("sort", "split", "top_k"):
        axis = _join(*axes)
        along = op.params.get("dimension", op.params.get("axis", -1))
        apart = axis != along % len(shape_of(op.inputs[0]))
        return [axis if apart else SHARED] * len(op.inputs)
    if op.name == "unstack":
        axis = _join(*axes)
        skipped = isinstance(axis, int) and axis >= op.params["axis"]
        return [axis + 1 if skipped else axis]  # type: ignore[operator]
    if len(op.outputs) != 1:
        return None
    question = Question(op, axes[0], size, producers)  # type: ignore[arg-type]
    if op.name in ELEMENTWISE:
        return [_elementwise(question, shape) for shape in question.shapes]
    rule = _RULES.get(op.name)
    return list(rule(question)) if rule else None


def input_axes(
    program: Program, axes: Sequence[Axis], size: int, *, derivative: bool = True
) -> list[Axis]:
    """Batch axes of the inputs of a whole program, given those of its outputs."""
    producers = {v: op for op in program.ops for v in op.outputs}
    found: dict[Value, Axis] = {}

    def meet(atom, axis):
        if isinstance(atom, Value) and axis is not None:
            found[atom] = axis if found.get(atom, axis) == axis else SHARED

    for atom, axis in zip(program.outputs, axes, strict=True):
        meet(atom, axis)
    for op in reversed(program.ops):
        results = [found.get(v) for v in op.outputs]
        if all(axis is None for axis in results):
            continue
        operands = None
        if any(isinstance(axis, int) for axis in results):
            operands = operand_axes(op, results, size, producers, derivative=derivative)
        for atom, axis in zip(
            op.inputs, operands or [SHARED] * len(op.inputs), strict=True
        ):
            meet(atom, axis)
    return [found.get(v) for v in program.inputs]


def _elementwise(q: Question, shape: tuple[int, ...]) -> Axis:
    if not shape or shape[q.axis] != q.shape[q.axis]:
        return SHARED
    return q.axis


def _broadcast_in_dim(q: Question) -> list[Axis]:
    sizes: list[Axis] = [SHARED] * len(q.shapes)
    where = q.params["broadcast_dimensions"]
    if q.axis in where:
        axis = where.index(q.axis)
        if q.shapes[0][axis] == q.shape[q.axis]:
            sizes[0] = axis
    return sizes


def _reshape(q: Question) -> list[Axis]:
    return [_split_axis(q.shapes[0], q.shape, q.axis, q.size)]


def _split_axis(
    source: tuple[int, ...], result: tuple[int, ...], axis: int, size: int
) -> Axis:
    """Axis of the source whose major part is that of ``axis`` of the result."""
    before = np.prod(result[:axis], dtype=int)
    for k in range(len(source)):
        if np.prod(source[:k], dtype=int) == before and source[k] % size == 0:
            return k
    return SHARED


def _squeeze(q: Question) -> list[Axis]:
    ndim = len(q.shapes[0])
    gone = {d % ndim for d in q.params["dimensions"]}
    return [[k for k in range(ndim) if k not in gone][q.axis]]


def _transpose(q: Question) -> list[Axis]:
    return [q.params["permutation"][q.axis]]


def _reduce(q: Question) -> list[Axis]:
    kept = [k for k in range(len(q.shapes[0])) if k not in q.params["axes"]]
    return [kept[q.axis]]


def _cumulative(q: Question) -> list[Axis]:
    return [q.axis if q.axis != q.params["axis"] else SHARED]


def _dot_general(q: Question) -> list[Axis]:
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = q.params["dimension_numbers"]
    if q.axis < len(lhs_batch):
        return [lhs_batch[q.axis], rhs_batch[q.axis]]
    lhs, rhs = q.shapes
    lhs_free = [k for k in range(len(lhs)) if k not in (*lhs_contract, *lhs_batch)]
    rhs_free = [k for k in range(len(rhs)) if k not in (*rhs_contract, *rhs_batch)]
    k = q.axis - len(lhs_batch)
    if k < len(lhs_free):
        return [lhs_free[k], SHARED]
    return [SHARED, rhs_free[k - len(lhs_free)]]


def _conv(q: Question) -> list[Axis]:
    numbers = q.params["dimension_numbers"]
    plain = q.params["batch_group_count"] == 1
    if plain and q.axis == numbers.out_spec[0]:
        return [numbers.lhs_spec[0], SHARED]
    if plain and q.params["feature_group_count"] == 1 and q.axis == numbers.out_spec[1]:
        return [SHARED, numbers.rhs_spec[0]]
    return [SHARED, SHARED]


def _pad(q: Question) -> list[Axis]:
    untouched = tuple(q.params["padding_config"][q.axis]) == (0, 0, 0)
    return [q.axis if untouched else SHARED, SHARED]


def _whole_axis(q: Question) -> list[Axis]:
    """Slices that leave the batch axis whole; positions are shared."""
    whole = q.shapes[0][q.axis] == q.shape[q.axis]
    return [q.axis if whole else SHARED, *[SHARED] * (len(q.shapes) - 1)]


def _dynamic_update_slice(q: Question) -> list[Axis]:
    axis = q.axis if q.shapes[1][q.axis] == q.shape[q.axis] else SHARED
    return [axis, axis, *[SHARED] * (len(q.shapes) - 2)]


def _stack(q: Question) -> list[Axis]:
    along = q.params["axis"]
    axis = SHARED if q.axis == along else q.axis - (q.axis > along)
    return [axis] * len(q.shapes)


def _concatenate(q: Question) -> list[Axis]:
    axis = q.axis if q.params["dimension"] != q.axis else SHARED
    return [axis] * len(q.shapes)


def _rev(q: Question) -> list[Axis]:
    return [q.axis if q.axis not in q.params["dimensions"] else SHARED]


def _reduce_window(q: Question) -> list[Axis]:
    k, params = q.axis, q.params
    apart = (
        params["window_dimensions"][k] == params["window_strides"][k] == 1
        and tuple(params["padding"][k]) == (0, 0)
        and params.get("base_dilation", {k: 1})[k] == 1
        and params.get("window_dilation", {k: 1})[k] == 1
    )
    return [q.axis if apart else SHARED] * len(q.shapes)


def _fft(q: Question) -> list[Axis]:
    apart = q.axis < len(q.shape) - len(q.params["fft_lengths"])
    return [q.axis if apart else SHARED]


def _gather(q: Question) -> list[Axis]:
    numbers, sizes = q.params["dimension_numbers"], q.params["slice_sizes"]
    operand, _ = q.shapes
    if q.axis in numbers.offset_dims:
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [k for k in range(len(operand)) if k not in gone]
        k = kept[numbers.offset_dims.index(q.axis)]
        return [k if sizes[k] == operand[k] else SHARED, SHARED]
    position = [k for k in range(len(q.shape)) if k not in numbers.offset_dims].index(
        q.axis
    )
    batching = numbers.start_indices_batching_dims
    if position in batching:
        k = numbers.operand_batching_dims[batching.index(position)]
        return [k, position]
    counted = _counted_axis(
        q, q.op.inputs[1], position, numbers.start_index_map, operand
    )
    single = counted in numbers.collapsed_slice_dims  # and not a window from there
    return [counted if single else SHARED, position]


def _scatter(q: Question) -> list[Axis]:
    numbers = q.params["dimension_numbers"]
    operand, indices, updates = q.shapes
    if q.axis in numbers.operand_batching_dims:
        position = numbers.scatter_indices_batching_dims[
            numbers.operand_batching_dims.index(q.axis)
        ]
        return [q.axis, position, _update_axis(numbers, updates, position)]
    window = [
        k
        for k in range(len(operand))
        if k not in (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    ]
    if q.axis in window:
        axis = numbers.update_window_dims[window.index(q.axis)]
        if updates[axis] == operand[q.axis]:
            return [q.axis, SHARED, axis]
        return [SHARED] * 3
    for position in range(len(indices) - 1):
        counted = _counted_axis(
            q,
            q.op.inputs[1],
            position,
            numbers.scatter_dims_to_operand_dims,
            operand,
        )
        if counted == q.axis:
            return [q.axis, position, _update_axis(numbers, updates, position)]
    return [SHARED] * 3


def _update_axis(numbers: Any, updates: tuple[int, ...], position: int) -> int:
    scattered = [k for k in range(len(updates)) if k not in numbers.update_window_dims]
    return scattered[position]


def _counted_axis(
    q: Question,
    indices: Any,
    position: int,
    targets: Sequence[int],
    operand: tuple[int, ...],
) -> Axis:
    """Axis of the operand that row ``i`` of the indices reads at entry ``i`` only."""
    for component, target in enumerate(targets):
        counts = _counts(q.producers, indices, position, component)
        if counts and operand[target] == shape_of(indices)[position]:
            return target
    return SHARED


def _counts(
    producers: dict[Value, Op], atom: Any, axis: int, component: int | None
) -> bool:
    """Whether ``atom`` holds its own position along ``axis``, as ``arange`` does.

    With a ``component``, only that entry of the last axis is asked about.
    """
    op = producers.get(atom) if isinstance(atom, Value) else None
    if op is None:
        return False
    last = len(shape_of(atom)) - 1

    def ask(operand, axis=axis, component=component):
        return _counts(producers, operand, axis, component)

    if op.name == "iota":
        return op.params["dimension"] == axis
    if op.name in ("convert_element_type", "copy"):
        return ask(op.inputs[0])
    if op.name == "concatenate" and op.params["dimension"] == last:
        if component is None:
            return all(map(ask, op.inputs))
        for operand in op.inputs:
            width = shape_of(operand)[last]
            if component < width:
                return ask(operand, component=component)
            component -= width
    if op.name == "broadcast_in_dim":
        where = op.params["broadcast_dimensions"]
        if axis not in where:
            return False
        inner = where.index(axis)
        if shape_of(op.inputs[0])[inner] != shape_of(atom)[axis]:
            return False
        kept = component if last in where and last != axis else None
        return ask(op.inputs[0], inner, kept)
    if op.name == "reshape":
        source, result = shape_of(op.inputs[0]), shape_of(atom)
        inner = _split_axis(source, result, axis, result[axis])
        same = isinstance(inner, int) and source[inner] == result[axis]
        return same and ask(op.inputs[0], inner, None)
    if op.name == "select_n":  # index + size where index < 0: never, for a count
        pred, count, _ = op.inputs
        test = producers.get(pred) if isinstance(pred, Value) else None
        if test is not None and test.name == "lt":
            return test.inputs[0] is count and _is_zero(test.inputs[1]) and ask(count)
    return False


def _is_zero(atom: Any) -> bool:
    return isinstance(atom, core.Literal) and np.ndim(atom.val) == 0 and atom.val == 0


_REDUCTIONS = [
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"),
    *("reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin"),
]
_RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(
        ["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], _cumulative
    ),
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "pad": _pad,
    "slice": _whole_axis,
    "dynamic_slice": _whole_axis,
    "dynamic_update_slice": _dynamic_update_slice,
    "concatenate": _concatenate,
    "stack": _stack,
    "rev": _rev,
    **dict.fromkeys(
        ["reduce_window_sum", "reduce_window_max", "reduce_window_min"], _reduce_window
    ),
    "fft": _fft,
    "gather": _gather,
    **dict.fromkeys(["scatter", "scatter-add", "scatter_add"], _scatter),
}

# Operations whose results are their operands, one by one.
_PARALLEL = {"optimization_barrier"}


def _program(body: Any) -> Program:
    closed = isinstance(body, core.ClosedJaxpr)
    return Program(body if closed else core.ClosedJaxpr(body, ()))


def _checkpoint(
    op: Op, axes: Sequence[Axis], size: int, derivative: bool
) -> list[Axis]:
    return input_axes(_program(op.params["jaxpr"]), axes, size, derivative=derivative)


def _cond(op: Op, axes: Sequence[Axis], size: int, derivative: bool) -> list[Axis]:
    branches = [
        input_axes(_program(b), axes, size, derivative=derivative)
        for b in op.params["branches"]
    ]
    return [SHARED, *(_join(*found) for found in zip(*branches, strict=True))]


def _scan(op: Op, axes: Sequence[Axis], size: int, derivative: bool) -> list[Axis]:
    """Examples on an axis of the carry, or (`jax.lax.map`) on the axis scanned."""
    params = op.params
    if "num_consts" not in params:
        return [SHARED] * len(op.inputs)
    consts, carried = params["num_consts"], params["num_carry"]
    body = _program(params["jaxpr"])
    carry, stacked = list(axes[:carried]), list(axes[carried:])
    if 0 in stacked:  # one example after the other
        alone = carried == 0 and params["length"] == size and {*stacked} <= {0, None}
        shared: list[Axis] = [SHARED] * len(op.inputs)
        return [*shared[:consts], *[0] * len(shared[consts:])] if alone else shared
    slices = [axis - 1 if isinstance(axis, int) else axis for axis in stacked]
    while True:
        found = input_axes(body, [*carry, *slices], size, derivative=derivative)
        joined = [
            _join(a, b)
            for a, b in zip(carry, found[consts : consts + carried], strict=True)
        ]
        if joined == carry:
            break
        carry = joined
    xs = [
        axis + 1 if isinstance(axis, int) else axis
        for axis in found[consts + carried :]
    ]
    return [*found[:consts], *carry, *xs]


def _join(*axes: Axis) -> Axis:
    used = {axis for axis in axes if axis is not None}
    if len(used) > 1:
        return SHARED
    return used.pop() if used else None


def _custom_jvp(op: Op, axes: Sequence[Axis], size: int) -> list[Axis]:
    """The rule must keep examples apart as the function does."""
    inexact = [jnp.issubdtype(_dtype(a), jnp.inexact) for a in op.inputs]

    def tangents(operands, directions):
        def fun(*some):
            some_left = iter(some)
            full = [
                next(some_left) if d else x
                for x, d in zip(operands, inexact, strict=True)
            ]
            return op.bind(*full)

        at = [x for x, d in zip(operands, inexact, strict=True) if d]
        outputs, moved = jax.jvp(fun, at, directions)
        return outputs, [
            t if jnp.issubdtype(x.dtype, jnp.inexact) else x
            for x, t in zip(outputs, moved, strict=True)
        ]

    shapes = _abstract(op.inputs)
    directions = [s for s, d in zip(shapes, inexact, strict=True) if d]
    program, _ = trace(tangents, shapes, directions)
    found = input_axes(program, [*axes, *axes], size, derivative=False)
    operands, moved = found[: len(shapes)], iter(found[len(shapes) :])
    return [
        _join(axis, next(moved)) if d else axis
        for axis, d in zip(operands, inexact, strict=True)
    ]


def _custom_vjp(op: Op, axes: Sequence[Axis], size: int) -> list[Axis] | None:
    """The backward rule must keep examples apart as the function does."""
    inexact = [jnp.issubdtype(_dtype(a), jnp.inexact) for a in op.inputs]
    if not all(jnp.issubdtype(v.dtype, jnp.inexact) for v in op.outputs):
        return None
    body = _program(op.params["call_jaxpr"])
    operands = input_axes(body, axes, size, derivative=False)

    def cotangents(operands, outer):
        _, pullback = jax.vjp(op.bind, *operands)
        inner = pullback(outer)
        return [x for x, d in zip(inner, inexact, strict=True) if d]

    shapes = _abstract(op.inputs)
    program, _ = trace(cotangents, shapes, tuple(_abstract(op.outputs)))
    wanted = [axis for axis, d in zip(operands, inexact, strict=True) if d]
    rows = [axis if isinstance(axis, int) else None for axis in wanted]
    found = input_axes(program, rows, size, derivative=False)
    apart = all(
        f is None or f == a
        for f, a in zip(found, [*operands, *axes], strict=True)
        if a is not SHARED
    )
    return operands if apart else None


def _dtype(atom: Any) -> Any:
    return atom.dtype if isinstance(atom, Value) else atom.aval.dtype


def _abstract(atoms: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape_of(a), _dtype(a)) for a in atoms]


_CALLS: dict[str, Callable[[Op, Sequence[Axis], int, bool], list[Axis]]] = {
    "checkpoint": _checkpoint,
    "remat": _checkpoint,
    "remat2": _checkpoint,
    "cond": _cond,
    "scan": _scan,
}
# Functions with derivatives of their own, which are checked with them.
_CUSTOM: dict[str, Callable[[Op, Sequence[Axis], int], list[Axis] | None]] = {
    "custom_jvp_call": _custom_jvp,
    "custom_vjp_call": _custom_vjp,
}
