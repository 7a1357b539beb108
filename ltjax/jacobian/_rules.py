"""Which axis of an operand holds the examples, given that axis of the results.

An axis ``k`` of size ``m * B`` holds the examples of an array if its ``i``-th block of
``m`` entries belongs to example ``i``. A rule answers for one primitive: the entries of
the results that belong to example ``i`` depend on no more than the entries that belong
to ``i`` on the given axis of each operand, and on the whole of the operands marked
`SHARED`. A rule that cannot show this answers `SHARED`; a primitive without a rule is
not known to keep examples apart.

On an `Interleaved` axis examples take turns instead of lying in blocks.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from ltjax.jacobian._constants import Constants
from ltjax.jacobian._jaxpr import Op, shape_of

SHARED: Final = "shared"
BOTH: Final = "both"  # of examples in one use, and needed whole in another one


class Interleaved(int):
    """An axis of size ``m * B`` whose entry ``e`` belongs to example ``e % B``.

    So lie two views of a batch that were concatenated, and the steps of a sequence when
    time comes before examples and both are made one axis.
    """

    __slots__ = ()

    def __eq__(self, other):
        return isinstance(other, Interleaved) and int(self) == int(other)

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash((Interleaved, int(self)))

    def __add__(self, other):
        return Interleaved(int(self) + other)

    def __sub__(self, other):
        return Interleaved(int(self) - other)


Axis = int | str | None  # None: the value is not used
Rule = Callable[["Question"], Sequence[Axis] | None]

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
        "clz",
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
    """An operation, and the batch axes of its results.

    Attributes:
      op: the operation, with its ``params``.
      axes: batch axes of the results, of which at least one is an axis.
      axis: the batch axis of the only result, or that of all results.
      size: number of examples.
      constants: known integers among the operands.
      shapes: shapes of the operands.
      shape: shape of the first result.
      inner: ``(program, axes of its outputs, values) -> axes of its inputs``, for
        operations that hold programs; ``size`` and ``alike`` may be given too.
      values: whether only values must keep examples apart, not derivatives. The two
        differ in functions with derivatives of their own.
      alike: in a program of each device, the axes of the mesh along which devices are
        known to have the same examples.
    """

    def __init__(
        self,
        op: Op,
        axes: Sequence[Axis],
        size: int,
        constants: Constants,
        inner: Callable[..., list[Axis]],
        *,
        values: bool,
        alike: frozenset[str] = frozenset(),
    ):
        self.op = op
        self.params = op.params
        self.axes = axes
        self.axis: Any = join(*axes)
        self.size = size
        self.constants = constants
        self.inner = inner
        self.values = values
        self.alike = alike
        self.shapes = [shape_of(a) for a in op.inputs]
        self.shape = op.outputs[0].shape

    def all(self, axis: Axis) -> list[Axis]:
        """The same axis for every operand."""
        return [axis] * len(self.shapes)


def join(*axes: Axis) -> Axis:
    """The axis that several uses agree on, `SHARED` where they do not."""
    used = {axis for axis in axes if axis is not None}
    if BOTH in used:
        return BOTH
    if len(used) > 1:
        return SHARED
    return used.pop() if used else None


_RULES: dict[str, Rule] = {}
_MIXED: set[str] = set()
_REGROUPING = frozenset(["reshape", "concatenate", "slice", "split"])


def rule(*names: str, mixed: bool = False) -> Callable[[Rule], Rule]:
    """Registers a rule for primitives.

    Args:
      *names: names of the primitives.
      mixed: whether the rule is also asked where results are shared or differ in their
        batch axes; it is not by default, and all operands are shared then.
    """

    def register(fun: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, fun))
        if mixed:
            _MIXED.update(names)
        return fun

    return register


def names() -> list[str]:
    """Primitives that have a rule."""
    return sorted(_RULES)


def answer(question: Question) -> list[Axis] | None:
    """Batch axes of the operands, or None if examples are not known to stay apart."""
    found = _RULES.get(question.op.name)
    if found is None:
        return None
    if question.axis == SHARED and question.op.name not in _MIXED:
        return question.all(SHARED)
    entrywise = question.op.name not in _MIXED | _REGROUPING
    if isinstance(question.axis, Interleaved) and entrywise:
        return _interleaved(question, found)
    axes = found(question)
    return None if axes is None else [_as_axis(axis) for axis in axes]


def _as_axis(axis: Axis) -> Axis:
    if axis is None or isinstance(axis, str | Interleaved):
        return axis
    return int(axis)  # JAX leaves NumPy's integers in what it says of mapped scatters


def _interleaved(question: Question, found: Rule) -> list[Axis] | None:
    """The answer of a rule that follows entries one by one, whoever they belong to."""
    plain = copy.copy(question)
    plain.axis = int(question.axis)
    plain.axes = [int(a) if isinstance(a, Interleaved) else a for a in question.axes]
    if question.op.name == "conv_general_dilated":
        numbers = question.params["dimension_numbers"]
        if plain.axis != numbers.out_spec[0]:  # groups of features are blocks
            return question.all(SHARED)
    axes = found(plain)
    if axes is None:
        return None
    return [a if a in (None, SHARED) else Interleaved(int(a)) for a in axes]


@rule(*ELEMENTWISE)
def _elementwise(q: Question) -> list[Axis]:
    same = (len(s) == len(q.shape) and s[q.axis] == q.shape[q.axis] for s in q.shapes)
    return [q.axis if s else SHARED for s in same]


@rule("optimization_barrier", mixed=True)
def _one_by_one(q: Question) -> list[Axis]:
    """Results are the operands, one by one."""
    return list(q.axes)


@rule("broadcast_in_dim")
def _broadcast_in_dim(q: Question) -> list[Axis]:
    axes = q.all(SHARED)
    where = q.params["broadcast_dimensions"]
    if q.axis in where:
        axis = where.index(q.axis)
        if q.shapes[0][axis] == q.shape[q.axis]:
            axes[0] = axis
    return axes


@rule("sharding_constraint", "reshard", "pvary", "pcast", "mesh_cast")
def _placed(q: Question) -> list[Axis]:
    """Where an array lies does not change its entries."""
    return [q.axis]


@rule("psum", "psum_invariant", "pmax", "pmin", "ppermute", "all_gather")
def _collective(q: Question) -> list[Axis] | None:
    """Devices with the same examples may exchange what they have of them."""
    if not q.op.exchanges_along <= q.alike:
        return None
    gathered = q.params.get("all_gather_dimension")
    if gathered is None or (q.params["tiled"] and q.axis != gathered):
        return [q.axis]
    return [SHARED if q.axis == gathered else q.axis - (q.axis > gathered)]


@rule("tile")
def _tile(q: Question) -> list[Axis]:
    return [q.axis if q.params["reps"][q.axis] == 1 else SHARED]


@rule(
    *("cholesky", "eig", "eigh", "householder_product", "lu", "qr", "svd"),
    *("triangular_solve", "tridiagonal_solve"),
)
def _matrices(q: Question) -> list[Axis]:
    """One matrix after the other; the last two axes are theirs."""
    return q.all(q.axis if q.axis < max(map(len, q.shapes)) - 2 else SHARED)


@rule("reshape")
def _reshape(q: Question) -> list[Axis]:
    if q.params.get("dimensions") is not None:
        return [SHARED]
    if not isinstance(q.axis, Interleaved):
        axis = _major_axis(q.shapes[0], q.shape, q.axis, q.size)
        if axis is not SHARED or not _takes_turns(q):
            return [axis]
    return [_minor_axis(q.shapes[0], q.shape, q.axis, q.size)]


def _major_axis(
    source: tuple[int, ...], result: tuple[int, ...], axis: int, size: int
) -> Axis:
    """Axis of the source whose major part is that of ``axis`` of the result."""
    before = math.prod(result[:axis])
    for k in range(len(source)):
        if math.prod(source[:k]) == before and source[k] % size == 0:
            return k
    return SHARED


def _minor_axis(
    source: tuple[int, ...], result: tuple[int, ...], axis: int, size: int
) -> Axis:
    """Axis of the source whose minor part is that of ``axis`` of the result."""
    after = math.prod(result[axis + 1 :])
    for k in range(len(source)):
        if math.prod(source[k + 1 :]) == after and source[k] % size == 0:
            return _turns(k, source[k], size)
    return SHARED


def _takes_turns(q: Question) -> bool:
    """Whether entry ``e`` of the result's axis belongs to example ``e % B``."""
    return isinstance(q.axis, Interleaved) or q.shape[q.axis] == q.size


def _turns(axis: int, length: int, size: int) -> Axis:
    """An axis of that length on which examples take turns."""
    return axis if length == size else Interleaved(axis)


@rule("squeeze")
def _squeeze(q: Question) -> list[Axis]:
    ndim = len(q.shapes[0])
    gone = {d % ndim for d in q.params["dimensions"]}
    return [[k for k in range(ndim) if k not in gone][q.axis]]


@rule("transpose")
def _transpose(q: Question) -> list[Axis]:
    return [q.params["permutation"][q.axis]]


@rule(
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"),
    *("reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin"),
)
def _reduce(q: Question) -> list[Axis]:
    kept = [k for k in range(len(q.shapes[0])) if k not in q.params["axes"]]
    return [kept[q.axis]]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(q: Question) -> list[Axis]:
    return [q.axis if q.axis != q.params["axis"] else SHARED]


@rule("split")
def _split(q: Question) -> list[Axis]:
    along, whole = q.params["axis"], q.shapes[0]
    if int(q.axis) != along:
        return [q.axis]
    even = all(length % q.size == 0 for length in q.params["sizes"])
    return [_turns(along, whole[along], q.size) if even and _takes_turns(q) else SHARED]


@rule("sort", "top_k", "approx_top_k")
def _along_one_axis(q: Question) -> list[Axis]:
    names = ("dimension", "axis", "reduction_dimension")
    along = next((q.params[name] for name in names if name in q.params), -1)
    along %= len(q.shapes[0])
    return q.all(q.axis if q.axis != along else SHARED)


@rule("unstack")
def _unstack(q: Question) -> list[Axis]:
    return [q.axis + (q.axis >= q.params["axis"])]


@rule("stack")
def _stack(q: Question) -> list[Axis]:
    along = q.params["axis"]
    return q.all(SHARED if q.axis == along else q.axis - (q.axis > along))


@rule("dot_general")
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


@rule("conv_general_dilated")
def _conv(q: Question) -> list[Axis]:
    numbers, groups = q.params["dimension_numbers"], q.params["feature_group_count"]
    if q.params["batch_group_count"] != 1:
        return [SHARED, SHARED]
    if q.axis == numbers.out_spec[0]:
        return [numbers.lhs_spec[0], SHARED]
    if q.axis == numbers.out_spec[1]:
        # A group of kernels sees its own group of input features.
        grouped = groups % q.size == 0
        return [numbers.lhs_spec[1] if grouped else SHARED, numbers.rhs_spec[0]]
    return [SHARED, SHARED]


@rule("pad")
def _pad(q: Question) -> list[Axis]:
    untouched = tuple(q.params["padding_config"][q.axis]) == (0, 0, 0)
    return [q.axis if untouched else SHARED, SHARED]


@rule("slice")
def _static_slice(q: Question) -> list[Axis]:
    """Slices that leave the batch axis whole, or whole turns of it."""
    k, (source,) = int(q.axis), q.shapes
    if source[k] == q.shape[k]:
        return [q.axis]
    start, strides = q.params["start_indices"][k], q.params["strides"]
    even = start % q.size == source[k] % q.size == 0 and (
        not strides or strides[k] == 1
    )
    return [_turns(k, source[k], q.size) if even and _takes_turns(q) else SHARED]


@rule("dynamic_slice")
def _slice(q: Question) -> list[Axis]:
    """Slices that leave the batch axis whole; positions are shared."""
    axes = q.all(SHARED)
    if q.shapes[0][q.axis] == q.shape[q.axis]:
        axes[0] = q.axis
    return axes


@rule("dynamic_update_slice")
def _dynamic_update_slice(q: Question) -> list[Axis]:
    axes = q.all(SHARED)
    if q.shapes[1][q.axis] == q.shape[q.axis]:
        axes[0] = axes[1] = q.axis
    return axes


@rule("concatenate")
def _concatenate(q: Question) -> list[Axis]:
    k = int(q.axis)
    if q.params["dimension"] != k:
        return q.all(q.axis)
    lengths = [s[k] for s in q.shapes]
    if isinstance(q.axis, Interleaved) and all(n % q.size == 0 for n in lengths):
        return [_turns(k, n, q.size) for n in lengths]
    return q.all(SHARED)


@rule("rev")
def _rev(q: Question) -> list[Axis]:
    return [q.axis if q.axis not in q.params["dimensions"] else SHARED]


@rule("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _reduce_window(q: Question) -> list[Axis]:
    k, params = q.axis, q.params
    apart = (
        params["window_dimensions"][k] == params["window_strides"][k] == 1
        and tuple(params["padding"][k]) == (0, 0)
        and params["base_dilation"][k] == params["window_dilation"][k] == 1
    )
    return [q.axis if apart else SHARED]


@rule("fft")
def _fft(q: Question) -> list[Axis]:
    apart = q.axis < len(q.shape) - len(q.params["fft_lengths"])
    return [q.axis if apart else SHARED]


@rule("gather")
def _gather(q: Question) -> list[Axis]:
    numbers, sizes = q.params["dimension_numbers"], q.params["slice_sizes"]
    operand = q.shapes[0]
    if q.axis in numbers.offset_dims:
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [k for k in range(len(operand)) if k not in gone]
        k = kept[numbers.offset_dims.index(q.axis)]
        return [k if sizes[k] == operand[k] else SHARED, SHARED]
    looked_up = [k for k in range(len(q.shape)) if k not in numbers.offset_dims]
    position = looked_up.index(q.axis)
    batching = numbers.start_indices_batching_dims
    if position in batching:
        k = numbers.operand_batching_dims[batching.index(position)]
        return [k, position]
    counted = _counted_axis(q, position, numbers.start_index_map)
    single = counted in numbers.collapsed_slice_dims  # and not a window from there
    return [counted if single else SHARED, position]


@rule(
    *("scatter", "scatter-add", "scatter-sub", "scatter-mul"),
    *("scatter-min", "scatter-max", "scatter_add"),
)
def _scatter(q: Question) -> list[Axis]:
    numbers = q.params["dimension_numbers"]
    operand, indices, updates = q.shapes
    scattered = [k for k in range(len(updates)) if k not in numbers.update_window_dims]
    if q.axis in numbers.operand_batching_dims:
        position = numbers.scatter_indices_batching_dims[
            numbers.operand_batching_dims.index(q.axis)
        ]
        return [q.axis, position, scattered[position]]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [k for k in range(len(operand)) if k not in gone]
    if q.axis in window:
        axis = numbers.update_window_dims[window.index(q.axis)]
        whole = updates[axis] == operand[q.axis]
        return [q.axis, SHARED, axis] if whole else q.all(SHARED)
    for position in range(len(indices) - 1):
        targets = numbers.scatter_dims_to_operand_dims
        if _counted_axis(q, position, targets) == q.axis:
            return [q.axis, position, scattered[position]]
    return q.all(SHARED)


def _counted_axis(q: Question, position: int, targets: Sequence[int]) -> Axis:
    """Axis of the operand whose entry ``i`` alone is read by entry ``i`` of indices."""
    operand, indices = q.shapes[:2]
    for component, target in enumerate(targets):
        same = operand[target] == indices[position]
        if same and q.constants.counts(q.op.inputs[1], position, component):
            return target
    return SHARED
