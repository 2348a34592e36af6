"""Branch divergence: conditional against unconditional, in the hidden states and in the predictions.

Source of the question: SkipVAR (the gap between the branches is small, so one may be replaced).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.engine.stage import Site, Stage
from varlab.probes.base import Log, LoggingProbe, on_grid, pooled


def bit_divergence(cond: Tensor, uncond: Tensor) -> Tensor:
    """KL(conditional || unconditional) of each bit in nats, from logits [..., 2]."""
    log_c, log_u = F.log_softmax(cond, -1), F.log_softmax(uncond, -1)
    return (log_c.exp() * (log_c - log_u)).sum(-1)


class BranchDivergence(LoggingProbe):
    """Relative MSE ||c - u||^2 / ||c||^2 and cosine per block and token; KL and disagreement of the labels."""

    name = "branch-divergence"

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        stage, key = site.stage, (site.stage.index, site.block)
        if not stage.guided:
            return
        cond, uncond = x_out.chunk(2)
        gap = torch.linalg.vector_norm(cond - uncond, dim=-1)
        c, u = torch.linalg.vector_norm(x_out, dim=-1).chunk(2)
        relative = (gap / c).square()
        # From the three sides of the triangle: one pass less over the channels.
        cosine = (c.square() + u.square() - gap.square()) / (2 * c * u)
        self.kept.put(("map", *key), stage.samples, on_grid(relative, stage))
        self.kept.put(("cosine", *key), stage.samples, cosine.mean(-1))

    def on_logits(self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor) -> None:
        k, samples = stage.index, stage.samples
        likeliest, chosen = cond.argmax(-1), guided.argmax(-1)
        changed = (likeliest != chosen).float().mean((1, 2))
        self.kept.put(("guided", k), samples, changed if stage.guided else torch.full_like(changed, torch.nan))
        drawn = (labels.long() != chosen).float().mean((1, 2))
        self.kept.put(("drawn", k), samples, drawn)
        if uncond is not None:
            self.kept.put(("kl", k), samples, bit_divergence(cond, uncond).mean((1, 2)))
            flips = (likeliest != uncond.argmax(-1)).float().mean((1, 2))
            self.kept.put(("flips", k), samples, flips)

    def log(self) -> Log:
        blocks = range(self.run.model.depth)
        shape = (len(self.samples), len(self.stages), len(blocks))
        mse, cosine = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        groups = {}
        for k in self.stages:
            maps = [self.kept.collect(("map", k, b), self.samples) for b in blocks]
            ran = [b for b in blocks if maps[b] is not None]
            if not ran:
                continue
            stacked = torch.stack([maps[b] for b in ran], 1)  # type: ignore[arg-type]  # [n, blocks, h*w]
            mse[:, k, ran] = stacked.nanmean(-1).cpu().numpy()
            cosine[:, k] = self.kept.table([("cosine", k, b) for b in blocks], self.samples)
            small = pooled(stacked, self.run.model.schedule.grids[k]).cpu().numpy()
            full = np.full((shape[0], shape[2], *small.shape[2:]), np.nan, np.float32)
            full[:, ran] = small
            groups[f"{self.name}/stage-{k + 1:02d}"] = self.dataset({"relative_mse": (("block", "y", "x"), full, "1")})
        variables = {
            "relative_mse": (("stage", "block"), mse, "1"),
            "cosine": (("stage", "block"), cosine, "1"),
        }
        for name, key, unit in _PREDICTIONS:
            variables[name] = (("stage",), self.kept.table([(key, k) for k in self.stages], self.samples), unit)
        return {self.name: self.dataset(variables), **groups}


_PREDICTIONS = (
    ("kl", "kl", "nats/bit"),
    ("flip_share", "flips", "1"),
    ("guidance_changes", "guided", "1"),
    ("drawn_differs", "drawn", "1"),
)
