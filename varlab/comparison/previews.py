"""The picture after each stage, of a few prompts by every method, drawn beside the timed runs."""

from collections.abc import Sequence

import torch
from PIL import Image

from varlab.comparison.bench import methods_of
from varlab.comparison.untimed import LastCanvases, drawn
from varlab.models.base import NextScaleModel
from varlab.probes.base import preview_grid
from varlab.runs import Job, to_pil

WHOLE = 256  # pixels a side up to which a picture after a stage has the size of the final one
Stages = dict[int, Image.Image]  # stage, counted from 1 -> the picture after it


def stage_pictures(job: Job, names: Sequence[str], count: int) -> dict[str, list[Stages]]:
    """By method and prompt, of the first ``count`` prompts: a decode for every canvas, once where methods share it. A
    stage that an image did without is not among its own; pictures are an eighth of the final side where that is large.
    """
    samples, keeper, found = range(min(count, len(job.prompts))), LastCanvases(), dict[str, list[Stages]]()
    decoded = dict[int, list[Image.Image]]()
    held = []  # canvases, whose ids are the keys
    for name, out in drawn(job, samples, {name: methods_of(name) for name in names}, keeper) if samples else ():
        found[name] = [{} for _ in samples]
        for k, after in sorted(keeper.after.items()):
            for images, canvas in after.items() if out.ledger.stages[k].tokens else ():
                if id(canvas) not in decoded:
                    held.append(canvas)
                    decoded[id(canvas)] = _pictures(job.model, canvas)
                for image, picture in zip(images, decoded[id(canvas)], strict=True):
                    found[name][image][k + 1] = picture
    return {name: found[name] for name in names if samples}


def _pictures(model: NextScaleModel, canvas: torch.Tensor) -> list[Image.Image]:
    height, width = canvas.shape[-2:]
    whole = max(height, width) * model.stride <= WHOLE
    grid = preview_grid("full" if whole else "auto", (height, width))
    assert grid is not None
    with torch.inference_mode():
        return to_pil(model.decode(model.resize(canvas, grid)))
