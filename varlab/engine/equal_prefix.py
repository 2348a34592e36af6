"""The sublayers of a stage that carries a text, where the null text is one token many times."""

import torch
from torch import Tensor

from varlab.engine.attend import attend_rows
from varlab.engine.context import Context
from varlab.engine.counting import count
from varlab.engine.images import Images
from varlab.engine.stage import Site
from varlab.models.base import EqualPrefix


def text_sublayer(context: Context, images: Images, site: Site, x: Tensor) -> Tensor:
    """The sublayer on a stage whose unconditional rows are one token many times: that token is computed once."""
    model, scale, seen = context.model, context.model.attention_scale, list[tuple[Tensor, Tensor]]()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((k, v))
        return attend_rows(q, k, v, None, scale, EqualPrefix())

    rows, last = (torch.arange(images.rows, device=x.device), torch.arange(x.shape[1] - 1, x.shape[1], device=x.device))
    parts = []
    for half, index in zip(rows.chunk(2), (None, last), strict=True):
        conditioning, tokens = images.conditioning.rows(half), x[half] if index is None else x[half][:, index]
        positions = model.positions(site.stage.index, conditioning, index)
        parts.append(model.sublayer(site.block, str(site.sublayer), tokens, conditioning, positions, attend))
    if seen:
        (k, v), (null_k, null_v) = seen
        k, v = torch.cat([k, null_k.expand_as(k)]), torch.cat([v, null_v.expand_as(v)])
        images.kv.append(site.block, k, v, None)
        images.kv.equal_prefix[site.block] = model.equal_prefix
        images.attended[site.block] = site.stage.index
    count(context, images, site, x.shape[1], x.shape[1] if seen else 0)
    return torch.cat([parts[0], parts[1].expand_as(parts[0])])
