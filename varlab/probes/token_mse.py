"""Token MSE: how much a block, and each of its sublayers, changes every token.

Source of the question: SparseVAR, observation 2 (different blocks attend to different regions).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.norms import norms, small, together
from varlab.engine.stage import Site, Stage
from varlab.machine import DTYPES
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
        # By stage, of all blocks or, where tokens are large, of each sublayer: norms [m, R, n] of what m keys add to
        # the stream, and of the stream before it.
        self.norms: dict[int, list[tuple[Stage, list[Key], Tensor, Tensor]]] = {}
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
        added = [(key, x, y) for key, x, y in pending if key[1] != "block"]
        ran = [(key, x, y) for key, x, y in pending if key[1] == "block"]
        keys, streams = [key for key, _, _ in added + ran], [x for _, x, _ in added + ran]
        outs = together([out for _, _, out in ran]) if ran else None
        changes = [] if outs is None else [outs - together([x for _, x, _ in ran])]
        if added:
            changes.insert(0, together([y for _, _, y in added]))
        change = [norms(values, self.context.buffers) for values in changes]
        lengths = self.context.lengths([*streams, *[out for _, _, out in ran]])
        parts = self.norms.setdefault(stage.index, [])
        parts.append((stage, keys, torch.cat(change) if len(change) > 1 else change[0], lengths[: len(keys)]))
        if self.previous and outs is not None and stage.plan.selection is None:
            rows = slice(stage.batch)  # the conditional ones
            self._against_previous(
                stage, [block for (block, _), _, _ in ran], outs[:, rows], lengths[len(keys) :, rows]
            )

    def _against_previous(self, stage: Stage, blocks: list[int], outs: Tensor, lengths: Tensor) -> None:
        """Outputs [m, B, n, C] of these blocks, and their norms [m, B, n]."""
        former = {block: self.outputs.pop(block) for block in blocks if block in self.outputs}
        ready = [b for b, (past, _, _) in former.items() if past.samples == stage.samples and past.index < stage.index]
        for past in dict.fromkeys(former[b][0].index for b in ready):  # one, unless plans skip blocks
            chosen = [b for b in ready if former[b][0].index == past]
            now, length = outs, lengths
            if chosen != blocks:
                now, length = (together([values[blocks.index(b)] for b in chosen]) for values in (outs, lengths))
            cell = nearest(former[chosen[0]][0].grid, stage.grid, outs.device)
            before = together([former[b][1] for b in chosen]).index_select(2, cell)
            then = together([former[b][2] for b in chosen]).index_select(2, cell)
            gap = norms(now - before, self.context.buffers)
            room = self.context.buffers.empty((len(chosen), stage.batch, 3, gap.shape[-1]), gap.dtype)
            sides = torch.stack([gap, length, then], 2, out=room).transpose(0, 1)
            self.recorder.put(("sides", stage.index, tuple(chosen)), stage.samples, sides)
        if stage.from_end > 0:
            kept = zip(self._stored(blocks, outs), lengths, strict=True)
            self.outputs |= {block: (stage, out, length) for block, (out, length) in zip(blocks, kept, strict=True)}

    def _stored(self, blocks: list[int], outs: Tensor) -> Sequence[Tensor]:
        """Copies of blocks' outputs [m, B, n, C] where their former ones were, in room that lasts for all stages."""
        size = outs[0].numel()
        if self.room is None or self.room.shape[1] < size:  # the parts of a split batch differ in size
            halved = DTYPES.get(self.context.model.precision) == torch.bfloat16
            kept = torch.bfloat16 if halved else torch.float32
            most = outs.shape[1] * max(self.context.model.schedule.lengths[:-1])
            self.room = outs.new_empty((self.context.model.depth, most * outs.shape[-1]), dtype=kept)
        room = self.room[:, :size].unflatten(1, outs.shape[1:])
        if len(blocks) == blocks[-1] - blocks[0] + 1:
            return room[blocks[0] : blocks[-1] + 1].copy_(outs).unbind()
        return [room[block].copy_(out) for block, out in zip(blocks, outs, strict=True)]

    def log(self) -> Log:
        self.outputs, self.pending, self.room = {}, [], None
        model = self.context.model
        sublayers, blocks = ("block", *model.sublayers), range(model.depth)
        shape = (len(self.samples), len(self.stages), len(blocks), len(sublayers), len(GUIDANCE_ROWS))
        mse, relative, edge = (np.full(shape, np.nan, np.float32) for _ in range(3))
        edge_rows = np.full(shape[:-1], np.nan, np.float32)
        groups = {}
        sobel = sobel_magnitude(luma(self.image))
        for k, parts in self.norms.items():
            keys = {key for _, listed, _, _ in parts for key in listed}
            ran = [b for b in blocks if (b, "block") in keys]
            pairs = (len(self.samples), len(ran), len(sublayers), len(GUIDANCE_ROWS))
            squares = self._squares(k, [(b, name) for b in ran for name in sublayers])
            means, change = squares.nanmean(-1).cpu().numpy(), squares[:, 0]  # [n, 2, keys, rows]
            mse[:, k, ran] = means[:, 0].reshape(pairs)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative[:, k, ran] = (means[:, 0] / means[:, 1]).reshape(pairs)
            edges = edges_on_grid(sobel, model.schedule.grids[k]).flatten(1)[:, None, None]
            both = change.nanmean(2, keepdim=True)  # both rows, or the one that ran
            ranked = spearman(torch.cat([change, both], 2), edges).cpu().numpy()  # [n, keys, rows + 1]
            edge[:, k, ran] = ranked[..., :-1].reshape(pairs)
            edge_rows[:, k, ran] = ranked[..., -1].reshape(pairs[:-1])
            maps = change.reshape(*pairs, -1)
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

    def _squares(self, k: int, keys: list[Key]) -> Tensor:
        """Mean squares over channels of change and level of stage k [n, 2, len(keys), rows, h*w]."""
        parts = {id(part[0]): part[0] for part in self.norms[k]}
        for own, stage in parts.items():  # one, unless plans split the batch or the stage ran in parts
            mine = [part for part in self.norms[k] if id(part[0]) == own]
            place = {key: i for i, key in enumerate(key for _, listed, _, _ in mine for key in listed)}
            rows = torch.cat([torch.stack([change, level]) for _, _, change, level in mine], 1)  # [2, m, R, n]
            if not place.keys() >= set(keys):  # a block was not reached, or not seen
                rows = torch.cat([rows, torch.full_like(rows[:, :1], torch.nan)], 1)
            order = torch.tensor([place.get(key, rows.shape[1] - 1) for key in keys], device=rows.device)
            rows = on_grid(rows.index_select(1, order), stage)
            squares = by_row(rows, stage).square() / self.context.model.width  # [2, keys, B, rows, h*w]
            self.recorder.put(("squares", k), stage.samples, squares.movedim(2, 0))
        found = self.recorder.collect(("squares", k), self.samples)
        assert found is not None
        return found

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
            if (kept := self.recorder.by_block("sides", k, self.samples)) is None:
                continue
            ran, sides = kept
            squares = sides.square()
            means, (gap, now, then) = squares.mean(-1).cpu().numpy(), squares.unbind(2)
            step[:, k, ran] = means[..., 0] / self.context.model.width
            relative[:, k, ran] = means[..., 0] / means[..., 1]
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
