"""A decoder in strips of rows: an option that holds the widest maps once, and not beside their norms.

Every convolution runs strip by strip with the rows around it; a group norm first gathers its statistics over the whole
map, strip by strip too. Attention is at the lowest resolution alone and stays whole. So the result is that of the whole
decoder but for rounding: sums run in another order, and in bf16 a value on the edge between two falls the other way.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers.maps import Source, activated_rows, group_norm, row_strips

USUAL = 32  # rows of a strip where strips are advised


def in_strips(model: Any, rows: int | None) -> Any:
    """The same model, which decodes in strips of so many rows and says so; None leaves it as it is.

    Raises VarlabError for less than one row.
    """
    check_strips(rows)
    if rows is None:
        return model
    model.tokenizer.strips = rows
    model.execution += f", decoded in strips of {rows} rows"
    return model


def check_strips(rows: int | None) -> None:
    if rows is not None and rows < 1:
        raise VarlabError(f"strips must hold at least 1 row, not {rows}: take {USUAL}, or leave strips out.")


def decoded(decoder: Any, latent: Tensor, rows: int | None) -> Tensor:
    """Latent [B, c, h, w] -> image [B, 3, H, W], whole or in strips of so many rows of every map."""
    if rows is None:
        image: Tensor = decoder(latent)
        return image
    x = decoder.mid(decoder.conv_in(latent))
    for level in reversed(decoder.up):
        attention = getattr(level, "attn", ())
        for i, block in enumerate(level.block):
            x = _residual(block, x, rows)
            x = attention[i](x) if len(attention) else x
        change = getattr(level, "upsample", None)
        if change is not None and not isinstance(change, nn.Identity):
            x = _convolved(change.conv, _doubled(x), (2 * x.shape[2], 2 * x.shape[3]), rows)
    return _convolved(decoder.conv_out, activated_rows(group_norm(decoder.norm_out), x, rows), x.shape[2:], rows)


def _residual(block: Any, x: Tensor, rows: int) -> Tensor:
    """x, or its 1x1 convolution, + conv(silu(norm(conv(silu(norm(x))))))."""
    h = _convolved(block.conv1, activated_rows(group_norm(block.norm1), x, rows), x.shape[2:], rows)
    out = _convolved(block.conv2, activated_rows(group_norm(block.norm2), h, rows), x.shape[2:], rows)
    shortcut = getattr(block, "nin_shortcut", None)
    for start, end in row_strips(x.shape[2], rows):
        piece = x[:, :, start:end]
        out[:, :, start:end] += piece if shortcut is None else shortcut(piece)
    return out


def _convolved(layer: nn.Module, source: Source, size: Any, rows: int) -> Tensor:
    """A convolution that keeps the size, of a map that is made strip by strip -> [B, C, *size]."""
    conv: Any = getattr(layer, "conv", layer)
    halo, (height, width), out = conv.kernel_size[0] // 2, size, None
    for start, end in row_strips(height, rows):
        first, last = max(start - halo, 0), min(end + halo, height)
        piece = source(first, last)
        above, below = first - start + halo, end + halo - last
        piece = F.pad(piece, (0, 0, above, below)) if above or below else piece
        made = F.conv2d(piece, conv.weight, conv.bias, padding=(0, halo))
        if out is None:
            last_is_best = made.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last_is_best else torch.contiguous_format
            shape = (*made.shape[:2], height, width)
            out = torch.empty(shape, dtype=made.dtype, device=made.device, memory_format=layout)
        out[:, :, start:end] = made
    assert out is not None
    return out


def _doubled(x: Tensor) -> Source:
    """Rows of x enlarged to both sides twice as long, each pixel four times."""

    def rows(start: int, end: int) -> Tensor:
        first = start // 2
        piece = F.interpolate(x[:, :, first : (end + 1) // 2], scale_factor=2.0, mode="nearest")
        return piece[:, :, start - 2 * first : end - 2 * first]

    return rows
