"""Token baselines: the same pruning and the same fill as SparseVAR's keep-ratio mode, by another choice of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.accelerators.pruning import TokenPruning
from varlab.engine.memory import upload
from varlab.engine.stage import Stage


class RandomTokens(TokenPruning):
    """Any tokens, drawn anew for each image and stage: what a score must beat."""

    name = "random-tokens"
    blind = True

    def scores(self, stage: Stage) -> Tensor:
        shape = (stage.grid[0] * stage.grid[1],)
        drawn = self.context.noise.uniform("tokens", stage.index, stage.samples, shape)
        return upload(drawn, self.context.model.device)


class UniformTokens(TokenPruning):
    """Evenly spread tokens, the same for all images. Source of the pattern: the additive R2 sequence (Roberts 2018)."""

    name = "uniform-tokens"
    blind = True

    def scores(self, stage: Stage) -> Tensor:
        height, width = stage.grid
        y, x = torch.arange(height)[:, None], torch.arange(width)[None]
        order = -((y * 0.7548776662466927 + x * 0.5698402909980532) % 1).reshape(1, -1)
        return upload(order, self.context.model.device)


class OracleTokens(TokenPruning):
    """The tokens where the stage changes the pixels most in the dense run of the same seed: a bound, not a method.

    Residual energy is read from decoded pixels, since binary codes all have the same norm. The dense run and its
    decodes are not charged to the ledger and never count as a saving.
    """

    name = "oracle-tokens"
    needs = ("dense",)

    def scores(self, stage: Stage) -> Tensor:
        dense = self.context.dense
        assert dense is not None
        before, after = (dense.after(k, stage.samples) for k in (stage.index, stage.index + 1))
        energy = (after - before).square().sum(1, keepdim=True)
        return F.interpolate(energy, size=(stage.grid[0], stage.grid[1]), mode="area").flatten(1)
