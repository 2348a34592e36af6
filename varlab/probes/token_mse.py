"""Token MSE: how much a block, and each of its sublayers, changes every token.

Source of the question: SparseVAR, observation 2 (different blocks attend to different regions).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.norms import norms, small
from varlab.engine.stage import Site, Stage
from varlab.measures.edges import sobel_magnitude
from varlab.measures.metrics import edges_on_grid, luma, spearman
from varlab.probes.base import GUIDANCE_ROWS, LoggingProbe, by_row, on_grid, pooled
from varlab.probes.log import Group, Log, Variables
from varlab.schedules import Grid
from varlab.specs import option

Key = tuple[int, str]  # block, sublayer or "block"


@dataclass(eq=False)
class TokenMSE(LoggingProbe):
    """Mean over channels of (x_out - x_in)^2 per token, in fp32, on the residual stream.

    Also against the previous stage: the block's output less its own output one stage earlier, resized
    (nearest), for the conditional row.
    While sampling, only norms over channels are taken, those of a small stage in one batch at its end; all else waits
    until the batch is done. Of a bf16 model the kept outputs are rounded to bf16, a relative error of 0.4 % at most.
    """

    name = "token-mse"

    previous: bool = option(True, "whether the change since the previous stage is logged: one output a block is kept")

    def start(self, context: Context) -> None:
        super().start(context)
        self.norms: dict[int, dict[Key, list[tuple[Stage, Tensor, Tensor]]]] = {}
        self.outputs: dict[int, tuple[Stage, Tensor, Tensor]] = {}  # last stage, output [B, n, C], its norms [B, n]
        self.room: Tensor | None = None
        self.pending: list[tuple[Key, Tensor, Tensor]] = []  # what a stream x [R, n, C] grows by, y

    def on_sublayer(self, site: Site, x: Tensor, y: Tensor) -> None:
        self._wait(site, str(site.sublayer), x, y)

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self._wait(site, "block", x_in, x_out)

    def _wait(self, site: Site, name: str, x: Tensor, y: Tensor) -> None:
        """For the end of the stage, unless the tensors are large: then nothing may hold them longer than the run."""
        self.pending.append(((site.block, name), x, y))
        if not small(x):
            self.reduce(site.stage)

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.reduce(stage)

    def reduce(self, stage: Stage) -> None:
        """Norms over channels [R, n] of what is added and of what it is added to, of all that is pending."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        changes = norms([y - x if name == "block" else y for (_, name), x, y in pending], self.context.buffers)
        levels = self.context.all_lengths([x for _, x, _ in pending])
        places = self.norms.setdefault(stage.index, {})
        for (key, _, _), change, level in zip(pending, changes, levels, strict=True):
            places.setdefault(key, []).append((stage, change, level))
        outs = {block: out for (block, name), _, out in pending if name == "block"}
        if self.previous and outs and stage.plan.selection is None:
            self._against_previous(stage, outs)

    def _against_previous(self, stage: Stage, outs: dict[int, Tensor]) -> None:
        """outs: by block [R, n, C]; only the conditional rows are compared."""
        now = {block: out[: stage.batch] for block, out in outs.items()}
        lengths = dict(zip(outs, self.context.all_lengths(list(outs.values())), strict=True))
        former = {block: self.outputs.pop(block) for block in outs if block in self.outputs}
        ready = [b for b, (past, _, _) in former.items() if past.samples == stage.samples and past.index < stage.index]
        for past in dict.fromkeys(former[b][0].index for b in ready):  # one, unless plans skip blocks
            blocks = [b for b in ready if former[b][0].index == past]
            cell = nearest(former[blocks[0]][0].grid, stage.grid, outs[blocks[0]].device)
            up = [former[b][1].index_select(1, cell) for b in blocks]
            gaps = norms([now[b] - x for b, x in zip(blocks, up, strict=True)], self.context.buffers)
            for b, gap in zip(blocks, gaps, strict=True):
                then = former[b][2].index_select(1, cell)
                room = self.context.buffers.empty((stage.batch, 3, gap.shape[-1]), gap.dtype)
                sides = torch.stack([gap, lengths[b][: stage.batch], then], 1, out=room)
                self.recorder.put(("sides", stage.index, b), stage.samples, sides)
        if stage.from_end > 0:
            for block, x in now.items():
                self.outputs[block] = (stage, self._keep(block, x), lengths[block][: stage.batch])

    def _keep(self, block: int, x: Tensor) -> Tensor:
        """A copy of a block's output [B, n, C] where its former one was, in room that lasts for all stages."""
        if self.room is None or self.room.shape[1] < x.numel():  # the parts of a split batch differ in size
            kept = torch.bfloat16 if self.context.model.precision == "bf16" else torch.float32
            most = len(x) * max(self.context.model.schedule.lengths[:-1])
            self.room = x.new_empty((self.context.model.depth, most * x.shape[-1]), dtype=kept)
        return self.room[block, : x.numel()].view(x.shape).copy_(x)

    def log(self) -> Log:
        self.outputs, self.pending, self.room = {}, [], None
        model = self.context.model
        sublayers, blocks = ("block", *model.sublayers), range(model.depth)
        shape = (len(self.samples), len(self.stages), len(blocks), len(sublayers), len(GUIDANCE_ROWS))
        mse, relative, edge = (np.full(shape, np.nan, np.float32) for _ in range(3))
        edge_rows = np.full(shape[:-1], np.nan, np.float32)
        groups = {}
        sobel = sobel_magnitude(luma(self.image))
        for k in self.norms:
            ran = [b for b in blocks if (b, "block") in self.norms[k]]
            change, level = self._squares(k, [(b, name) for b in ran for name in sublayers])
            pairs = (len(self.samples), len(ran), len(sublayers), len(GUIDANCE_ROWS))
            mse[:, k, ran] = change.nanmean(-1).view(pairs).cpu().numpy()
            relative[:, k, ran] = (change.nanmean(-1) / level.nanmean(-1)).view(pairs).cpu().numpy()
            edges = edges_on_grid(sobel, model.schedule.grids[k]).flatten(1)
            edge[:, k, ran] = spearman(change, edges[:, None, None]).view(pairs).cpu().numpy()
            rows = change.nanmean(2)  # both rows, or the one that ran
            edge_rows[:, k, ran] = spearman(rows, edges[:, None]).view(pairs[:-1]).cpu().numpy()
            maps = change.view(*pairs, -1)
            groups[f"{self.name}/stage-{k + 1:02d}"] = self._map_group(maps, ran, model.schedule.grids[k], sublayers)
        dims = ("stage", "block", "sublayer", "guidance_row")
        variables: Variables = {
            "mse": (dims, mse, "1"),
            "relative_mse": (dims, relative, "1"),
            "edge_correlation": (dims, edge, "1"),
            "edge_correlation_rows": (dims[:-1], edge_rows, "1"),  # of the map averaged over both rows
        }
        if self.previous:
            variables |= self._previous(blocks)
        return {self.name: self.group(variables, sublayer=sublayers, guidance_row=GUIDANCE_ROWS), **groups}

    def _squares(self, k: int, keys: list[Key]) -> tuple[Tensor, Tensor]:
        """Mean squares over channels of change and level of stage k [n, len(keys), rows, h*w]."""
        found = [{id(part[0]): part for part in self.norms[k].get(key, ())} for key in keys]
        # One, unless plans split the batch or the stage ran in parts.
        for own in dict.fromkeys(own for parts in found for own in parts):
            stage, ran, _ = next(parts[own] for parts in found if own in parts)
            missing = stage, *[torch.full_like(ran, torch.nan)] * 2  # of a block that was not reached, or not seen
            _, changes, levels = zip(*(parts.get(own, missing) for parts in found), strict=True)
            for name, values in (("change", changes), ("level", levels)):
                rows = torch.stack(values)  # [keys, R, n]
                squares = by_row(on_grid(rows, stage), stage).movedim(0, 2).square() / self.context.model.width
                self.recorder.put((name, k), stage.samples, squares.transpose(1, 2))
        change, level = (self.recorder.collect((name, k), self.samples) for name in ("change", "level"))
        assert change is not None and level is not None
        return change, level

    def _map_group(self, maps: Tensor, ran: list[int], grid: Grid, sublayers: tuple[str, ...]) -> Group:
        """maps [n, blocks that ran, sublayers, rows, h*w]."""
        small = pooled(maps, grid).cpu().numpy()
        full = np.full((small.shape[0], self.context.model.depth, *small.shape[2:]), np.nan, np.float32)
        full[:, ran] = small
        variables: Variables = {"mse": (("block", "sublayer", "guidance_row", "y", "x"), full, "1")}
        return self.group(variables, {"grid": list(grid)}, sublayer=sublayers, guidance_row=GUIDANCE_ROWS)

    def _previous(self, blocks: range) -> Variables:
        shape = (len(self.samples), len(self.stages), len(blocks))
        step, relative, cosine = (np.full(shape, np.nan, np.float32) for _ in range(3))
        for k in self.stages:
            found = {b: self.recorder.collect(("sides", k, b), self.samples) for b in blocks}
            sides = {b: values for b, values in found.items() if values is not None}
            if not sides:
                continue
            ran = list(sides)
            gap, now, then = torch.stack(list(sides.values()), 1).square().unbind(2)
            step[:, k, ran] = (gap.mean(-1) / self.context.model.width).cpu().numpy()
            relative[:, k, ran] = (gap.mean(-1) / now.mean(-1)).cpu().numpy()
            # The third side of the triangle gives the angle.
            cosine[:, k, ran] = ((now + then - gap) / (2 * (now * then).sqrt())).mean(-1).cpu().numpy()
        dims = ("stage", "block")
        return {
            "step_mse": (dims, step, "1"),
            "relative_step_mse": (dims, relative, "1"),
            "step_cosine": (dims, cosine, "1"),
        }


@cache
def nearest(coarse: Grid, fine: Grid, device: torch.device) -> Tensor:
    """For every cell of the fine grid, the flat index of the coarse cell that it lies in [h*w]."""
    y = torch.arange(fine[0], device=device) * coarse[0] // fine[0]
    x = torch.arange(fine[1], device=device) * coarse[1] // fine[1]
    return (y[:, None] * coarse[1] + x).flatten()
