"""The same steps in PyTorch: per-example gradients by three libraries, and GDW.

Written against their public interfaces, each in its best memory layout (channels last
for convolutions).
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import models, steps
from experiments.methods import Batch
from experiments.models import RESNETS

_DECAY = 0.99
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4


def torch_model(name: str) -> Any:
    """The network of `models.SPECS` in PyTorch."""
    from torch import nn

    from benchmarks.torch_resnet import resnet

    spec = models.SPECS[name]
    if name == "mlp":
        widths = (*spec.input_shape, *spec.config.hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], models.NUM_CLASSES))
    model = resnet(RESNETS[spec.config.name], models.NUM_CLASSES)
    return model if spec.couples_examples else _with_group_norm(model)


def torch_batch(batch: Batch) -> tuple[Any, Any]:
    """A batch as tensors; images channels last."""
    import numpy as np
    import torch

    inputs = torch.from_numpy(np.array(batch.inputs))
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, torch.from_numpy(np.array(batch.targets)).long()


def _with_group_norm(model: Any) -> Any:
    """The model with its batch norms replaced."""
    from torch import nn

    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            channels = child.num_features
            setattr(model, name, nn.GroupNorm(min(32, channels // 4), channels))
        else:
            _with_group_norm(child)
    return model


def _optimizer(model: Any) -> Any:
    import torch

    return torch.optim.SGD(
        model.parameters(),
        lr=steps.LEARNING_RATE,
        momentum=_MOMENTUM,
        weight_decay=_WEIGHT_DECAY,
    )


def _apply(optimizer: Any, parameters: Iterable[Any], gradients: Iterable[Any]) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    optimizer.step()
    optimizer.zero_grad()


def sgd(model, batch, meta_batch):
    """Plain SGD."""
    from torch.nn import functional

    del meta_batch
    optimizer = _optimizer(model)
    x, y = batch

    def step():
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


class _GradTail:
    """The weighted step from materialised per-example gradients."""

    def __init__(self, parameters: Iterable[Any]):
        import torch

        self.parameters = list(parameters)
        self.means = [torch.zeros_like(p) for p in self.parameters]

    def gradients(self, rows: Sequence[Any]) -> list[Any]:
        """Weighted means of ``rows``, one ``[B, ...]`` for each parameter."""
        import torch

        flat = [g.flatten(1) for g in rows]
        squares = sum(g.square().sum(1) for g in flat)
        norms = squares.sqrt().clamp(min=1e-12)
        length = sum(m.square().sum() for m in self.means).sqrt().clamp(min=1e-12)
        dots = sum(g @ m.flatten() for g, m in zip(flat, self.means, strict=True))
        gate = (norms / norms.mean()).clamp(max=3.0)
        raw = 1 + 5.0 * torch.sigmoid(-4.0 * dots / (norms * length)) * gate
        weights = (raw / raw.mean()).clamp(max=10.0) / len(raw)
        found = [
            (weights @ g).view_as(p) for g, p in zip(flat, self.parameters, strict=True)
        ]
        for mean, gradient in zip(self.means, found, strict=True):
            mean.lerp_(gradient, 1 - _DECAY)
        return found


def vmap(model, batch, meta_batch):
    """Per-example gradients by ``torch.func``."""
    from torch import func
    from torch.nn import functional

    del meta_batch
    optimizer = _optimizer(model)
    method = _GradTail(model.parameters())
    x, y = batch

    def loss(params, x, y):
        logits = func.functional_call(model, params, (x[None],))
        return functional.cross_entropy(logits, y[None])

    rows_of = func.vmap(func.grad(loss), in_dims=(None, 0, 0))

    def step():
        params = {name: p.detach() for name, p in model.named_parameters()}
        gradients = method.gradients(list(rows_of(params, x, y).values()))
        _apply(optimizer, model.parameters(), gradients)

    return step


def opacus(model, batch, meta_batch):
    """Per-example gradients by Opacus."""
    from opacus import GradSampleModule
    from torch.nn import functional

    del meta_batch
    optimizer = _optimizer(model)
    method = _GradTail(model.parameters())
    wrapped = GradSampleModule(model, loss_reduction="sum")
    x, y = batch

    def step():
        functional.cross_entropy(wrapped(x), y, reduction="sum").backward()
        gradients = method.gradients([p.grad_sample for p in model.parameters()])
        wrapped.zero_grad()
        _apply(optimizer, model.parameters(), gradients)

    return step


def backpack(model, batch, meta_batch):
    """Per-example gradients by BackPACK."""
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad
    from torch import nn

    del meta_batch
    optimizer = _optimizer(model)
    method = _GradTail(model.parameters())
    extended = extend(model)
    criterion = extend(nn.CrossEntropyLoss(reduction="sum"))
    x, y = batch

    def step():
        with backpack(BatchGrad()):
            criterion(extended(x), y).backward()
        gradients = method.gradients([p.grad_batch for p in model.parameters()])
        _apply(optimizer, model.parameters(), gradients)

    return step


def gdw(model, batch, meta_batch):
    """GDW by differentiating through the look-ahead; the forward pass is shared."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
    return gdw_step(
        model,
        net,
        torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4),
        batch,
        meta_batch,
    )


def gdw_step(model, net, net_optimizer, batch, meta_batch):
    """The step of a model and a net from losses to weights."""
    import torch
    from torch import func
    from torch.nn import functional

    optimizer = _optimizer(model)
    (x, y), (meta_x, meta_y) = batch, meta_batch
    target = functional.one_hot(y, models.NUM_CLASSES).bool()

    def constrained(weights, probs):
        """Weights of all classes whose flows sum to zero."""
        others = (weights * probs).masked_fill(target, 0.0).sum(1)
        remaining = 1 - probs[target]
        return torch.where(target, (others / remaining)[:, None], weights)

    def step():
        parameters = dict(model.named_parameters())
        logits = model(x)
        losses = functional.cross_entropy(logits.detach(), y, reduction="none")
        probs = logits.detach().softmax(1).clamp(max=0.999)
        flows = (probs - target.float()) / len(y)

        weights = net(losses[:, None]).expand_as(probs)
        first = constrained(weights, probs)
        gradients = torch.autograd.grad(
            logits, list(parameters.values()), first * flows, create_graph=True
        )
        ahead = {
            name: p - steps.LEARNING_RATE * g
            for (name, p), g in zip(parameters.items(), gradients, strict=True)
        }
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        meta_logits = func.functional_call(model, {**ahead, **buffers}, (meta_x,))
        meta_loss = functional.cross_entropy(meta_logits, meta_y)
        by_weights, *by_net = torch.autograd.grad(
            meta_loss, [first, *net.parameters()], retain_graph=True
        )

        with torch.no_grad():
            size = 0.1 * probs.numel() / by_weights.abs().sum().clamp(min=1e-12)
            second = first - (size * by_weights).clamp(-0.2, 0.2)
            second = constrained(second.clamp(1e-6, 1e6), probs)
        gradients = torch.autograd.grad(
            logits, list(parameters.values()), second * flows
        )
        _apply(net_optimizer, net.parameters(), by_net)
        _apply(optimizer, model.parameters(), gradients)

    return step
