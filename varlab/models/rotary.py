"""Rotary positions: Infinity's over a schedule, HART's over text and over a grid.

Sources: Infinity (arXiv 2412.04431) and HART (arXiv 2410.10812), released codes, quirks included: HART's form in 2-D
is no rotation.
"""

import torch
from torch import Tensor

from varlab.schedules import Grid, Schedule


def rotary_indices(schedule: Schedule) -> Tensor:
    """Integer (y, x) of every token in units of the extent [N, 2]: rounded half to even on fp32 products."""
    positions = []
    for height, width in schedule.grids:
        y = torch.round(torch.arange(height, dtype=torch.float32) * (schedule.extent[0] / height))
        x = torch.round(torch.arange(width, dtype=torch.float32) * (schedule.extent[1] / width))
        positions.append(torch.cartesian_prod(y, x).view(-1, 2))
    return torch.cat(positions)


def rotary_table(schedule: Schedule, head_width: int, base: float = 10000.0) -> Tensor:
    """Cosines and sines [N, c/2, 2]: the first half of the channels turns with y, the second with x."""
    half = head_width // 2
    # A reciprocal, not a negative power: in fp32 only this gives the official table bit for bit.
    frequency = 1 / base ** (torch.arange(0, half, 2, dtype=torch.float32) / half)
    angle = (rotary_indices(schedule)[:, :, None] * frequency).flatten(1)
    return torch.stack([angle.cos(), angle.sin()], -1)


def _table(angles: Tensor) -> Tensor:
    """Angles [..., c] -> cosines and sines [..., 2, c]."""
    return torch.stack([angles.cos(), angles.sin()], -2)


def _frequencies(count: int, device: torch.device) -> Tensor:
    return 1.0 / 10000.0 ** (torch.arange(count, dtype=torch.float32, device=device) / count)


def text_rotary(positions: Tensor, head_width: int) -> Tensor:
    """Positions [R, T] -> table [R, T, 2, c]; plain rotary positions over one dimension."""
    angles = positions[..., None].float() * _frequencies(head_width // 2, positions.device)
    return _table(angles.repeat(1, 1, 2))


def grid_rotary(grid: Grid, extent: Grid, offset: Tensor, head_width: int) -> Tensor:
    """Table [R, h*w, 2, c] of a grid whose top-left corner lies at ``offset`` [R] on both axes.

    A token's corner in units of the final grid gives row and column; the first half of the channels turns by the row,
    the second by the column.
    """
    height, width = grid
    rows = torch.arange(height, device=offset.device).float() / height * extent[0]
    columns = torch.arange(width, device=offset.device).float() / width * extent[1]
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).view(-1, 2)  # [h*w, 2]
    angles = (places + offset[:, None, None])[..., None] * _frequencies(head_width // 4, offset.device)
    return _table(angles.repeat(1, 1, 1, 2).flatten(2))  # row, row, column, column: a quarter of the channels each


def rotate_halves(x: Tensor, table: Tensor) -> Tensor:
    """x cos + (-second half, first half) sin in fp32; x [R, H, n, c], table [R, n, 2, c]."""
    cosine, sine = table.unsqueeze(1).unbind(-2)
    first, second = x.float().chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine
