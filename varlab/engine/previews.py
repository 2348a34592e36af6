"""Pictures of canvases on a small latent grid: at once for decisions, several stages together for what can wait."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from varlab.models.base import NextScaleModel
from varlab.schedules import Grid

LEAST = 64 * 64  # latents that may be decoded at once, however few the final picture has


@dataclass(eq=False)
class Preview:
    """Of a canvas [B, b, H, W] on a latent grid; ``image`` [B, 3, h, w] once it is decoded."""

    canvas: Tensor
    grid: Grid
    image: Tensor | None = None

    def of(self, canvas: Tensor, grid: Grid) -> bool:
        return self.canvas is canvas and self.grid == grid


class Previews:
    """Those of one batch; whoever asks for the same one shares it."""

    def __init__(self, model: NextScaleModel) -> None:
        self.model = model
        self.latest: Preview | None = None  # of those that were needed at once
        self.waiting: list[Preview] = []

    def now(self, canvas: Tensor, grid: Grid) -> Tensor:
        """Images of the canvas resized to the grid."""
        known = [p for p in (*self.waiting, self.latest) if p is not None and p.of(canvas, grid)]
        found = known[0] if known else Preview(canvas, grid)
        if not known:
            self.latest = found
        if found.image is None:
            found.image = self.model.decode(self.model.resize(canvas, grid))
        return found.image

    def later(self, canvas: Tensor, grid: Grid) -> Preview:
        """A preview whose image is there after ``draw``."""
        found = next((p for p in self.waiting if p.of(canvas, grid)), None) or Preview(canvas, grid)
        if found not in self.waiting:
            self.waiting.append(found)
        return found

    def draw(self) -> None:
        """Decode all that wait: together, but no more latents at once than the final picture has, or ``LEAST``."""
        left, self.waiting = [p for p in self.waiting if p.image is None], []
        while left:
            canvas, grid = left[0].canvas, left[0].grid
            most = max(LEAST, canvas[:, 0].numel()) // (len(canvas) * math.prod(grid))
            chosen = [p for p in left if p.grid == grid and p.canvas.shape[1:] == canvas.shape[1:]][: max(1, most)]
            images = self.model.decode(self.model.resize(torch.cat([p.canvas for p in chosen]), grid))
            for p, image in zip(chosen, images.split([len(p.canvas) for p in chosen]), strict=True):
                p.image = image
            left = [p for p in left if p.image is None]
