"""A compact NAFNet, written from the paper: gates instead of activations, two learned factors on each residual branch.

Source:
    Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration (ECCV 2022), sections 3.2 to 3.5 and figure 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NAFNet"]


class ChannelNorm(nn.Module):
    """Layer normalization over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        normed = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        return normed * self.weight[None, :, None, None] + self.bias[None, :, None, None]


class Gate(nn.Module):
    """SimpleGate: one half of the channels times the other."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return left * right


class Block(nn.Module):
    """Two residual branches, each scaled by a learned factor per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.mix = nn.Sequential(
            ChannelNorm(channels),
            nn.Conv2d(channels, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            Gate(),
        )
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.out = nn.Conv2d(channels, channels, 1)
        self.feed = nn.Sequential(
            ChannelNorm(channels), nn.Conv2d(channels, wide, 1), Gate(), nn.Conv2d(channels, channels, 1)
        )
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x)
        x = x + self.beta * self.out(mixed * self.attention(mixed))
        return x + self.gamma * self.feed(x)


class NAFNet(nn.Module):
    """A U-Net of such blocks that adds what it finds to the image."""

    def __init__(self, width: int = 16, encoder: tuple[int, ...] = (1, 1, 2), middle: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        widths = [width * 2**level for level in range(len(encoder))]
        self.encoders = nn.ModuleList(
            nn.Sequential(*(Block(channels) for _ in range(count)))
            for channels, count in zip(widths, encoder, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 2, stride=2) for channels in widths)
        self.middle = nn.Sequential(*(Block(2 * widths[-1]) for _ in range(middle)))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * channels, 4 * channels, 1, bias=False), nn.PixelShuffle(2))
            for channels in reversed(widths)
        )
        self.decoders = nn.ModuleList(Block(channels) for channels in reversed(widths))

    def forward(self, image: Tensor) -> Tensor:
        """The restored image; sides must be multiples of 8."""
        x = self.first(image)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return image + self.last(x)
