"""Step redundancy: how close the picture after each stage already is to the final one.

Source of the question: SkipVAR (late steps cost most and change little).
"""

import numpy as np
import torch
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.measures.metrics import WINDOW, high_frequency_ssim, psnr, ssim
from varlab.probes.base import PreviewProbe, last_of_each
from varlab.probes.log import Log, Variables

FIGURES = (("psnr", psnr, "dB"), ("ssim", ssim, "1"), ("high_frequency_ssim", high_frequency_ssim, "1"))


class StepRedundancy(PreviewProbe):
    """PSNR, SSIM and high-frequency SSIM of the preview after stage k against the last; latent energy still to come.

    An image that stopped early is compared with its own last preview and canvas.
    """

    name = "step-redundancy"

    def start(self, context: Context) -> None:
        super().start(context)
        side = min(self.grid or (WINDOW,)) * (context.model.stride if self.grid else 1)
        if side < WINDOW:
            raise VarlabError(
                f"step-redundancy compares pictures of at least {WINDOW} pixels a side; these previews have {side}. "
                "Use step-redundancy:preview=full, or preview=off for the latent energy alone."
            )

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.recorder.put(("canvas", stage.index), stage.samples, canvas)
        self.store_preview(stage, canvas)

    def log(self) -> Log:
        variables: Variables = {"energy_left": (("stage",), self._energy_left(), "1")}
        if self.grid is not None:
            variables |= self._likeness()
        flops = np.array([work.flops / max(1, work.images) for work in self.context.ledger.stages])
        variables["flops"] = (("stage",), np.broadcast_to(flops, (len(self.samples), len(flops))), "FLOP/image")
        return {self.name: self.group(variables, self.preview_facts())}

    def _likeness(self) -> Variables:
        previews = self.previews()
        final = last_of_each(previews)
        ran = [k for k in self.stages if previews[k] is not None]
        tables = {name: np.full((len(self.samples), len(self.stages)), np.nan, np.float32) for name, _, _ in FIGURES}
        if final is not None:
            shown = torch.stack([p.clamp(0, 1) for p in previews if p is not None], 1)
            for name, measure, _ in FIGURES:
                tables[name][:, ran] = measure(shown, final.clamp(0, 1)[:, None]).cpu().numpy()
        return {name: (("stage",), tables[name], unit) for name, _, unit in FIGURES}

    def _energy_left(self) -> np.ndarray:
        """||f_K - f_k||^2 / ||f_K||^2 [n, stage]."""
        canvases = [self.recorder.collect(("canvas", k), self.samples) for k in self.stages]
        final = last_of_each(canvases)
        left = np.full((len(self.samples), len(self.stages)), np.nan, np.float32)
        if final is not None:
            found = torch.stack([c for c in canvases if c is not None], 1)
            gap = (final[:, None] - found).square().sum((2, 3, 4)) / final.square().sum((1, 2, 3))[:, None]
            left[:, [k for k in self.stages if canvases[k] is not None]] = gap.cpu().numpy()
        return left
