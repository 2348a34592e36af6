"""The branches of a stage that carries a text, where the null text is one token many times."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from varlab.engine.attend import attend_rows
from varlab.engine.counting import count
from varlab.engine.stage import Site
from varlab.engine.state import State
from varlab.models.base import EqualPrefix

if TYPE_CHECKING:
    from varlab.engine.loop import Run


def text_sublayer(run: "Run", state: State, site: Site, x: Tensor) -> Tensor:
    """The branch on a stage whose unconditional rows are one token many times: that token is computed once."""
    model, scale, seen = run.model, run.model.attention_scale, list[tuple[Tensor, Tensor]]()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((k, v))
        return attend_rows(q, k, v, None, scale, EqualPrefix())

    rows, last = (
        torch.arange(state.rows, device=x.device),
        torch.arange(x.shape[1] - 1, x.shape[1], device=x.device),
    )
    made = []
    for half, index in zip(rows.chunk(2), (None, last), strict=True):
        conditioning, tokens = state.conditioning.rows(half), x[half] if index is None else x[half][:, index]
        positions = model.positions(site.stage.index, conditioning, index)
        made.append(model.sublayer(site.block, str(site.sublayer), tokens, conditioning, positions, attend))
    if seen:
        (k, v), (null_k, null_v) = seen
        k, v = torch.cat([k, null_k.expand_as(k)]), torch.cat([v, null_v.expand_as(v)])
        state.kv.append(site.block, k, v, None)
        state.kv.equal_prefix[site.block] = model.equal_prefix
        state.attended[site.block] = site.stage.index
    count(run, state, site, x.shape[1], x.shape[1] if seen else 0)
    return torch.cat([made[0], made[1].expand_as(made[0])])
