"""Branch divergence: conditional against unconditional, in the hidden states and in the predictions.

Source of the question: SkipVAR (the gap between the branches is small, so one may be replaced).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.norms import norms, small, together
from varlab.engine.stage import Site, Stage
from varlab.probes.base import LoggingProbe, on_grid, pooled
from varlab.probes.log import Log, Variables

PREDICTIONS = ("kl", "flip_share", "guidance_changes", "guidance_code_change", "drawn_differs")


def differing(a: Tensor, b: Tensor) -> Tensor:
    """Share of labels [B, n, d] that differ [B]."""
    return (a != b).float().mean((1, 2))


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
        """Norms of the gap and of both branches, of all blocks that are pending."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        batch, outs = stage.batch, [out for _, out in pending]
        tokens = together(outs)
        gap = norms(tokens[:, :batch] - tokens[:, batch:], self.context.buffers)  # [m, B, n]
        length = self.context.lengths(outs)
        room = self.context.buffers.empty((3, *gap.shape), gap.dtype)
        sides = torch.stack([gap, length[:, :batch], length[:, batch:]], out=room)
        blocks = tuple(block for block, _ in pending)
        values = on_grid(sides, stage).permute(2, 1, 0, 3)  # [B, m, 3, h*w]
        self.recorder.put(("sides", stage.index, blocks), stage.samples, values)

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        k, batch = stage.index, stage.batch
        likeliest, chosen = cond.argmax(-1), guided.argmax(-1)
        self.values = cond.shape[-1]
        figures: dict[str, Tensor] = {}
        if labels is not None:
            figures["drawn_differs"] = differing(labels, chosen)
        if uncond is not None and not stage.guidance.blocks:  # else there are no two rows, or they are already mixed
            figures["kl"] = label_divergence(cond, uncond).mean((1, 2))
            figures["flip_share"] = differing(likeliest, uncond.argmax(-1))
            figures["guidance_changes"] = differing(likeliest, chosen)
            plain, moved = self.context.model.codes(k, torch.cat([likeliest, chosen])).split(batch)
            figures["guidance_code_change"] = (moved - plain).square().sum((1, 2)) / plain.square().sum((1, 2))
        for name, values in figures.items():
            self.recorder.put((name, k), stage.samples, values)

    def log(self) -> Log:
        blocks = range(self.context.model.depth)
        shape = (len(self.samples), len(self.stages), len(blocks))
        mse, cosine = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        groups = {}
        for k in self.stages:
            if (kept := self.recorder.by_block("sides", k, self.samples)) is None:
                continue
            ran, sides = kept
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
        for name in PREDICTIONS:
            unit = "1" if name != "kl" else "nats/bit" if self.values == 2 else "nats/label"
            variables[name] = (("stage",), self.recorder.table([(name, k) for k in self.stages], self.samples), unit)
        return {self.name: self.group(variables, {"values": self.values}), **groups}
