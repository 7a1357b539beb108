"""The small residual networks in PyTorch, as peers for timing."""

import torch
from torch import nn
from torch.nn import functional

from experiments.models import ResNetSpec


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.first = _conv_norm(inputs, width, 3, stride, 1)
        self.second = _conv_norm(width, width, 3, 1, 1)
        self.stride = stride
        low = (width - inputs) // 2
        self.channels = (low, width - inputs - low)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.relu(self.first(x)))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, *self.channels))
        return functional.relu(x + y)


def resnet(spec: ResNetSpec, num_classes: int) -> nn.Module:
    """The network of a spec with basic blocks, channels last in memory."""
    stem = spec.stem
    padding = stem.kernel // 2 if stem.padding is None else stem.padding
    layers = [_conv_norm(3, spec.width, stem.kernel, stem.stride, padding), nn.ReLU()]
    channels = spec.width
    for stage, count in enumerate(spec.blocks):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            layers.append(Block(channels, spec.width * 2**stage, stride))
            channels = spec.width * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int, padding: int
) -> nn.Module:
    """A convolution without bias, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))
