"""Operations by name, and how one of them is drawn."""

from collections.abc import Callable

from tests.jacobian.programs.source import Reject, Scope

OPERATIONS: dict[str, tuple[float, Callable[[Scope], object]]] = {}


def operation(weight: float = 1.0):
    def register(fun):
        OPERATIONS[fun.__name__] = (weight, fun)
        return fun

    return register


def draw(s: Scope) -> None:
    """Adds one operation, whichever can be added."""
    names = sorted(OPERATIONS)
    weights = [OPERATIONS[n][0] for n in names]
    for name in s.rng.choices(names, weights, k=50):
        try:
            with s.attempt():
                OPERATIONS[name][1](s)
        except Reject:
            continue
        return
    raise Reject
