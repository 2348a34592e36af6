"""Which rows and tokens a stage's plan names: selections turned into indices."""

from dataclasses import replace

import torch
from torch import Tensor

from varlab.engine.memory import upload
from varlab.engine.plan import StagePlan
from varlab.engine.stage import Stage
from varlab.models.base import NextScaleModel


def part(answer: StagePlan | list[StagePlan], index: list[int]) -> StagePlan:
    """An accelerator's answer for the samples ``index``, which share a plan."""
    if isinstance(answer, list):
        return answer[index[0]]
    if answer.selection is None:
        return answer
    return replace(
        answer, selection=answer.selection.samples(upload(torch.tensor(index), answer.selection.index.device))
    )


def on_grid(model: NextScaleModel, stage: Stage, x: Tensor) -> Tensor:
    """What hooks see: tokens [R, prefix + n, C] without the prefix."""
    prefix = model.prefix(stage.index)
    return x[:, prefix:] if prefix else x


def row_index(stage: Stage, rows: int) -> Tensor | None:
    """Positions of the computed tokens, [n] shared or [rows, n] the same for both guidance rows; None for all."""
    selection = stage.plan.selection
    if selection is None or selection.index.ndim == 1:
        return None if selection is None else selection.index
    return selection.index.repeat(rows // stage.batch, 1)


def key_bias(stage: Stage, rows: int) -> Tensor | None:
    """What the attention logits of this stage's keys grow by [R, n]: 0, log counts, -inf for padding; None for 0."""
    selection = stage.plan.selection
    if selection is None or (selection.valid is None and selection.counts is None):
        return None
    counts = torch.ones_like(selection.index) if selection.counts is None else selection.counts
    bias = counts.float().log()
    if selection.valid is not None:
        bias = bias.masked_fill(~selection.valid, -torch.inf)
    bias = bias.expand(stage.batch, -1)
    return bias.repeat(rows // stage.batch, 1)


def pass_bias(stage: Stage, index: Tensor | None, seen: Tensor | None, keys: int, rows: int) -> Tensor | None:
    """``seen`` [R, 1, 1, N] with the keys of later passes hidden from each query: [R, 1, n, N]; as it is for one pass.

    The computed tokens ``index`` are the last of the N keys.
    """
    if stage.passes is None:
        return seen
    passes = stage.passes.repeat(rows // stage.batch, 1)  # [R, h*w]
    if index is not None:
        passes = passes.gather(1, index.expand(rows, -1))
    later = passes[:, None, :, None] < passes[:, None, None, :]  # [R, 1, queries, keys]
    count = later.shape[-1]
    bias = later.new_zeros(rows, 1, count, keys, dtype=torch.float32)
    bias[..., keys - count :].masked_fill_(later, -torch.inf)
    return bias if seen is None else bias + seen


def take(x: Tensor, index: Tensor) -> Tensor:
    """x [B, N, d] at positions [n] or [B, n]."""
    if index.ndim == 1:
        return x[:, index]
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
