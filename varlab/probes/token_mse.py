"""Token MSE: how much a block, and each of its branches, changes every token.

Source of the question: SparseVAR, observation 2 (different blocks attend to different regions).
"""

import numpy as np
import torch
from torch import Tensor

from varlab.engine.stage import Site
from varlab.metrics import edge_energy, spearman
from varlab.probes.base import BRANCHES, Log, LoggingProbe, by_branch, on_grid, pooled


class TokenMSE(LoggingProbe):
    """Mean over channels of (x_out - x_in)^2 per token, in fp32, on the residual stream.

    Also against the previous stage: the block's output less its own output one stage earlier, resized
    (nearest), for the conditional branch. ``previous=False`` leaves this out: it keeps one output a block.
    """

    name = "token-mse"

    def __init__(self, previous: bool = True) -> None:
        self.previous = previous

    def on_branch(self, site: Site, x: Tensor, y: Tensor) -> None:
        self._keep(site, str(site.branch), y, x)

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self._keep(site, "block", x_out - x_in, x_in)
        if self.previous and site.stage.plan.selection is None:
            self._against_previous(site, x_out[: site.stage.batch])

    def _keep(self, site: Site, name: str, change: Tensor, x_in: Tensor) -> None:
        stage, key = site.stage, (site.stage.index, site.block, name)
        squared = torch.linalg.vector_norm(change, dim=-1).square() / change.shape[-1]
        level = torch.linalg.vector_norm(x_in, dim=-1).square().mean(-1) / x_in.shape[-1]
        self.kept.put(("map", *key), stage.samples, by_branch(on_grid(squared, stage), stage))
        self.kept.put(("relative", *key), stage.samples, by_branch(squared.mean(-1) / level, stage))

    def _against_previous(self, site: Site, x: Tensor) -> None:
        """x [B, n, C] of the conditional branch."""
        stage, key = site.stage, ("output", site.block)
        before = self.kept.parts.get(key)
        self.kept.parts[key] = [(stage.samples, x)]
        if before is None or before[0][0] != stage.samples or stage.index == 0:
            return
        last = before[0][1].mT.unflatten(-1, stage.schedule.grids[stage.index - 1])
        up = torch.nn.functional.interpolate(last, size=stage.grid, mode="nearest").flatten(2).mT
        place = (stage.index, site.block)
        self.kept.put(("step", *place), stage.samples, (x - up).square().mean((1, 2)) / x.square().mean((1, 2)))
        cosine = torch.nn.functional.cosine_similarity(x, up, dim=-1).mean(-1)
        self.kept.put(("cosine", *place), stage.samples, cosine)

    def log(self) -> Log:
        sites = ("block", *self.run.model.branches)
        edges = [edge_energy(self.image, grid).flatten(1) for grid in self.run.model.schedule.grids]
        blocks, groups = range(self.run.model.depth), {}
        shape = (len(self.samples), len(self.stages), len(blocks), len(sites), len(BRANCHES))
        mse, relative, edge = (np.full(shape, np.nan, np.float32) for _ in range(3))
        for k in self.stages:
            maps = [[self.kept.collect(("map", k, b, s), self.samples) for s in sites] for b in blocks]
            ran = [(b, s) for b in blocks for s in range(len(sites)) if maps[b][s] is not None]
            if not ran:
                continue
            stacked = torch.stack([maps[b][s] for b, s in ran], 1)  # type: ignore[arg-type]  # [n, pairs, branch, h*w]
            at_b, at_s = np.array(ran).T
            mse[:, k, at_b, at_s] = stacked.nanmean(-1).cpu().numpy()
            edge[:, k, at_b, at_s] = spearman(stacked, edges[k][:, None, None]).cpu().numpy()
            levels = [self.kept.collect(("relative", k, b, sites[s]), self.samples) for b, s in ran]
            relative[:, k, at_b, at_s] = torch.stack(levels, 1).cpu().numpy()  # type: ignore[arg-type]
            groups[f"{self.name}/stage-{k + 1:02d}"] = self._map_group(k, ran, stacked, len(blocks), sites)
        dims = ("stage", "block", "site", "branch")
        variables = {
            "mse": (dims, mse, "1"),
            "relative_mse": (dims, relative, "1"),
            "edge_correlation": (dims, edge, "1"),
        }
        if self.previous:
            variables |= self._previous(blocks)
        return {self.name: self.dataset(variables, site=sites, branch=BRANCHES), **groups}

    def _map_group(self, k: int, ran: list[tuple[int, int]], stacked: Tensor, blocks: int, sites: tuple[str, ...]):  # type: ignore[no-untyped-def]
        small = pooled(stacked, self.run.model.schedule.grids[k]).cpu().numpy()
        full = np.full((len(self.samples), blocks, len(sites), *small.shape[2:]), np.nan, np.float32)
        at_b, at_s = np.array(ran).T
        full[:, at_b, at_s] = small
        group = self.dataset({"mse": (("block", "site", "branch", "y", "x"), full, "1")}, site=sites, branch=BRANCHES)
        group.attrs["grid"] = list(self.run.model.schedule.grids[k])
        return group

    def _previous(self, blocks: range) -> dict[str, tuple[tuple[str, ...], np.ndarray, str]]:
        def table(name: str) -> np.ndarray:
            rows = [self.kept.table([(name, k, b) for b in blocks], self.samples) for k in self.stages]
            return np.stack(rows, 1)

        return {
            "step_mse": (("stage", "block"), table("step"), "1"),
            "step_cosine": (("stage", "block"), table("cosine"), "1"),
        }
