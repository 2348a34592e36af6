"""The convolutional encoder and decoder that the three image tokenizers share.

Module names equal the keys of the official files. What the families differ in is a ``Layout``: how a convolution and a
norm are wrapped, whether there is attention at the lowest resolution, and which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from varlab.models.tokenizers.maps import activated, added, layers


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution that keeps the sides of a map, unless ``stride`` or ``padding`` says otherwise."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding)


@dataclass(frozen=True)
class Layout:
    """``latents`` channels; widths by resolution from fine to coarse, between the first ``halvings`` + 1 of which the
    sides are halved; ``blocks`` a resolution, one more in the decoder.

    norm: channels -> group norm, or one under a wrapper's name. attention: channels -> what follows each block of the
    lowest resolution. fine_first: the decoder's levels draw their first weights from fine to coarse.
    """

    latents: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    halvings: int
    norm: Callable[[int], nn.Module]
    conv: Callable[..., nn.Module] = conv
    attention: Callable[[int], nn.Module] | None = None
    fine_first: bool = False

    @property
    def widths(self) -> list[int]:
        return [self.channels * m for m in self.multipliers]


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); a 1x1 convolution on x where the channels change."""

    def __init__(self, inputs: int, outputs: int, layout: Layout) -> None:
        super().__init__()
        self.norm1 = layout.norm(inputs)
        self.conv1 = layout.conv(inputs, outputs)
        self.norm2 = layout.norm(outputs)
        self.conv2 = layout.conv(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = layout.conv(inputs, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        h = self.conv2(activated(self.norm2, h, own=True))
        return added(h, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Downsample(nn.Module):
    """Halves both sides; padded at the right and bottom alone, as released."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.conv = layout.conv(channels, channels, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles both sides: nearest neighbour, then a convolution."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.conv = layout.conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them where the family has some."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, layout)
        if layout.attention is not None:
            self.attn_1 = layout.attention(channels)
        self.block_2 = ResBlock(channels, channels, layout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block_1(x)
        return self.block_2(self.attn_1(x) if hasattr(self, "attn_1") else x)


class Level(nn.Module):
    """Residual blocks at one resolution, at the lowest each followed by attention, then a change of resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, lowest: bool, layout: Layout) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(a, b, layout) for a, b in pairwise([inputs] + [outputs] * blocks))
        if layout.attention is not None:
            self.attn = nn.ModuleList(layout.attention(outputs) for _ in range(blocks if lowest else 0))

    def forward(self, x: Tensor) -> Tensor:
        for layer in layers(self):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> latent [B, latents, H/stride, W/stride]."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        widths = layout.widths
        self.conv_in = layout.conv(3, layout.channels)
        self.down = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(pairwise([layout.channels, *widths])):
            level = Level(inputs, outputs, layout.blocks, i == len(widths) - 1, layout)
            if i < layout.halvings:
                level.downsample = Downsample(outputs, layout)
            self.down.append(level)
        self.mid = Middle(widths[-1], layout)
        self.norm_out = layout.norm(widths[-1])
        self.conv_out = layout.conv(widths[-1], layout.latents)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(activated(self.norm_out, self.mid(x), own=True))


class Decoder(nn.Module):
    """Latent [B, latents, h, w] -> image [B, 3, h*stride, w*stride], not clamped. ``up`` is listed from fine to coarse,
    as in the official keys."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        widths = layout.widths
        self.conv_in = layout.conv(layout.latents, widths[-1])
        self.mid = Middle(widths[-1], layout)
        places, levels = range(len(widths)), dict[int, Level]()
        for i in places if layout.fine_first else reversed(places):
            lowest = i == len(widths) - 1
            level = Level(widths[i] if lowest else widths[i + 1], widths[i], layout.blocks + 1, lowest, layout)
            if 1 <= i <= layout.halvings:
                level.upsample = Upsample(widths[i], layout)
            levels[i] = level
        self.up = nn.ModuleList(levels[i] for i in places)
        self.norm_out = layout.norm(widths[0])
        self.conv_out = layout.conv(widths[0], 3)

    @property
    def weight(self) -> Tensor:
        """Of the first convolution, whose type and layout all maps take."""
        return next(self.conv_in.parameters())

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            for layer in layers(level):  # not level(x), which holds its first map until its last is done
                x = layer(x)
        return self.conv_out(activated(self.norm_out, x, own=True))


def decoder_flops(layout: Layout, height: int, width: int) -> int:
    """Convolutions and attention of the decoder on one latent grid, two operations a multiply-add."""
    latents, widths = height * width, layout.widths

    def cost(inputs: int, outputs: int, scale: int, taps: int = 9) -> int:
        return 2 * inputs * outputs * taps * latents * scale * scale

    top, scale, count = widths[-1], 1, layout.blocks + 1
    flops = cost(layout.latents, top, 1) + 4 * cost(top, top, 1)
    if layout.attention is not None:
        flops += (1 + count) * (cost(top, 4 * top, 1, taps=1) + 4 * top * latents**2)
    for i in reversed(range(len(widths))):
        flops += cost(top, widths[i], scale) + (2 * count - 1) * cost(widths[i], widths[i], scale)
        flops += cost(top, widths[i], scale, taps=1) if top != widths[i] else 0
        top = widths[i]
        if 1 <= i <= layout.halvings:
            scale *= 2
            flops += cost(top, top, scale)
    return flops + cost(top, 3, scale)
