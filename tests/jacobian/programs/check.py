"""One program held to dense rows: right, refused, wrong or crashed."""

import random
import traceback
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import ltjax
from tests.jacobian.programs import networks, rules
from tests.jacobian.programs.evaluate import evaluate
from tests.jacobian.programs.source import Program, namespace

DEFINITIONS = ("frozen", "attribution")


class Unfit(Exception):
    """JAX itself cannot differentiate the program, or its rows say nothing."""


class Outcome(NamedTuple):
    """What became of one program."""

    method: str
    refused: dict[str, str]  # product: message
    failed: dict[str, str]  # product: error, or the numbers

    @property
    def kind(self) -> str:
        if not self.failed:
            return "refused" if self.refused else "ok"
        crashed = any(not text.startswith("got") for text in self.failed.values())
        return "crash" if crashed else "wrong"


def check(
    program: Program, seed: Any, *, compiled: bool = False, mesh: Any = None
) -> Outcome:
    """All products with the Jacobian of a program, in an order of their own.

    Args:
      program: the program.
      seed: which products, in which order.
      compiled: by XLA rather than by NumPy.
      mesh: devices to spread the examples over, which needs XLA; the reference stays
        on one device.

    What fails where float32 tells no rows, by plain JAX either, is checked in float64.

    Raises:
      Unfit: if there is nothing to compare with.
    """
    trial = _Trial(program, random.Random(f"check {seed}"))

    def both(params):
        return _reference(program, params), trial.products(program.function(), params)

    params = program.values()
    try:
        if mesh is not None:
            want = evaluate(lambda p: _reference(program, p), params)
            got = _sharded(trial, params, mesh)
        else:
            want, got = jax.jit(both)(params) if compiled else evaluate(both, params)
    except Unfit:
        raise
    except Exception as error:  # what JAX finds out as late as when it lowers
        trial.failed["run"] = _describe(error)
        return trial.outcome()
    told = _told(want)
    _compare(trial, told, got)
    if trial.failed and program.single and _ill_conditioned(program, told["row"]):
        return check(_widened(program), seed, compiled=compiled, mesh=mesh)
    return trial.outcome()


class _Trial:
    """What is asked about a program, and what came of it."""

    def __init__(self, program: Program, rng: random.Random):
        self.program = program
        self.method = rng.choice(["auto", "auto", "auto", "intercept", "linearize"])
        self.keep = {k: rng.random() < 0.5 for k in program.params}
        self.direction = {
            k: np.cos(3 * np.asarray(v) + i).astype(v.dtype)
            for i, (k, v) in enumerate(program.values().items())
        }
        names = ["vjp", "again", "jvp", "norms", "dense", "masked jvp", "masked norms"]
        if program.network:
            names += [f"{d} {x}" for d in DEFINITIONS for x in ("jvp", "norms")]
        self.order = rng.sample(names, len(names))
        self.used = "none"
        self.refused: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def outcome(self) -> Outcome:
        return Outcome(f"{self.method} -> {self.used}", self.refused, self.failed)

    def products(self, fun, params):
        """Everything that does not fail; what does is noted."""
        made = self._attempt(
            "linearize", lambda: ltjax.linearize(fun, params, method=self.method)
        )
        if made is None:
            return {}
        losses, jac = made
        self.used = jac.method
        ways = self._ways(jac)
        got = {name: self._attempt(name, ways[name]) for name in self.order}
        return {"losses": losses} | {k: v for k, v in got.items() if v is not None}

    def _ways(self, jac):
        w, v = weights(self.program), self.direction
        masked = {k: x if self.keep[k] else optax.MaskedNode() for k, x in v.items()}
        ways = {
            "vjp": lambda: jac.vjp(w),
            "again": lambda: jac.vjp(w),
            "jvp": lambda: jac.jvp(v),
            "masked jvp": lambda: jac.jvp(masked),
            "norms": lambda: jac.norms(definition="row"),
            "masked norms": lambda: jac.norms(
                definition="row", mask=self.keep, chunk_size=2
            ),
            "dense": lambda: jac.dense(),
        }
        for d in DEFINITIONS:
            ways[f"{d} jvp"] = lambda d=d: jac.jvp(v, definition=d)
            ways[f"{d} norms"] = lambda d=d: jac.norms(definition=d)
        return ways

    def _attempt(self, name, product):
        try:
            return product()
        except Exception as error:
            (self.refused if _is_refusal(error) else self.failed)[name] = _describe(
                error
            )
            return None


def _sharded(trial: _Trial, params: Any, mesh: Any) -> dict[str, Any]:
    """Products of a program whose data lie on several devices, by example."""
    usual = namespace(trial.program.single)["data"]
    places = set()

    def noted(*place):
        places.add(place)
        return usual(*place)

    jax.eval_shape(trial.program.function(data=noted), params)
    constants = {str(place): usual(*place) for place in places}
    whole = NamedSharding(mesh, PartitionSpec())
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    placed = {
        k: jax.device_put(x, by_example if len(x) == trial.program.batch else whole)
        for k, x in constants.items()
    }

    @jax.jit
    def products(params, placed):
        fun = trial.program.function(data=lambda *place: placed[str(place)])
        return trial.products(fun, params)

    return products(jax.device_put(params, whole), placed)


def weights(program: Program) -> np.ndarray:
    dtype = np.float32 if program.single else np.float64
    return (np.linspace(-1, 2, program.batch) + 0.3).astype(dtype)


def _widened(program: Program) -> Program:
    """The same program in float64."""
    lines = tuple(line.replace("float32", "float64") for line in program.lines)
    return program._replace(single=False, lines=lines)


def _ill_conditioned(program: Program, rows: np.ndarray) -> bool:
    """Whether plain JAX's own rows are off in float32, so that none can be told."""
    wide = _widened(program)
    want = evaluate(lambda p: _reference(wide, p), wide.values())
    exact = _flat(want["row"], True)
    return bool(np.abs(rows - exact).max() > _close(program) * np.abs(exact).max())


def nonlinear(program: Program) -> bool:
    """Whether some rule is not linear in its cotangents."""
    text = "\n".join(program.lines)
    return any(f"rules.{name}(" in text for name in rules.NONLINEAR)


def _reference(program: Program, params: Any) -> dict[str, Any]:
    """Losses, dense rows by all definitions and the weighted gradient by plain JAX."""
    try:
        losses, pullback = jax.vjp(program.function(), params)
        basis = jnp.eye(program.batch, dtype=losses.dtype)
        found = {
            "losses": losses,
            "row": jax.vmap(pullback)(basis)[0],
            "vjp": pullback(weights(program))[0],
        }
        if program.network:
            found["frozen"] = jax.vmap(jax.vjp(networks.frozen(program), params)[1])(
                basis
            )[0]
            found["attribution"] = networks.attribution(program, params)
        return found
    except Exception as error:
        raise Unfit(f"JAX: {str(error)[:80]}") from error


def _told(want: dict[str, Any]) -> dict[str, np.ndarray]:
    """The reference as flat arrays, if they say something."""
    found = {
        k: _flat(x, k not in ("losses", "vjp")) if k != "losses" else np.asarray(x)
        for k, x in want.items()
    }
    if not all(np.isfinite(x).all() for x in found.values()):
        raise Unfit("not finite")
    if not 1e-6 < np.max(np.abs(found["row"]), initial=0) < 1e5:
        raise Unfit("rows are zero or large")
    return found


def _compare(trial: _Trial, want: dict[str, np.ndarray], got: dict[str, Any]) -> None:
    v = _flat(trial.direction, False)
    kept = {k: np.full(x.shape, trial.keep[k]) for k, x in trial.direction.items()}
    some = _flat(kept, False)
    rows = want["row"]
    expected = {
        "losses": want["losses"],
        "vjp": want["vjp"],
        "again": want["vjp"],
        "jvp": rows @ v,
        "masked jvp": rows @ (v * some),
        "norms": np.linalg.norm(rows, axis=1),
        "masked norms": np.linalg.norm(rows * some, axis=1),
        "dense": rows,
    }
    for d in set(DEFINITIONS) & set(want):
        expected[f"{d} jvp"] = want[d] @ v
        expected[f"{d} norms"] = np.linalg.norm(want[d], axis=1)
    for name, value in got.items():
        text = _differs(
            trial.program, _flat(value, name == "dense"), expected[name], rows
        )
        if text and name in ("vjp", "again") and nonlinear(trial.program):
            summed = (
                weights(trial.program) @ rows
            )  # an answer too, if it is the only one
            text = _differs(trial.program, _flat(value, False), summed, rows)
        if text:
            trial.failed[name] = text


def _flat(tree: Any, rows: bool) -> np.ndarray:
    """Leaves of a tree side by side, row by row or all in one."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
    return np.concatenate(
        [x.reshape(len(x), -1) if rows else x.ravel() for x in leaves], -1
    )


def _differs(program: Program, got, want, rows) -> str:
    """The numbers, if they are not what they should be."""
    close = _close(program)
    scale = close * np.abs(rows).max()
    if got.shape == want.shape and np.allclose(got, want, rtol=close, atol=scale):
        return ""
    with np.printoptions(precision=4, suppress=True):
        return f"got {got.ravel()[:6]} want {want.ravel()[:6]}"


def _close(program: Program) -> float:
    """Relative error that is allowed."""
    narrow = program.single or "float32" in "\n".join(program.lines)
    return 2e-3 if narrow else 1e-7


def _is_refusal(error: Exception) -> bool:
    """Whether the library itself says no, in words."""
    if not isinstance(error, ValueError) or str(error).startswith("zip("):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "/ltjax/" in last.filename


def _describe(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = [f for f in frames if "/ltjax/" in f.filename]
    where = (
        f" ({last[-1].filename.rpartition('/')[2]}:{last[-1].lineno})" if last else ""
    )
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"
