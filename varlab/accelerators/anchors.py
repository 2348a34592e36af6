"""Anchors: tokens on a regular lattice that are always computed, and from which the others are filled. Pure maths."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.schedules import Grid
from varlab.specs import option

Place = Literal["centre", "corner", "random"]
Partial = Literal["ceil", "floor"]
Nearest = Literal["cell", "euclid", "kept"]
Orphans = Literal["zero", "kept"]


@dataclass(frozen=True)
class Fill:
    """Where anchors lie, and what a token that is left out takes in place of a prediction of its own."""

    anchor: Place = option("centre", "place of the anchor in its cell")
    partial: Partial = option("ceil", "whether a cell cut by the border has an anchor (ceil) or none (floor)")
    nearest: Nearest = option(
        "cell", "filled from the own cell's anchor, the closest anchor, the closest computed token"
    )
    orphans: Orphans = option("zero", "without anchors: a zero residual, or that of the closest computed token")


def _lattice(side: int, alpha: int, partial: Partial) -> int:
    """Cells on a side. A rest smaller than a cell has an anchor of its own under ``ceil``, none under ``floor``."""
    return max(1, -(-side // alpha) if partial == "ceil" else side // alpha)


@cache
def anchor_cells(grid: Grid, alpha: int, place: Place = "centre", partial: Partial = "ceil") -> Tensor:
    """For every position, the flat index of the anchor of its own alpha x alpha cell [h*w].

    A position is an anchor where the entry is its own index. ``random`` draws one place a cell, the same in every run.
    """
    height, width = grid
    rows, columns = _lattice(height, alpha, partial), _lattice(width, alpha, partial)
    offset = {"centre": alpha // 2, "corner": 0}.get(place, 0)
    y, x = torch.full((rows, columns), offset), torch.full((rows, columns), offset)
    if place == "random":
        generator = torch.Generator().manual_seed(height * 1000 + width)
        y, x = (torch.randint(alpha, (rows, columns), generator=generator) for _ in range(2))
    y = (torch.arange(rows)[:, None] * alpha + y).clamp(max=height - 1)
    x = (torch.arange(columns)[None] * alpha + x).clamp(max=width - 1)
    flat = y * width + x
    row = (torch.arange(height) // alpha).clamp(max=rows - 1)
    column = (torch.arange(width) // alpha).clamp(max=columns - 1)
    return flat[row[:, None], column[None]].flatten()


def anchor_mask(cells: Tensor) -> Tensor:
    """[h*w]: True at the anchors themselves."""
    return cells == torch.arange(len(cells), device=cells.device)


def nearest_of(mask: Tensor, grid: Grid) -> Tensor:
    """For every position, the closest True position of ``mask`` [..., h*w], the first of several as close."""
    width = grid[1]
    place = torch.arange(mask.shape[-1], device=mask.device)
    points = torch.stack([place // width, place % width], -1).float()
    distances = torch.cdist(points, points)  # [h*w, h*w]
    return torch.where(mask[..., None, :], distances, torch.inf).argmin(-1)


def resize(maps: Tensor, old: Grid, new: Grid, mode: str) -> Tensor:
    """Maps [..., h*w] on another grid [..., h'*w']; corners not aligned, no antialiasing."""
    if tuple(old) == tuple(new):
        return maps
    options = {"align_corners": False} if mode in ("bilinear", "bicubic") else {}
    flat = F.interpolate(maps.reshape(-1, 1, *old), size=tuple(new), mode=mode, **options)
    return flat.reshape(*maps.shape[:-1], new[0] * new[1])
