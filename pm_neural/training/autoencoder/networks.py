"""The networks of a variational autoencoder: from rows of pixels to outputs, and from codes to rows of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import skip_init

_KERNEL = {"kernel_size": 3, "stride": 2, "padding": 1}


def mlp(n_in: int, widths: Sequence[int], n_out: int, *, bias: bool = True) -> nn.Sequential:
    """Make fully connected layers with SiLU between them; `bias` is that of the last one."""
    layers: list[nn.Module] = []
    for n, width in pairwise([n_in, *widths]):
        layers += [skip_init(nn.Linear, n, width), nn.SiLU()]
    return nn.Sequential(*layers, skip_init(nn.Linear, widths[-1], n_out, bias=bias))


def convolutional_encoder(shape: tuple[int, int], channels: Sequence[int], n_out: int) -> nn.Sequential:
    """Make convolutions that halve an image as often as there are `channels`, and a linear layer."""
    layers: list[nn.Module] = [nn.Unflatten(-1, (1, *shape))]
    for n, n_next in pairwise([1, *channels]):
        layers += [skip_init(nn.Conv2d, n, n_next, **_KERNEL), nn.SiLU()]
    height, width = _halved(shape, len(channels))[-1]
    return nn.Sequential(*layers, nn.Flatten(), skip_init(nn.Linear, channels[-1] * height * width, n_out))


def convolutional_decoder(n_in: int, channels: Sequence[int], shape: tuple[int, int]) -> nn.Sequential:
    """Make a linear layer and transposed convolutions: the encoder's layers the other way round, no bias at the end."""
    shapes = _halved(shape, len(channels))
    height, width = shapes[-1]
    layers: list[nn.Module] = [
        skip_init(nn.Linear, n_in, channels[-1] * height * width),
        nn.Unflatten(-1, (channels[-1], height, width)),
    ]
    for (n, n_next), (small, large) in zip(pairwise([*channels[::-1], 1]), pairwise(shapes[::-1]), strict=True):
        # a length n comes from 2n - 1 pixels as well as from 2n
        missing = tuple(length - 2 * half + 1 for half, length in zip(small, large, strict=True))
        layer = skip_init(nn.ConvTranspose2d, n, n_next, **_KERNEL, output_padding=missing, bias=large != shape)
        layers += [nn.SiLU(), layer]
    return nn.Sequential(*layers, nn.Flatten())


def _halved(shape: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """Return the image shapes before, between and after convolutions with a stride of 2."""
    shapes = [shape]
    for _ in range(times):
        height, width = shapes[-1]
        shapes.append(((height + 1) // 2, (width + 1) // 2))
    return shapes


@torch.no_grad()
def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights from a uniform distribution of variance 1 / (3 fan-in), torch's default; biases stay."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=5**0.5, generator=generator)
