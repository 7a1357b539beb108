"""Programs split into what is shared and what belongs to single examples."""

from collections.abc import Iterable, Sequence

from ltjax.jacobian._calls import shard_block
from ltjax.jacobian._flow import active_values, follow_examples, is_active
from ltjax.jacobian._jaxpr import Op, Program, Value, bodies, closed, nested, scan_sizes
from ltjax.jacobian._loops import unroll
from ltjax.jacobian._parts import Loop, Part, Tap
from ltjax.jacobian._rules import SHARED, Axis, Interleaved

_CHECKPOINTS = frozenset(["checkpoint", "remat", "remat2"])


def split(
    program: Program,
    size: int,
    active: frozenset[Value],
    shared: Sequence[int],
    results: Sequence[Axis],
    frozen: frozenset[Op] = frozenset(),
) -> Part:
    """Finds the taps of a program.

    Args:
      program: the program.
      size: number of examples.
      active: values with a derivative with respect to the parameters.
      shared: positions of the inputs that belong to no example.
      results: batch axes of the outputs.
      frozen: operations whose results count as constants.
    """
    inputs = {program.inputs[i]: frozenset([i]) for i in shared}
    flow = follow_examples(program, size, active, frozenset(inputs), results)
    made_of = {v: i for v, i in inputs.items() if v in active}
    taps: dict[Op, Tap] = {}
    loops: dict[Op, Loop] = {}
    shared_ops: list[Op] = []
    for op, edges in reversed(list(flow.edges.items())):
        found = {
            j: flow.axes[v]
            for j, v in enumerate(op.outputs)
            if v in active and flow.axes.get(v) is not None
        }
        operands = {
            j: a
            for j, a in enumerate(op.inputs)
            if isinstance(a, Value) and made_of.get(a) and edges[j] is not None
        }
        if SHARED in found.values():
            parameters = frozenset[int]().union(
                *(made_of[v] for v in operands.values())
            )
            made_of |= {op.outputs[j]: parameters for j in found}
            if parameters:
                shared_ops.append(op)
        elif found and operands:
            tap = Tap(op, operands, tuple(edges), found)  # type: ignore[arg-type]
            body = _body_of_scan(tap, size, active)
            if body is None:
                taps[op] = _with_parts(tap, size, active)
                continue
            loops[op] = loop = unroll(op, body, made_of)
            taps.update((t.op, t) for t in loop.taps)
            made_of = dict(loop.made_of)
            shared_ops += loop.shared_ops
    return Part(
        program=program,
        size=size,
        frozen=frozen,
        active=active,
        flow=flow,
        taps=taps,
        shared_ops=tuple(shared_ops),
        made_of=made_of,
        loops=loops,
        probes=_probes(program, taps.values(), frozen),
    )


def _probes(
    program: Program, taps: Iterable[Tap], frozen: frozenset[Op]
) -> dict[Value, Value]:
    """For each result of a tap, the last value that has the same cotangents.

    A layer's bias is added to its product: one array serves both.
    """
    uses: dict[Value, list[Op | None]] = {}
    for op in program.ops:
        for v in op.values:
            uses.setdefault(v, []).append(op)
    for a in program.outputs:
        if isinstance(a, Value):
            uses.setdefault(a, []).append(None)

    def last(value):
        (op, *others) = uses.get(value, [None])
        if op is None or others or op in frozen or op.name not in ("add", "add_any"):
            return value
        (total,) = op.outputs
        return last(total) if total.aval == value.aval else value

    results = [tap.op.outputs[j] for tap in taps for j in tap.results]
    return {v: last(v) for v in results}


def _body_of_scan(tap: Tap, size: int, active: frozenset[Value]) -> Part | None:
    """The body of a scan, if all taps in it can be seen from outside."""
    op = tap.op
    sizes = scan_sizes(op) if op.name == "scan" else None
    if sizes is None:
        return None
    consts, carried = sizes
    last = consts + carried
    results = [tap.results.get(j) for j in range(len(op.outputs))]
    scanned = [*tap.axes[last:], *results[carried:]]
    if not {0, Interleaved(0)}.isdisjoint(scanned) or any(
        consts <= j < last for j in tap.operands
    ):
        return None  # one example after the other, or a carried parameter
    if op.params["length"] == 0:
        return None
    sliced = [axis - 1 if isinstance(axis, int) else axis for axis in scanned]
    ends = len(op.inputs) - last
    axes = [*tap.axes[:last], *sliced[:ends]]
    body = closed(op.params["jaxpr"])
    moved = [is_active(a, active) for a in op.inputs]
    while True:  # what is carried may become active on the way
        sources = [v for v, m in zip(body.inputs, moved, strict=True) if m]
        inside = active_values(body, sources)
        carried_on = [is_active(a, inside) for a in body.outputs[:carried]]
        joined = [a or b for a, b in zip(moved[consts:last], carried_on, strict=True)]
        if joined == moved[consts:last]:
            break
        moved[consts:last] = joined
    ends_of = [*axes[consts:last], *sliced[ends:]]
    return _independent(body, size, inside, sorted(tap.operands), axes, ends_of)


def _with_parts(tap: Tap, size: int, active: frozenset[Value]) -> Tap:
    """The tap with the programs in it, if examples stay apart in all of them."""
    op = tap.op
    if op.name == "cond":
        first, found = 1, op.params["branches"]
    elif op.name in _CHECKPOINTS or op.name == "shard_map":
        first, found = 0, [op.params["jaxpr"]]
    else:
        return tap
    results = [tap.results.get(j) for j in range(len(op.outputs))]
    if op.name == "shard_map":
        block = shard_block(op, results, size)
        if block is None or not _is_local(op, block[0]):
            return tap
        size = block[1]
    parts = []
    for program in map(closed, found):
        inputs = zip(program.inputs, op.inputs[first:], strict=True)
        inside = active_values(program, [v for v, a in inputs if is_active(a, active)])
        shared = [j - first for j in sorted(tap.operands)]
        part = _independent(program, size, inside, shared, tap.axes[first:], results)
        if part is None:
            return tap
        parts.append(part)
    return Tap(op, tap.operands, tap.axes, tap.results, tuple(parts))


def _is_local(op: Op, names: tuple[str, ...]) -> bool:
    """Whether the program of one device gives the rows of its examples.

    No device may have only a part of an example, or exchange values with others. Nor
    may a program inside make values vary: its derivative sums over devices.
    """
    shape, manual = op.params["mesh"].shape, op.params["newly_manual_axes"]
    if any(shape[name] > 1 for name in manual.difference(names)):
        return False
    (body,) = bodies(op)
    own = [o for o in body.ops if o.name != "pvary"]
    ops = [inner for o in own for inner in nested(o)]
    return not any(o.exchanges_along or o.name == "pvary" for o in ops)


def _independent(
    program: Program,
    size: int,
    active: frozenset[Value],
    shared: Sequence[int],
    axes: Sequence[Axis],
    results: Sequence[Axis],
) -> Part | None:
    """A program inside another one, split, if it keeps examples apart.

    Args:
      program: the program.
      size: number of examples.
      active: values with a derivative.
      shared: positions of the inputs that belong to no example.
      axes: batch axes of the inputs.
      results: batch axes of the outputs.
    """
    part = split(program, size, active, shared, results)
    flow = part.flow
    if flow.couplings or flow.unknown or flow.both:
        return None
    own = [i for i in range(len(axes)) if i not in shared]
    ends = [(program.inputs[i], axes[i]) for i in own]
    ends += [
        (a, axis)
        for a, axis in zip(program.outputs, results, strict=True)
        if isinstance(a, Value) and axis is not None
    ]
    for value, axis in ends:
        found = flow.axes.get(value)
        if found is not None and (found != axis or found is SHARED):
            return None
    return part
