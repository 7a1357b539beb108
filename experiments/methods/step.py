"""The training step of every method, for any model that is a pure function.

`make_method` turns settings into a `Method`, whose ``init`` and ``step`` can be jitted,
scanned and mapped over seeds. Numbers in the configs may be traced, so that
hyperparameters can be mapped over as well::

    method = make_method(MethodConfig(weighting=Absgd()), apply, optimizer=..., ...)
    state = method.init(params, rest, inputs, key)
    state, metrics = method.step(state, batch, meta_batch, key)

A model is ``apply(params, rest, inputs, *, train, key) -> (outputs, rest)``, where
outputs have ``logits [B, C]`` and ``embeddings [B, E]``; `models.functional`
makes one. Dense targets ``[B, H, W]`` go with logits and embeddings by pixel; there
every loss, weight and prediction is a pixel's. Parameters of the classifier have
``head`` in their path.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ltjax
from experiments.methods.configs import MethodConfig, OptimizerConfig
from experiments.methods.losses import Context, Elm, LossFn, cross_entropy


class Batch(NamedTuple):
    """Examples, ready for the model."""

    inputs: jax.Array  # [B, ...], float
    targets: jax.Array  # [B], int labels (dense: [B, H, W]) or float targets


class State(NamedTuple):
    """Everything a step changes."""

    step: jax.Array  # shape=(), int32; steps taken
    params: Any
    rest: Any  # the model's other state, such as batch statistics
    weighting: Any  # the weighting's state
    opt_state: optax.OptState
    centers: jax.Array | None  # [C, E], class directions of ELM's kind center


def make_method(
    config: MethodConfig,
    apply: Callable[..., tuple[Any, Any]],
    *,
    optimizer: OptimizerConfig,
    epochs: int,
    steps_per_epoch: int,
    class_counts: jax.Array | np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> "Method":
    """Binds a method and an optimiser to a model.

    Args:
      config: the method.
      apply: the model as a pure function, see the module's docstring.
      optimizer: what follows the weighting.
      epochs: length of the run, for the schedule.
      steps_per_epoch: steps after which the learning rate changes.
      class_counts: ``[C]`` counts of the training labels; None in regression.
      targets: ``[N]`` of training, for losses that look at their density; None where
        targets are classes.
    """
    if config.is_regression != (class_counts is None):
        raise ValueError(
            "class_counts must be given exactly where targets are classes, "
            f"got loss={config.loss.name!r} and class_counts={class_counts!r}."
        )
    if class_counts is not None:
        class_counts = jnp.maximum(jnp.asarray(class_counts, jnp.float32), 1.0)
    schedule = optimizer.learning_rates(epochs=epochs, steps_per_epoch=steps_per_epoch)
    context = Context(class_counts, schedule, steps_per_epoch, targets)
    return Method(
        config=config,
        apply=apply,
        context=context,
        loss=config.loss.build(context),
        optimizer=optax.chain(
            optimizer.build(schedule), config.projection(steps_per_epoch)
        ),
    )


@dataclasses.dataclass(frozen=True)
class Method:
    """A loss, a weighting and an optimiser, bound to a model."""

    config: MethodConfig
    apply: Callable[..., tuple[Any, Any]]
    context: Context
    loss: LossFn
    optimizer: optax.GradientTransformation
    linearize: Callable[..., Any] = ltjax.linearize

    def init(self, params: Any, rest: Any, inputs: jax.Array, key: jax.Array) -> State:
        """The first state; only the shape of ``inputs`` counts."""
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            rest=rest,
            weighting=self._weighting(key).init(params),
            opt_state=self.optimizer.init(params),
            centers=self._first_centers(params, rest, inputs),
        )

    def step(
        self, state: State, batch: Batch, meta_batch: Batch | None, key: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        """A training step.

        Args:
          state: as from `init` or an earlier step.
          batch: the examples to train on.
          meta_batch: clean examples; None where `MethodConfig.needs_meta` is false.
          key: of everything random in this step.

        Returns:
          The next state, and metrics: scalars ``loss`` (raw mean), ``weighted_loss``
          and ``learning_rate``; by example ``losses``, ``weights`` (1 is plain SGD),
          ``predictions`` and ``margins`` (the label's logit over the largest other;
          NaN in regression), each ``[B]``.
        """
        train_key, meta_key, weighting_key = jax.random.split(key, 3)
        losses, jac, outputs, rest = self._linearized(state, batch, train_key)
        weighting = self._weighting(weighting_key)
        gradient, weights, own = weighting.update_with_weights(
            jac,
            state.weighting,
            state.params,
            losses=losses,
            logits=outputs.logits,
            labels=batch.targets,
            meta_grad_fn=self._meta_gradient(state, meta_batch, meta_key),
            key=weighting_key,
        )
        updates, opt_state = self.optimizer.update(
            gradient, state.opt_state, state.params
        )
        new_state = State(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            weighting=own,
            opt_state=opt_state,
            centers=self._next_centers(state.centers, outputs, batch.targets),
        )
        if self.config.weighting.of_logits:
            weights = example_weights(weights, outputs.logits, batch.targets)
        return new_state, self._metrics(
            state, losses, weights, outputs.logits, batch.targets
        )

    def _linearized(self, state, batch, key):
        """Losses, the Jacobian that the weighting needs, outputs and new ``rest``."""
        of_logits = self.config.weighting.of_logits

        def values(params):
            outputs, rest = self.apply(
                params, state.rest, batch.inputs, train=True, key=key
            )
            value = outputs.logits if of_logits else losses_of(outputs)
            return value, (outputs, rest)

        def losses_of(outputs):
            # To the losses, pixels with targets are so many examples.
            rows = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), outputs)
            losses = self.loss(rows, batch.targets.ravel(), state)
            if self.config.has_feature_penalty:
                penalty = ltjax.losses.feature_penalty(rows.embeddings)
                losses = losses + self.config.feature_penalty * penalty
            return losses.reshape(batch.targets.shape)

        value, jac, (outputs, rest) = self.linearize(values, state.params, has_aux=True)
        losses = losses_of(outputs) if of_logits else value
        return losses, jac, outputs, rest

    def _weighting(self, key):
        return self.config.weighting.build(self.context, key)

    def _meta_gradient(self, state, meta_batch, key):
        """Gradient of the clean batch's mean loss, as a function of parameters."""
        if not self.config.needs_meta:
            return None

        def mean_loss(params):
            # Batch statistics of this pass are its own, and are dropped.
            outputs, _ = self.apply(
                params, state.rest, meta_batch.inputs, train=True, key=key
            )
            return cross_entropy(outputs.logits, meta_batch.targets).mean()

        return jax.grad(mean_loss)

    def _metrics(self, state, losses, weights, logits, targets):
        regression = self.config.is_regression
        nan = jnp.full_like(losses, jnp.nan)
        rate = self.context.learning_rate(state.step)
        return {
            "loss": losses.mean(),
            "weighted_loss": (weights * losses).mean(),
            "learning_rate": jnp.asarray(rate, jnp.float32),
            "losses": losses,
            "weights": weights,
            "predictions": logits[:, 0] if regression else jnp.argmax(logits, axis=-1),
            "margins": nan if regression else _margins(logits, targets),
        }

    def _first_centers(self, params, rest, inputs):
        loss = self.config.loss
        if not (isinstance(loss, Elm) and loss.kind == "center"):
            return None
        outputs, _ = jax.eval_shape(
            lambda p, r, x: self.apply(p, r, x, train=False), params, rest, inputs
        )
        return jnp.zeros((len(self.context.counts), outputs.embeddings.shape[1]))

    def _next_centers(self, centers, outputs, labels):
        loss = self.config.loss
        if centers is None or not isinstance(loss, Elm):
            return None
        return ltjax.losses.update_centers(
            centers,
            jax.lax.stop_gradient(outputs.embeddings),
            labels,
            decay=loss.center_decay,
        )


def _margins(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The label's logit minus the largest other one."""
    is_own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    own = jnp.max(jnp.where(is_own, logits, -jnp.inf), axis=-1)
    return own - jnp.max(jnp.where(is_own, -jnp.inf, logits), axis=-1)


def example_weights(
    weights: jax.Array, logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """``[B]`` weights that stand for ``[B, C]`` weights of logits; 1 is plain SGD.

    The part of the weighted gradient of the logits that points along the plain one.
    """
    onehot = jax.nn.one_hot(labels, logits.shape[1])
    plain = jax.nn.softmax(logits.astype(jnp.float32)) - onehot
    cotangents = ltjax.logit_cotangents(weights, logits, labels)
    along = len(labels) * jnp.sum(cotangents * plain, axis=1)
    return along / jnp.maximum(jnp.sum(plain * plain, axis=1), 1e-12)
