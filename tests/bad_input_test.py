"""Bad input to the core and the gradient transformations is refused by name."""

import jax
import jax.numpy as jnp
import optax
import pytest

import ltjax
from tests.bad_input import (
    DENSE,
    KEY,
    PARAMS,
    B,
    C,
    Case,
    Y,
    Z,
    gdw,
    logits_fn,
    losses_fn,
    meta,
    step,
)

CASES = {
    # The core.
    "linearize scalar": Case(
        lambda: ltjax.linearize(lambda p: losses_fn(p).mean(), PARAMS),
        ValueError,
        "losses_fn .* scalar",
    ),
    "linearize nothing": Case(
        lambda: ltjax.linearize(lambda p: losses_fn(p)[:0], PARAMS),
        ValueError,
        r"losses_fn .*at least one loss.*\(0,\)",
    ),
    "linearize tuple": Case(
        lambda: ltjax.linearize(lambda p: (losses_fn(p), 1), PARAMS),
        TypeError,
        "losses_fn .* one array.*tuple",
    ),
    "linearize integer params": Case(
        lambda: ltjax.linearize(losses_fn, {**PARAMS, "b": jnp.arange(3)}),
        TypeError,
        r"params\['b'\] .*floating.*int32",
    ),
    "linearize integer losses": Case(
        lambda: ltjax.linearize(lambda p: losses_fn(p).astype(int), PARAMS),
        TypeError,
        "losses_fn .*floating.*int",
    ),
    "linearize method": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS, method="magic"),
        ValueError,
        "method must be one of .*'magic'",
    ),
    "examples uneven": Case(
        lambda: ltjax.linearize_examples(
            lambda p, e: p["b"].sum(), PARAMS, (jnp.ones(3), jnp.ones(4))
        ),
        ValueError,
        r"batch .*\(3,\).*\(4,\)",
    ),
    "examples empty": Case(
        lambda: ltjax.linearize_examples(
            lambda p, e: p["b"].sum(), PARAMS, jnp.ones((0, 2))
        ),
        ValueError,
        "batch must not be empty",
    ),
    "examples nothing": Case(
        lambda: ltjax.linearize_examples(lambda p, e: p["b"].sum(), PARAMS, ()),
        ValueError,
        "batch must hold",
    ),
    "examples not scalar": Case(
        lambda: ltjax.linearize_examples(lambda p, e: p["b"], PARAMS, jnp.ones(2)),
        ValueError,
        r"loss_fn must return a scalar.*\(3,\)",
    ),
    "jvp structure": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].jvp({"w": jnp.ones((2, 3))}),
        ValueError,
        "direction must have the structure",
    ),
    "jvp shape": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].jvp({**PARAMS, "b": jnp.ones(4)}),
        ValueError,
        r"direction\['b'\] .*\(3,\).*\(4,\)",
    ),
    "vjp shape": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].vjp(jnp.ones(B + 1)),
        ValueError,
        r"cotangents .*\(4,\).*\(5,\)",
    ),
    "vjp integers": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].vjp(jnp.ones(B, int)),
        TypeError,
        "cotangents .*floating.*int",
    ),
    "chunk size": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].dense(chunk_size=0),
        ValueError,
        "chunk_size must be at least 1, got 0",
    ),
    "mask values": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].norms(mask={"w": 1.0, "b": True}),
        TypeError,
        "mask must hold Python booleans, got 1.0",
    ),
    "mask structure": Case(
        lambda: ltjax.linearize(losses_fn, PARAMS)[1].norms(mask={"w": True}),
        ValueError,
        "mask must have the structure",
    ),
    "averaged gradient": Case(
        lambda: ltjax.Jacobian.from_rows(PARAMS, PARAMS, (B,)),
        ValueError,
        r"updates\['b'\] .*averaged gradient.*\(4, 3\)",
    ),
    "rows of another batch": Case(
        lambda: ltjax.Jacobian.from_rows(DENSE, PARAMS, (B + 1,)),
        ValueError,
        r"updates\['b'\] .*\(5, 3\).*\(4, 3\)",
    ),
    # ABSGD.
    "absgd zero": Case(lambda: ltjax.absgd(0.0), ValueError, "temperature .* 0"),
    "absgd nan": Case(
        lambda: ltjax.absgd(float("nan")), ValueError, "temperature .*finite.*nan"
    ),
    "absgd text": Case(lambda: ltjax.absgd("hot"), TypeError, "temperature .*'hot'"),
    "absgd gamma": Case(
        lambda: ltjax.absgd(1.0, gamma=1.5), ValueError, r"gamma .*\(0, 1\].*1.5"
    ),
    "absgd alpha": Case(
        lambda: ltjax.absgd(1.0, alpha=0.0), ValueError, r"alpha .*\(0, .*0.0"
    ),
    "absgd erm_weight": Case(
        lambda: ltjax.absgd(1.0, erm_weight=-1), ValueError, r"erm_weight .*-1"
    ),
    "absgd no losses": Case(
        lambda: ltjax.absgd(1.0).update(DENSE, ltjax.absgd(1.0).init(PARAMS), PARAMS),
        TypeError,
        "missing .*'losses'.*per-example gradients",
    ),
    "gdw no logits": Case(
        lambda: gdw().update(
            jax.tree.map(lambda p: jnp.ones((B, C, *p.shape)), PARAMS),
            gdw().init(PARAMS),
            PARAMS,
            labels=Y,
            meta_grad_fn=meta,
        ),
        TypeError,
        "missing .*'logits'.*per-example gradients",
    ),
    "weighted gradient of no weighting": Case(
        lambda: ltjax.weighted_value_and_grad(losses_fn, ltjax.losses.focal),
        TypeError,
        "weighting .*ltjax.absgd.*function",
    ),
    "microbatch size": Case(
        lambda: ltjax.linearize_microbatches(
            lambda p, x: x, PARAMS, Z, microbatch_size=3
        ),
        ValueError,
        "microbatch_size .*4.*3",
    ),
    "losses of another microbatch": Case(
        lambda: ltjax.linearize_microbatches(
            lambda p, x: x[0], PARAMS, Z, microbatch_size=2
        ),
        ValueError,
        r"losses_fn .*\(2, \.\.\.\).*\(3,\)",
    ),
    "absgd other batch": Case(
        lambda: step(ltjax.absgd(1.0), losses=jnp.ones(B + 1)),
        ValueError,
        r"losses .*\(4,\).*\(5,\)",
    ),
    "absgd rows of another batch": Case(
        lambda: ltjax.absgd(1.0).update(
            DENSE,
            ltjax.absgd(1.0).init(PARAMS),
            PARAMS,
            losses=jnp.ones(B + 1),
        ),
        ValueError,
        r"updates.*\(5, 3\).*\(4, 3\)",
    ),
    "absgd integer losses": Case(
        lambda: step(ltjax.absgd(1.0), losses=jnp.ones(B, int)),
        TypeError,
        "losses .*floating",
    ),
    # GradTail.
    "gradtail activation": Case(
        lambda: ltjax.gradtail(activation="bell"), ValueError, "activation .*'bell'"
    ),
    "gradtail similarity": Case(
        lambda: ltjax.gradtail(similarity="l2"), ValueError, "similarity .*'l2'"
    ),
    "gradtail reference": Case(
        lambda: ltjax.gradtail(reference="none"), ValueError, "reference .*'none'"
    ),
    "gradtail clean gated": Case(
        lambda: ltjax.gradtail(reference="clean"), ValueError, "activation .*gated"
    ),
    "gradtail aligned": Case(
        lambda: ltjax.gradtail(activation="aligned"), ValueError, "reference .*clean"
    ),
    "gradtail no function": Case(
        lambda: step(ltjax.gradtail(reference="clean", activation="aligned")),
        TypeError,
        "meta_grad_fn must be a function.*NoneType",
    ),
    "gradtail clean gradient": Case(
        lambda: step(
            ltjax.gradtail(reference="clean", activation="aligned"),
            meta_grad_fn=lambda p: p["w"],
        ),
        ValueError,
        "meta_grad_fn must return a gradient like params",
    ),
    "gradtail decay": Case(
        lambda: ltjax.gradtail(decay=1.0), ValueError, r"decay .*\[0, 1\).*1.0"
    ),
    "gradtail burn-in": Case(
        lambda: ltjax.gradtail(burn_in=-1), ValueError, "burn_in .*-1"
    ),
    "gradtail width": Case(
        lambda: ltjax.transforms.bump(width=0.0), ValueError, "width .*0.0"
    ),
    "gradtail max_weight": Case(
        lambda: ltjax.gradtail(max_weight=0.5), ValueError, r"max_weight .*\[1, .*0.5"
    ),
    "gradtail mask": Case(
        lambda: ltjax.gradtail(mask={"w": True}).init(PARAMS),
        ValueError,
        "mask must have the structure",
    ),
    "gradtail mask of one boolean": Case(
        lambda: ltjax.gradtail(mask=True), TypeError, "mask .*True.*static_args"
    ),
    "gradtail empty mask": Case(
        lambda: ltjax.gradtail(mask={"w": False, "b": False}).init(PARAMS),
        ValueError,
        "mask must select .*none",
    ),
    "gradtail empty mask function": Case(
        lambda: ltjax.gradtail(mask=lambda p: jax.tree.map(lambda _: False, p)).init(
            PARAMS
        ),
        ValueError,
        "mask must select .*none",
    ),
    "gradtail gate without norms": Case(
        lambda: ltjax.gradtail_weights(jnp.ones(3)), ValueError, "norms .*gated"
    ),
    "gradtail norms shape": Case(
        lambda: ltjax.gradtail_weights(jnp.ones(3), norms=jnp.ones(4)),
        ValueError,
        r"norms .*\(3,\).*\(4,\)",
    ),
    "product of nothing": Case(lambda: ltjax.product(), ValueError, "at least one"),
    "product of optimisers": Case(
        lambda: ltjax.product(ltjax.absgd(1.0), optax.sgd(0.1)),
        TypeError,
        "weightings .*GradientTransformation",
    ),
    # GDW and its relatives.
    "gdw classes": Case(
        lambda: ltjax.gdw(1, lookahead_lr=0.1, key=KEY),
        ValueError,
        "num_classes must be at least 2, got 1",
    ),
    "gdw raw key": Case(
        lambda: ltjax.gdw(3, lookahead_lr=0.1, key=jnp.zeros(2, jnp.uint32)),
        TypeError,
        "key must be a typed key",
    ),
    "gdw lr": Case(
        lambda: ltjax.gdw(3, lookahead_lr=-0.1, key=KEY),
        ValueError,
        "lookahead_lr .*-0.1",
    ),
    "gdw level": Case(lambda: gdw(level="pixel"), ValueError, "level .*'pixel'"),
    "gdw hidden": Case(lambda: gdw(hidden=2.5), TypeError, "hidden .*integer.*2.5"),
    "gdw clip": Case(lambda: gdw(clip=-1.0), ValueError, "clip .*-1.0"),
    "gdw other classes": Case(
        lambda: step(
            ltjax.gdw(C + 1, lookahead_lr=0.1, key=KEY),
            logits_fn,
            logits=Z,
            labels=Y,
            meta_grad_fn=meta,
        ),
        ValueError,
        r"logits .*4.*\(4, 3\)",
    ),
    "gdw jacobian of losses": Case(
        lambda: step(gdw(), losses_fn, logits=Z, labels=Y, meta_grad_fn=meta),
        ValueError,
        r"updates .*\(4,\).*\(4, 3\)",
    ),
    "gdw labels": Case(
        lambda: step(gdw(), logits_fn, logits=Z, labels=Y[:2], meta_grad_fn=meta),
        ValueError,
        r"labels .*\(4,\).*\(2,\)",
    ),
    "gdw meta gradient": Case(
        lambda: step(
            gdw(), logits_fn, logits=Z, labels=Y, meta_grad_fn=lambda p: p["w"]
        ),
        ValueError,
        "meta_grad_fn .*structure",
    ),
    "gdw no function": Case(
        lambda: step(gdw(), logits_fn, logits=Z, labels=Y, meta_grad_fn=PARAMS),
        TypeError,
        "meta_grad_fn must be a function",
    ),
    "l2rw no function": Case(
        lambda: step(ltjax.l2rw(), meta_grad_fn=None),
        TypeError,
        "meta_grad_fn must be a function.*NoneType",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_refused_by_name(case):
    case.check()
