"""The picture after each stage, of a few prompts by every method, drawn beside the timed runs."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.engine.context import Context
from varlab.engine.stage import Stage
from varlab.probes.base import PreviewProbe, final_latent, preview_grid
from varlab.probes.log import Log
from varlab.runs import Job, to_pil

WHOLE = 256  # pixels a side up to which a picture after a stage has the size of the final one
Stages = dict[int, Image.Image]  # stage, counted from 1 -> the picture after it


class StagePictures(PreviewProbe):
    """Keeps the decoded canvas after each stage that runs; an eighth of the final side where that is large."""

    name = "stage-pictures"

    def start(self, context: Context) -> None:
        super().start(context)
        final = final_latent(context)
        self.grid = preview_grid("full" if max(final) * context.model.stride <= WHOLE else "auto", final)

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.keep_preview(stage, canvas)

    def log(self) -> Log:
        return {}

    def pictures(self) -> list[Stages]:
        """By prompt; a stage that an image did without is not among them."""
        found: list[Stages] = [{} for _ in self.samples]
        for k, preview in enumerate(self.previews(), 1):
            if preview is None:
                continue
            left_out = preview.flatten(1).isnan().any(1).tolist()
            for i, picture in enumerate(to_pil(preview.nan_to_num())):
                if not left_out[i]:
                    found[i][k] = picture
        return found


def stage_pictures(job: Job, names: Sequence[str], count: int) -> dict[str, list[Stages]]:
    """By method and prompt, of the first ``count`` prompts: as many full decodes each as there are stages."""
    count = min(count, len(job.prompts))
    found = {}
    for name in names if count else ():
        listener, methods = StagePictures(), () if name == DENSE else tuple(name.split("+"))
        replace(job, prompts=job.prompts[:count], probes=(listener,), accelerators=methods).run(range(count))
        found[name] = listener.pictures()
    return found
