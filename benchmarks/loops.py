"""FLOPs and memory of products through a scanned transformer, with checkpoints or not.

    python -m benchmarks.loops

Six blocks of width 192 on 64 examples of 65 tokens, as in the ViT of `benchmarks.cost`,
under one `jax.lax.scan`. The figures are the compiler's, as ratios to the plain
gradient of the same model. The compiler counts the body of a loop once. That leaves
the ratios as they are, because all loops here have six iterations and nothing is
outside of them. Of a condition it counts the dearer branch: norms include the direct
form, which is taken only where a row cancels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import ltjax
from benchmarks.targets import LOOPS, Target


class Size(NamedTuple):
    """The transformer and its batch."""

    blocks: int = 6
    batch: int = 64
    tokens: int = 65
    width: int = 192
    heads: int = 3


def make_params(key: jax.Array, size: Size):
    """Parameters of all blocks, stacked."""
    d = size.width
    shapes = {
        "qkv": (d, 3 * d),
        "qkv_bias": (3 * d,),
        "out": (d, d),
        "out_bias": (d,),
        "up": (d, 4 * d),
        "up_bias": (4 * d,),
        "down": (4 * d, d),
        "down_bias": (d,),
        "scales": (2, d),
    }
    keys = jax.random.split(key, len(shapes))
    return {
        name: 0.05 * jax.random.normal(k, (size.blocks, *shape))
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def losses_of(params, x: jax.Array, heads: int, *, checkpoint: bool) -> jax.Array:
    """One loss per example: the mean square of the last tokens."""

    def block(h, p):
        return _block(heads, h, p), None

    step = jax.checkpoint(block, prevent_cse=False) if checkpoint else block
    h, _ = lax.scan(step, x, params)
    return jnp.square(h).mean((1, 2))


def _block(heads, h, p):
    batch, tokens, width = h.shape
    n = _normalise(h) * p["scales"][0]
    qkv = (n @ p["qkv"] + p["qkv_bias"]).reshape(batch, tokens, 3, heads, -1)
    attended = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0))
    h = h + attended.reshape(batch, tokens, width) @ p["out"] + p["out_bias"]
    n = _normalise(h) * p["scales"][1]
    return h + jax.nn.gelu(n @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"]


def _normalise(h):
    centred = h - h.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)


def measure(size: Size, *, checkpoint: bool) -> dict[str, tuple[float, int]]:
    """FLOPs and bytes of temporary memory of every step."""
    keys = jax.random.split(jax.random.key(0))
    params = make_params(keys[0], size)
    x = jax.random.normal(keys[1], (size.batch, size.tokens, size.width))

    def linearize(p):
        return ltjax.linearize(
            lambda p: losses_of(p, x, size.heads, checkpoint=checkpoint), p
        )

    def plain(p, v):
        return jax.grad(
            lambda p: losses_of(p, x, size.heads, checkpoint=checkpoint).mean()
        )(p)

    def weighted(p, v):
        losses, jac = linearize(p)
        return jac.vjp(jax.nn.softmax(losses))

    def dots(p, v):
        _, jac = linearize(p)
        return jac.vjp(jac.jvp(v))

    def norms(p, v):
        _, jac = linearize(p)
        return jac.vjp(1 / jac.norms())

    found = {}
    for step in (plain, weighted, dots, norms):
        compiled: Any = jax.jit(step).lower(params, params).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        found[step.__name__] = compiled.cost_analysis()["flops"], memory
    return found


def main() -> None:
    for checkpoint in (False, True):
        name = "checkpoint" if checkpoint else "scan"
        found = measure(Size(), checkpoint=checkpoint)
        flops, memory = found["plain"]
        for step, (f, m) in found.items():
            target = LOOPS.get((name, step), Target())
            print(
                f"{name:10} {step:9} FLOPs {f / flops:.2f}{_bound(target.flops)}"
                f"  memory {m / memory:.2f}{_bound(target.memory)}"
            )


def _bound(target: float | None) -> str:
    return "" if target is None else f" (<= {target})"


if __name__ == "__main__":
    main()
