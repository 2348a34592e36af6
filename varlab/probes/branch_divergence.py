"""Branch divergence: conditional against unconditional, in the hidden states and in the predictions.

Source of the question: SkipVAR (the gap between the branches is small, so one may be replaced).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.norms import norms, small
from varlab.engine.stage import Site, Stage
from varlab.probes.base import LoggingProbe, on_grid, pooled
from varlab.probes.log import Log, Variables


def bit_divergence(cond: Tensor, uncond: Tensor) -> Tensor:
    """KL(conditional || unconditional) of each bit in nats, from logits [..., 2]."""
    c, u = (logits[..., 1] - logits[..., 0] for logits in (cond, uncond))
    # softplus(-x) is -log of the probability of bit 1; a bit 0 costs x more.
    return F.softplus(-u) - F.softplus(-c) + torch.sigmoid(-c) * (u - c)


def label_divergence(cond: Tensor, uncond: Tensor) -> Tensor:
    """KL(conditional || unconditional) of each label in nats, from logits [..., v] over its v values."""
    if cond.shape[-1] == 2:
        return bit_divergence(cond, uncond)
    c, u = cond.log_softmax(-1), uncond.log_softmax(-1)
    return (c.exp() * (c - u)).sum(-1)


class BranchDivergence(LoggingProbe):
    """Relative MSE ||c - u||^2 / ||c||^2 and cosine per block and token; KL and disagreement of the labels.

    Effect of guidance: share of labels whose likelier value it changes, and ||code(guided) - code(c)||^2 over
    ||code(c)||^2 of these likelier values. Predictions are compared only where guidance acts on the logits alone.
    """

    name = "branch-divergence"
    values = 2  # that one prediction may take: 2 of a bit

    def start(self, context: Context) -> None:
        super().start(context)
        self.pending: list[tuple[int, Tensor]] = []  # block, its output [R, n, C]

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        if site.stage.guided:
            self.pending.append((site.block, x_out))
            if not small(x_out):
                self.reduce(site.stage)

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.reduce(stage)

    def reduce(self, stage: Stage) -> None:
        """Norms of both branches and of their gap [B, 3, h*w], of all blocks that are pending."""
        pending, self.pending = self.pending, []
        outs, batch = [out for _, out in pending], stage.batch
        gaps = norms([out[:batch] - out[batch:] for out in outs], self.context.buffers)
        for (block, _), gap, length in zip(pending, gaps, self.context.all_lengths(outs), strict=True):
            room = self.context.buffers.empty((3, *gap.shape), gap.dtype)
            sides = torch.stack([gap, length[:batch], length[batch:]], out=room)  # [3, B, n]
            self.recorder.put(("sides", stage.index, block), stage.samples, on_grid(sides, stage).movedim(0, 1))

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        k, samples = stage.index, stage.samples
        likeliest, chosen = cond.argmax(-1), guided.argmax(-1)
        self.values = cond.shape[-1]
        if labels is not None:
            self.recorder.put(("drawn", k), samples, (labels != chosen).float().mean((1, 2)))
        if uncond is None or stage.guidance.blocks:
            return  # no guidance here, or the rows are already mixed: there is nothing to compare
        self.recorder.put(("kl", k), samples, label_divergence(cond, uncond).mean((1, 2)))
        flips = (likeliest != uncond.argmax(-1)).float().mean((1, 2))
        self.recorder.put(("flips", k), samples, flips)
        self.recorder.put(("guided", k), samples, (likeliest != chosen).float().mean((1, 2)))
        plain, moved = self.context.model.codes(k, likeliest), self.context.model.codes(k, chosen)
        change = (moved - plain).square().sum((1, 2)) / plain.square().sum((1, 2))
        self.recorder.put(("code", k), samples, change)

    def log(self) -> Log:
        blocks = range(self.context.model.depth)
        shape = (len(self.samples), len(self.stages), len(blocks))
        mse, cosine = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        groups = {}
        for k in self.stages:
            ran = [b for b in blocks if ("sides", k, b) in self.recorder.parts]
            if not ran:
                continue
            sides = torch.stack([self.recorder.collect(("sides", k, b), self.samples) for b in ran], 1)  # type: ignore[misc]
            gap, c, u = sides.unbind(2)  # [n, blocks, h*w]
            relative = (gap / c).square()
            mse[:, k, ran] = relative.nanmean(-1).cpu().numpy()
            # The third side of the triangle gives the angle.
            angle = (c.square() + u.square() - gap.square()) / (2 * c * u)
            cosine[:, k, ran] = angle.nanmean(-1).cpu().numpy()
            small = pooled(relative, self.context.model.schedule.grids[k]).cpu().numpy()
            full = np.full((shape[0], shape[2], *small.shape[2:]), np.nan, np.float32)
            full[:, ran] = small
            groups[f"{self.name}/stage-{k + 1:02d}"] = self.group({"relative_mse": (("block", "y", "x"), full, "1")})
        variables: Variables = {
            "relative_mse": (("stage", "block"), mse, "1"),
            "cosine": (("stage", "block"), cosine, "1"),
        }
        predictions = (("kl", "kl", "nats/bit" if self.values == 2 else "nats/label"), *_PREDICTIONS)
        for name, key, unit in predictions:
            variables[name] = (("stage",), self.recorder.table([(key, k) for k in self.stages], self.samples), unit)
        return {self.name: self.group(variables, {"values": self.values}), **groups}


_PREDICTIONS = (
    ("flip_share", "flips", "1"),
    ("guidance_changes", "guided", "1"),
    ("guidance_code_change", "code", "1"),
    ("drawn_differs", "drawn", "1"),
)
