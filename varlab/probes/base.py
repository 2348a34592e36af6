"""Common ground of the probes: names of axes, previews, maps of bounded size, what a log is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.hooks import Probe
from varlab.engine.previews import Preview
from varlab.engine.stage import Stage
from varlab.errors import unknown
from varlab.probes.log import Group, Log, Variables
from varlab.probes.recorder import Recorder
from varlab.schedules import Grid
from varlab.specs import option

GUIDANCE_ROWS = ("conditional", "unconditional")
LARGEST_MAP = 32
LEAST_PREVIEW = 32  # pixels a side, where the picture has as many
PreviewSize = Literal["auto", "full", "off"]


class LoggingProbe(Probe):
    """A probe that keeps its figures in a recorder and hands them over once a batch."""

    context: Context

    def start(self, context: Context) -> None:
        self.context, self.recorder = context, Recorder()

    def on_image(self, samples: tuple[int, ...], image: Tensor) -> None:
        self.samples, self.image = samples, image

    def reduce(self, stage: Stage) -> None:
        """Take the figures of what still waits for the end of this stage."""

    def log(self) -> Log:
        """The batch's figures by group."""
        raise NotImplementedError

    @property
    def stages(self) -> range:
        return range(len(self.context.model.schedule))

    def group(self, variables: Variables, attrs: dict[str, Any] | None = None, **names: Sequence[str]) -> Group:
        """Values [n, ...] of the batch; ``names`` are the coordinates of axes with names."""
        return Group(self.samples, variables, {axis: list(labels) for axis, labels in names.items()}, attrs or {})


@dataclass(eq=False)
class PreviewProbe(LoggingProbe):
    """A probe that decodes the canvas after each stage.

    ``auto`` decodes at 1/8 of the final side (at least 32 pixels), ``full`` at the final side, ``off`` not at all.
    """

    preview: PreviewSize = option("auto", "size of the previews; full costs a full decode a stage")

    def __post_init__(self) -> None:
        if self.preview not in get_args(PreviewSize):
            raise unknown("preview size", self.preview, get_args(PreviewSize))

    def start(self, context: Context) -> None:
        super().start(context)
        self.grid = self._grid(context)
        self.asked: list[tuple[Stage, Preview]] = []

    def _grid(self, context: Context) -> Grid | None:
        if self.preview == "off":
            return None
        final = final_latent(context)
        return final if self.preview == "full" else preview_grid(final, context.model.stride)

    def store_preview(self, stage: Stage, canvas: Tensor) -> None:
        if self.grid is not None:
            self.asked.append((stage, self.context.previews.later(canvas, self.grid)))

    def on_image(self, samples: tuple[int, ...], image: Tensor) -> None:
        super().on_image(samples, image)
        self.context.previews.draw()
        for stage, preview in self.asked:
            assert preview.image is not None
            self.recorder.put(("preview", stage.index), stage.samples, preview.image)
        self.asked = []

    def previews(self) -> list[Tensor | None]:
        """Preview of every stage [n, 3, h, w]; None for a stage that did not run."""
        return [self.recorder.collect(("preview", k), self.samples) for k in self.stages]

    def preview_facts(self) -> dict[str, Any]:
        full = self.grid == final_latent(self.context)
        side = [cells * self.context.model.stride for cells in self.grid or ()]
        return {"preview": "off" if self.grid is None else "full" if full else "reduced", "preview_pixels": side}


def last_of_each(stages: Sequence[Tensor | None]) -> Tensor | None:
    """Every image's own last values [n, ...]: an image may stop early, or skip what others run."""
    last = None
    for values in stages:
        if values is not None and last is not None:
            missing = values.flatten(1).isnan().any(1).view(-1, *[1] * (values.ndim - 1))
            last = torch.where(missing, last, values)
        elif values is not None:
            last = values
    return last


def final_latent(context: Context) -> Grid:
    canvas = context.model.new_canvas(1)
    return int(canvas.shape[-2]), int(canvas.shape[-1])


def preview_grid(final: Grid, stride: int) -> Grid:
    """Latent grid of previews: an eighth of the final one, but at least ``LEAST_PREVIEW`` pixels a side."""
    least = math.ceil(LEAST_PREVIEW / stride)
    height, width = (min(side, max(least, side // 8)) for side in final)
    return height, width


def pooled(maps: Tensor, grid: Grid) -> Tensor:
    """[..., h*w] -> [..., h, w], averaged by area to at most 32 cells a side."""
    maps = maps.unflatten(-1, grid)
    height, width = (min(side, LARGEST_MAP) for side in grid)
    if (height, width) == tuple(grid):
        return maps
    flat = F.interpolate(maps.flatten(0, -3).unsqueeze(1), size=(height, width), mode="area")
    return flat.view(*maps.shape[:-2], height, width)


def on_grid(values: Tensor, stage: Stage) -> Tensor:
    """Per-token values [..., R, n] on the whole grid [..., R, h*w]; NaN where a token was not computed."""
    selection = stage.plan.selection
    if selection is None:
        return values
    index = selection.index.expand(stage.batch, -1).repeat(values.shape[-2] // stage.batch, 1).expand_as(values)
    out = values.new_full((*values.shape[:-1], selection.length), torch.nan)
    return out.scatter(-1, index, values)


def by_row(values: Tensor, stage: Stage) -> Tensor:
    """Rows [..., R, n] -> [..., B, 2, n]: conditional and unconditional; the latter NaN without guidance."""
    if stage.guided:
        return values.unflatten(-2, (2, stage.batch)).transpose(-3, -2)
    return torch.stack([values, torch.full_like(values, torch.nan)], -2)
