"""The picture after each stage, of a few prompts by every method, drawn beside the timed runs."""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from varlab.comparison.untimed import LastCanvases, drawn
from varlab.engine.sharing import Methods
from varlab.engine.state import Generation
from varlab.models.base import NextScaleModel
from varlab.probes.base import preview_grid
from varlab.runs import Job, to_pil

WHOLE = 256  # pixels a side up to which a picture after a stage has the size of the final one
Stages = dict[int, Image.Image]  # stage, counted from 1 -> the picture after it


def drawn_by_stage(
    job: Job, samples: range, methods: Methods, count: int
) -> Iterator[tuple[str, Generation, list[Stages]]]:
    """As ``drawn``, with the pictures after each stage of the first ``count`` images: a decode for every canvas, once
    where methods share it. A stage that an image did without is not among its own; pictures are an eighth of the final
    side where that is large."""
    keeper, decoded = LastCanvases(), dict[int, tuple[Tensor, list[Image.Image]]]()  # by the id of a canvas that stays
    for name, out in drawn(job, samples, methods, keeper):
        found: list[Stages] = [{} for _ in samples[:count]]
        for k, after in sorted(keeper.after.items()) if found else ():
            for images, canvas in after.items() if out.ledger.stages[k].tokens else ():
                rows = [row for row, image in enumerate(images) if image in samples[:count]]
                if rows and id(canvas) not in decoded:
                    decoded[id(canvas)] = canvas, _pictures(job.model, canvas[rows])
                for i, row in enumerate(rows):
                    found[samples.index(images[row])][k + 1] = decoded[id(canvas)][1][i]
        yield name, out, found


def _pictures(model: NextScaleModel, canvas: Tensor) -> list[Image.Image]:
    height, width = canvas.shape[-2:]
    whole = max(height, width) * model.stride <= WHOLE
    grid = (height, width) if whole else preview_grid((height, width), model.stride)
    with torch.inference_mode():
        return to_pil(model.decode(model.resize(canvas, grid)))
