import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments import models
from experiments.models import xla

IMAGES = (16, 16, 3)
SMALL = models.ModelConfig(name="resnet8", width=4)


def _model(config, seed, *, input_shape=IMAGES, num_outputs=5):
    return models.make_model(
        config, input_shape=input_shape, num_outputs=num_outputs, rngs=nnx.Rngs(seed)
    )


def _state(config, seed, **kwargs):
    return models.functional(_model(config, seed, **kwargs))[1:]


@functools.cache
def _build(config, **kwargs):
    """``apply, params, rest``, initialised in one program."""
    abstract = nnx.eval_shape(lambda: _model(config, 0, **kwargs))
    params, rest = jax.jit(lambda: _state(config, 0, **kwargs))()
    return models.functional(abstract)[0], params, rest


def _shapes(config, **kwargs):
    """Parameters and other state as shapes, without computing them."""
    return jax.eval_shape(lambda: _state(config, 0, **kwargs))


def _size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _data(batch=6, input_shape=IMAGES, classes=5):
    kx, ky = jax.random.split(jax.random.key(1))
    x = jax.random.normal(kx, (batch, *input_shape))
    return x, jax.random.randint(ky, (batch,), 0, classes)


def _losses(apply, rest, x, y):
    def fun(params):
        outputs, new_rest = apply(params, rest, x, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, y)
        return losses, new_rest

    return fun


@pytest.mark.parametrize(
    ("name", "classes", "side", "count"),
    [
        ("resnet20", 10, 32, 269_722),
        ("resnet32", 10, 32, 464_154),
        ("resnet18", 10, 32, 11_173_962),
        ("resnet18_7x7", 10, 32, 11_181_642),
        ("resnet34", 10, 32, 21_282_122),
        # 3x3 kernels 3-64-64-128-128-196-196; a dense 3136 x 256; scales and biases.
        (
            "conv6",
            10,
            32,
            9 * (192 + 4096 + 8192 + 16384 + 25088 + 38416)
            + 3136 * 256
            + 2 * (2 * (64 + 128 + 196) + 256)
            + 2570,
        ),
        ("resnet50", 1000, 224, 25_557_032),
        # 3x3 x 3 x 16 stem; 16-16, 16-32, 32-64 blocks; scales and biases; classifier.
        ("resnet8", 10, 32, 432 + 4608 + 13824 + 55296 + 2 * 240 + 650),
        # 4x4 x 3 x 64 stem; six 3x3 x 64 x 64; scales and biases; classifier.
        ("patchify", 10, 32, 3072 + 6 * 36864 + 2 * 7 * 64 + 650),
    ],
)
def test_parameter_counts(name, classes, side, count):
    params, _ = _shapes(
        models.ModelConfig(name=name),
        input_shape=(side, side, 3),
        num_outputs=classes,
    )
    assert _size(params) == count


def test_vit_and_mlp_parameter_counts():
    params, _ = _shapes(models.ModelConfig(name="vit"), input_shape=(32, 32, 3))
    block = 4 * 192 + (192 * 576 + 576) + (192 * 192 + 192) + 2 * 192 * 768 + 768 + 192
    ends = (48 * 192 + 192) + 64 * 192 + 2 * 192 + (192 * 5 + 5)
    assert _size(params) == 6 * block + ends
    mlp = models.ModelConfig(name="mlp", hidden=(7, 4))
    params, rest = _shapes(mlp, input_shape=(3,))
    assert _size(params) == (3 * 7 + 7) + (7 * 4 + 4) + (4 * 5 + 5)
    assert not jax.tree.leaves(rest)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("resnet8", 64),
        ("patchify", 64),
        ("resnet18", 512),
        ("resnet34", 512),
        ("resnet50", 2048),
        ("vit", 192),
        ("mlp", 256),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_and_dtypes(name, features, dtype):
    config = models.ModelConfig(name=name, dtype=dtype)
    shape = (32, 32, 3)

    def run(x):
        apply, params, rest = models.functional(_model(config, 0, input_shape=shape))
        return params, apply(params, rest, x, train=True)

    params, (outputs, rest) = jax.eval_shape(
        run, jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    )
    assert outputs.logits.shape == (2, 5)
    assert outputs.embeddings.shape == (2, features)
    everything = jax.tree.leaves((params, outputs, rest))
    assert {leaf.dtype for leaf in everything} == {jnp.dtype("float32")}


def test_images_are_needed_by_convolutions():
    with pytest.raises(ValueError, match=r"input_shape.*\(H, W, C\).*resnet8.*\(64,\)"):
        _build(SMALL, input_shape=(64,))


def test_initial_weights_have_the_variance_of_he():
    _, params, _ = _build(dataclasses.replace(SMALL, width=32))
    kernel = params["backbone"]["blocks"][1]["layers"][1]["conv"]["kernel"][...]
    fan_in = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    assert float(kernel.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
    assert not np.any(params["head"]["bias"][...])


def test_option_a_shortcut_thins_out_and_pads_with_zeros():
    block = models.Residual(
        4,
        8,
        2,
        bottleneck=False,
        pad_shortcut=True,
        norm="batch",
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    last = block.layers[-1].norm
    last.scale[...] = jnp.zeros(8)  # the residual branch is silent
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 4))
    y = block(x, train=True)
    np.testing.assert_allclose(y[..., 2:6], x[:, ::2, ::2], rtol=1e-6)
    np.testing.assert_array_equal(y[..., :2], 0.0)
    np.testing.assert_array_equal(y[..., 6:], 0.0)


def test_batch_statistics_follow_pytorchs_momentum():
    apply, params, rest = _build(SMALL)
    x, _ = _data()
    _, new = jax.jit(lambda x: apply(params, rest, x, train=True))(x)
    z = np.asarray(
        jax.lax.conv_general_dilated(
            x,
            params["backbone"]["stem"]["conv"]["kernel"][...],
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        np.float64,
    )
    norm = new["backbone"]["stem"]["norm"]
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    np.testing.assert_allclose(norm["mean"][...], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(norm["var"][...], 0.9 + 0.1 * var, rtol=1e-5)


def test_evaluation_uses_and_keeps_the_running_statistics():
    apply, params, rest = _build(SMALL)
    x, _ = _data()
    evaluate = jax.jit(lambda x: apply(params, rest, x, train=False))
    outputs, new = evaluate(x)
    jax.tree.map(np.testing.assert_array_equal, new, rest)
    # No example depends on its neighbours.
    alone, _ = evaluate(jnp.concatenate([x[:1], 3.0 * x[1:]]))
    np.testing.assert_allclose(alone.logits[0], outputs.logits[0], rtol=1e-5)


def test_group_norm_keeps_examples_apart():
    apply, params, rest = _build(dataclasses.replace(SMALL, norm="group"))
    x, _ = _data()
    train = jax.jit(lambda x: apply(params, rest, x, train=True)[0].logits)
    changed = train(jnp.concatenate([x[:1], 3.0 * x[1:]]))
    np.testing.assert_allclose(changed[0], train(x)[0], rtol=1e-5, atol=1e-6)


def test_linearize_gives_jvp_and_vjp_of_the_losses():
    apply, params, rest = _build(SMALL)
    x, y = _data()
    fun = _losses(apply, rest, x, y)
    weights = jnp.linspace(-1.0, 1.0, 6)

    @jax.jit
    def linearized(params, direction):
        losses, jvp, _ = jax.linearize(fun, params, has_aux=True)
        return losses, jvp(direction), jax.linear_transpose(jvp, params)(weights)[0]

    direction = jax.tree.map(jnp.ones_like, params)
    losses, dots, gradient = linearized(params, direction)
    expected = jax.jit(jax.grad(lambda p: weights @ fun(p)[0]))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        gradient,
        expected,
    )
    along = sum(leaf.sum() for leaf in jax.tree.leaves(expected))
    np.testing.assert_allclose(weights @ dots, along, rtol=1e-3)
    moved = jax.tree.map(lambda p: p + 1e-3, params)
    back = jax.tree.map(lambda p: p - 1e-3, params)
    slopes = (linearized(moved, direction)[0] - linearized(back, direction)[0]) / 2e-3
    np.testing.assert_allclose(dots, slopes, rtol=0.05, atol=0.05 * np.ptp(dots))
    assert losses.shape == (6,)


@pytest.mark.parametrize("name", ["patchify", "vit"])
def test_bfloat16_gradients_are_finite_and_close(name):
    config = models.ModelConfig(name=name, width=8, norm="group")
    x, y = _data()
    gradients = []
    for dtype in ("bfloat16", "float32"):
        apply, params, rest = _build(dataclasses.replace(config, dtype=dtype))
        fun = _losses(apply, rest, x, y)
        grad = jax.jit(jax.grad(lambda p, fun=fun: fun(p)[0].mean()))(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(grad)} == {jnp.dtype("float32")}
        gradients.append(
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grad)])
        )
    low, full = gradients
    assert np.isfinite(low).all()
    assert np.linalg.norm(low - full) < 0.1 * np.linalg.norm(full)


def test_seeds_train_together_as_alone():
    x, _ = _data()
    apply, *_ = _build(SMALL)

    def run(params, rest):
        return apply(params, rest, x, train=True)

    init = jax.jit(jax.vmap(lambda key: _state(SMALL, key)))
    params, rest = init(jax.random.split(jax.random.key(0), 2))
    outputs, new = jax.jit(jax.vmap(run))(params, rest)
    assert outputs.logits.shape == (2, 6, 5)
    assert not np.allclose(outputs.logits[0], outputs.logits[1])
    second = jax.tree.map(lambda leaf: leaf[1], (params, rest))
    alone, alone_rest = jax.jit(run)(*second)
    np.testing.assert_allclose(outputs.logits[1], alone.logits, rtol=1e-3, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=1e-5),
        new,
        alone_rest,
    )


MLP = models.ModelConfig(name="mlp", hidden=(8,))


def _mlp(**changes):
    config = dataclasses.replace(MLP, **changes)
    return _build(config, input_shape=(3,))


def test_dropout_takes_its_key_and_spares_the_embeddings():
    apply, params, rest = _mlp(dropout=0.5)
    x, _ = _data(input_shape=(3,))

    def run(key):
        return apply(params, rest, x, train=True, key=key)[0]

    first, again, other = (run(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.logits, again.logits)
    assert not np.allclose(first.logits, other.logits)
    np.testing.assert_array_equal(first.embeddings, other.embeddings)
    evaluated, _ = apply(params, rest, x, train=False)
    plain_apply, *_ = _mlp()
    plain, _ = plain_apply(params, rest, x, train=True)
    np.testing.assert_array_equal(evaluated.logits, plain.logits)
    with pytest.raises(ValueError, match="rngs"):
        apply(params, rest, x, train=True)


def test_etf_head_is_fixed_and_its_bias_trained():
    apply, params, rest = _mlp(head="etf")
    assert set(params["head"]) == {"bias"}
    kernel = rest["head"]["kernel"][...]
    assert kernel.shape == (8, 5)
    gram = np.where(np.eye(5), 1.0, -1 / 4)
    np.testing.assert_allclose(kernel.T @ kernel, gram, atol=1e-5)
    x, _ = _data(input_shape=(3,))
    outputs, new = apply(params, rest, x, train=True)
    np.testing.assert_allclose(outputs.logits, outputs.embeddings @ kernel, rtol=1e-5)
    np.testing.assert_array_equal(new["head"]["kernel"][...], kernel)


def test_cosine_head_ignores_both_lengths():
    apply, params, rest = _mlp(head="cosine", cosine_scale=3.0)
    x, _ = _data(input_shape=(3,))
    outputs, _ = apply(params, rest, x, train=True)
    w = np.asarray(params["head"]["kernel"][...], np.float64)
    h = np.asarray(outputs.embeddings, np.float64)
    w, h = (a / np.linalg.norm(a, axis=k, keepdims=True) for a, k in ((w, 0), (h, 1)))
    np.testing.assert_allclose(outputs.logits, 3.0 * h @ w, atol=1e-5)


def test_normalized_logits_and_their_gradient_at_zero():
    apply, params, rest = _mlp(normalize_logits=0.5)
    plain_apply, *_ = _mlp()
    x, _ = _data(input_shape=(3,))
    z = plain_apply(params, rest, x, train=True)[0].logits
    expected = z / np.sqrt(np.linalg.norm(z, axis=1, keepdims=True))
    got = apply(params, rest, x, train=True)[0].logits
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    def total(x):
        return apply(params, rest, x, train=True)[0].logits.sum()

    assert np.isfinite(jax.grad(total)(jnp.zeros((1, 3)))).all()


def test_cpu_options_change_rounding_only():
    apply, params, rest = _build(SMALL)
    x, y = _data()

    def grad(params):
        return jax.grad(lambda p: _losses(apply, rest, x, y)(p)[0].mean())(params)

    assert xla.compiler_options() or jax.default_backend() != "cpu"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        xla.jit(grad)(params),
        jax.jit(grad)(params),
    )


def test_what_runs_once_has_the_same_bits():
    def draw(key):
        return jax.random.normal(key, (3, 3, 8, 8))

    key = jax.random.key(0)
    fully = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 3})
    np.testing.assert_array_equal(xla.jit_once(draw)(key), fully(key))


def test_refused_options_are_left_out(monkeypatch):
    monkeypatch.setattr(xla, "_CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    xla.compiler_options.cache_clear()
    try:
        assert xla.compiler_options() == {}
        assert float(xla.jit(lambda x: x + 1)(1.0)) == 2.0
    finally:
        xla.compiler_options.cache_clear()


def test_accelerators_see_neither_fence_nor_options(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    xla.compiler_options.cache_clear()
    try:
        assert xla.compiler_options() == {}
        assert not jax.make_jaxpr(xla.fence)(jnp.zeros(3)).eqns
    finally:
        xla.compiler_options.cache_clear()
