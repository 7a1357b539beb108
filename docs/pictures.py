"""Draws the pictures of the methods' pages from the library: ``make -C docs pictures``.

Every curve is a value that a public function returned.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import ltjax
from ltjax import heads, losses

COUNTS = ltjax.data.exponential_counts(10, 1000, 0.01)
PRIORS = COUNTS / COUNTS.sum()
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.figsize": (9, 3.6),
    "font.size": 10.5,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "svg.hashsalt": "ltjax",
}
GREY, BLUE, RED, GREEN = "#6b6b6b", "#332288", "#cc6677", "#117733"
SHADES = ("#332288", "#117733", "#ddaa33", "#cc6677")


def absgd(figure: Figure) -> None:
    """The weight of an example by its loss, at several temperatures."""
    grid = jnp.linspace(0.0, 4.0, 101)
    left, right = figure.subplots(1, 2)
    for ax, sign, title in (
        (left, 1, "positive temperature: hard examples count more"),
        (right, -1, "negative temperature: hard examples count less"),
    ):
        for size, color in zip((0.5, 1.0, 2.0, 10.0), SHADES, strict=True):
            weights, _ = ltjax.absgd_weights(
                grid, -jnp.inf, temperature=sign * size, gamma=1.0
            )
            ax.plot(grid, weights, color=color, label=f"{sign * size:g}", lw=2)
        ax.axhline(1, color=GREY, lw=1, ls="--")
        ax.set(title=title, xlabel="loss of the example", ylim=(0, 5))
        ax.legend(title="temperature")
    left.set_ylabel("weight (plain SGD: 1)")


def gradtail(figure: Figure) -> None:
    """Both activations, before weights are normalised to mean 1."""
    cosine = jnp.linspace(-1.0, 1.0, 201)
    left, right = figure.subplots(1, 2)
    gated = ltjax.transforms.gated()
    for norm, color in zip((3.0, 1.0, 0.3, 0.0), SHADES, strict=True):
        activation = gated(cosine, jnp.full_like(cosine, norm))
        left.plot(cosine, activation, color=color, lw=2, label=f"{norm:g}")
    left.legend(title="gradient's norm over the mean norm")
    left.set(title="gated: high for large gradients that disagree")
    for width, color in zip((0.1, 0.25, 0.5), SHADES, strict=False):
        activation = ltjax.transforms.bump(width=width)(cosine)
        right.plot(cosine, activation, color=color, lw=2, label=f"{width:g}")
    right.legend(title="width")
    right.set(title="bump: high for gradients at a right angle")
    for ax in (left, right):
        ax.set(xlabel="cosine with the mean gradient", ylim=(0, None))
    left.set_ylabel("activation")


def gdw(figure: Figure) -> None:
    """Flows through the logits of an example whose label is wrong."""
    flows = _flows_of_a_wrong_label()
    classes = ("given, wrong label", "true class", "third class")
    width = 0.8 / len(flows)
    ax = figure.subplots()
    colors = (GREY, RED, BLUE)
    for i, (name, color) in enumerate(zip(flows, colors, strict=True)):
        at = np.arange(3) + (i - (len(flows) - 1) / 2) * width
        ax.bar(at, flows[name], width, color=color, label=name)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(np.arange(3), classes)
    ax.set_ylabel("weighted derivative by the logit")
    ax.set_title("one example with a wrong label, after 100 steps")
    ax.legend(loc="upper right")


def elm(figure: Figure) -> None:
    """Margins in logit space, and the weight of the embedding term, by class."""
    left, right = figure.subplots(1, 2)
    for (margin, tau), color in zip(
        (("logit_adjustment", 1.0), ("ldam", 0.5), ("none", 1.0)), SHADES, strict=False
    ):
        margins = [_margin(c, margin, tau) for c in range(1, 10)]
        label = margin.replace("_", " ")
        left.plot(COUNTS[1:], margins, "o-", color=color, label=f"{label}, tau {tau:g}")
    left.set(
        title="margin over the most frequent class",
        ylabel="margin between logits",
    )
    for rho, color in zip((0.0, 0.5, 1.0), SHADES, strict=False):
        right.plot(COUNTS, _rarity(rho), "o-", color=color, label=f"{rho:g}")
    right.set(title="weight of the embedding term (spread, center)", yscale="log")
    right.legend(title="embedding_tau")
    left.legend()
    for ax in (left, right):
        ax.set(xscale="log", xlabel="training examples of the class")
        ax.invert_xaxis()


def weight_balancing(figure: Figure) -> None:
    """The fixed classifier, and what the adjustment after training does."""
    plane, gram, lines = figure.subplots(1, 3)
    w = heads.simplex_etf(jax.random.key(0), 3, 8)
    (xs, ys), *_ = np.split((w @ np.linalg.svd(w)[2][:2].T).T, [2])
    for c, (x, y, color) in enumerate(zip(xs, ys, SHADES, strict=False)):
        plane.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": color, "lw": 3}
        )
        plane.text(1.4 * x, 1.2 * y, f"class {c}", ha="center", va="center")
    plane.set(xlim=(-1.8, 1.8), ylim=(-1.5, 1.5), aspect="equal")
    plane.set(title="3 classes")
    plane.axis("off")
    w = heads.simplex_etf(jax.random.key(0), 10, 64)
    image = gram.imshow(w @ w.T, cmap="RdBu_r", vmin=-1, vmax=1)
    gram.set(title="cosines of 10 classes", xlabel="class", ylabel="class")
    gram.grid(visible=False)
    figure.colorbar(image, ax=gram, shrink=0.8)
    logits, taus = jnp.array([[3.0, 2.0]]), jnp.linspace(0.0, 1.5, 51)
    for mode, style in (("multiplicative", "-"), ("additive", "--")):
        adjusted = np.concatenate(
            [
                heads.adjust_logits(logits, jnp.array([0.6, 0.4]), tau=tau, mode=mode)
                for tau in taus
            ]
        )
        for column, color, name in zip(
            adjusted.T, (BLUE, RED), ("0.6", "0.4"), strict=True
        ):
            label = f"{mode}, prior {name}"
            lines.plot(taus, column, style, color=color, lw=2, label=label)
    lines.set(title="adjusted logits", xlabel="tau")
    lines.legend(fontsize=8.5)


def other_losses(figure: Figure) -> None:
    """Weights by class count, and losses by probability of the label."""
    left, right = figure.subplots(1, 2)
    for beta, color in zip((0.0, 0.9, 0.99, 0.9999), SHADES, strict=True):
        weights = losses.class_balanced_weights(jnp.asarray(COUNTS), beta=beta)
        left.plot(COUNTS, weights, "o-", color=color, label=f"{beta:g}")
    left.set(xscale="log", yscale="log", xlabel="training examples of the class")
    left.set(title="class-balanced weights")
    left.legend(title="beta")
    left.invert_xaxis()
    p = jnp.linspace(0.005, 0.995, 200)
    logits = jnp.stack([jnp.log(p), jnp.log1p(-p)], axis=1)
    labels = jnp.zeros(p.shape, jnp.int32)
    curves = {
        "cross-entropy": optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ),
        "focal, gamma 2": losses.focal(logits, labels, gamma=2.0),
        "generalised, q 0.7": losses.generalized_cross_entropy(logits, labels, q=0.7),
        "symmetric, 0.1 and 0.3": losses.symmetric_cross_entropy(
            logits, labels, alpha=0.1, beta=0.3
        ),
    }
    colors = (GREY, GREEN, BLUE, RED)
    for (name, curve), color in zip(curves.items(), colors, strict=True):
        right.plot(p, curve, color=color, lw=2, label=name)
    right.set(title="losses, two classes", xlabel="probability of the label")
    right.set(ylabel="loss", ylim=(0, 5))
    right.legend()


PICTURES: dict[str, Callable[[Figure], None]] = {
    "absgd": absgd,
    "gradtail": gradtail,
    "gdw": gdw,
    "elm": elm,
    "weight-balancing": weight_balancing,
    "other-losses": other_losses,
}


def draw(folder: Path) -> None:
    """Writes ``method-NAME.svg`` for every picture."""
    for name, picture in PICTURES.items():
        with _figure(folder / f"method-{name}.svg") as figure:
            picture(figure)


@contextlib.contextmanager
def _figure(path: Path) -> Iterator[Figure]:
    with matplotlib.rc_context(STYLE):
        figure = plt.figure()
        yield figure
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _flows_of_a_wrong_label() -> dict[str, np.ndarray]:
    """The first example's derivatives by its logits: plain, MW-Net's and GDW's."""
    key, noise, start = jax.random.split(jax.random.key(0), 3)
    corners = 2 * jnp.eye(3)
    labels = jnp.arange(60) % 3
    x = corners[labels] + 0.5 * jax.random.normal(noise, (60, 3))
    given = labels.at[0].set(1)  # the first example is of class 0

    def meta_loss(w):
        logits = corners @ w
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.arange(3)
        ).mean()

    def train(level):
        weighting = ltjax.gdw(3, lookahead_lr=0.1, key=key, level=level)
        params = 0.1 * jax.random.normal(start, (3, 3))
        state = weighting.init(params)

        @jax.jit
        def step(params, state):
            logits, jac = ltjax.linearize(lambda w: x @ w, params)
            gradient, weights, state = weighting.update_with_weights(
                jac,
                state,
                params,
                logits=logits,
                labels=given,
                meta_grad_fn=jax.grad(meta_loss),
            )
            return params - 0.1 * gradient, state, weights, logits

        for _ in range(100):
            params, state, weights, logits = step(params, state)
        return weights, logits

    def shown(weights, logits):
        flow = len(x) * ltjax.logit_cotangents(weights, logits, given)[0]
        return np.asarray(flow)[jnp.array([1, 0, 2])]

    weights, logits = train("class")
    return {
        "plain SGD": shown(jnp.ones_like(weights), logits),
        "MW-Net": shown(*train("instance")),
        "GDW": shown(weights, logits),
    }


def _margin(label: int, margin: str, tau: float) -> float:
    """Margin of a class over class 0: all other classes are out of the running."""
    logits = jnp.full((1, 10), -1e9).at[0, jnp.array([0, label])].set(0.0)
    loss = losses.elm(
        logits,
        jnp.ones((1, 2)),
        jnp.array([label]),
        class_priors=jnp.asarray(PRIORS),
        tau=tau,
        weight=0.0,
        margin=margin,
    )
    return float(jnp.log(jnp.expm1(loss[0])))


def _rarity(rho: float) -> np.ndarray:
    """Factor of every class in the embedding term, read off a distance of 1."""
    labels = jnp.arange(10)
    embeddings = jnp.tile(jnp.array([[1.0, 0.0]]), (10, 1))
    loss = losses.elm(
        jnp.zeros((10, 10)),
        embeddings,
        labels,
        class_priors=jnp.asarray(PRIORS),
        tau=0.0,
        weight=1.0,
        kind="center",
        embedding_tau=rho,
        centers=2 * embeddings,
    )
    return np.asarray(loss - jnp.log(10.0))


if __name__ == "__main__":
    draw(Path(__file__).parent / "images")
