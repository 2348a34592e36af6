"""A hybrid tokenizer that starts from the convolutions of a BSQ tokenizer of the same shape.

Both networks are VAR's but for the attention, which begins as the identity. The bits of the one become the principal
axes of the other, as many as it has channels; the codebook comes of k-means over the residuals of all stages, the codes
that none is nearest to set to residuals drawn anew. Source of the k-means start: SoundStream (arXiv 2107.03312).
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.models.tokenizers.bsq import BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridTokenizer, SpatialAttention
from varlab.schedules import Grid

ROUNDS = 12
BATCH = 64


@torch.no_grad()
def start_from_bits(
    tokenizer: HybridTokenizer, source: BSQTokenizer, images: Tensor, grids: Sequence[Grid], seed: int
) -> None:
    """images [n, 3, H, W] in [-1, 1]: what axes and codes are fitted to. VarlabError where the networks differ."""
    latents = torch.cat([source.encoder(part) for part in images.split(BATCH)])
    axes, mean, scale = principal(latents, tokenizer.config.latents)
    weights = _renamed(source)
    _turn(weights, axes, mean, scale)
    own = tokenizer.state_dict()
    if wrong := [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]:
        raise VarlabError(f"The convolutions of {source.config} do not fit those of {tokenizer.config}: {wrong[:3]}.")
    tokenizer.load_state_dict(own | weights)
    for part in (tokenizer.quant_conv, tokenizer.post_quant_conv, *tokenizer.quantize.quant_resi.qresi_ls):
        nn.init.dirac_(part.weight)  # type: ignore[arg-type]
        nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    for attention in (m for m in tokenizer.modules() if isinstance(m, SpatialAttention)):
        nn.init.zeros_(attention.proj_out.weight)
        nn.init.zeros_(attention.proj_out.bias)  # type: ignore[arg-type]
    turned = torch.cat([tokenizer.encode(part) for part in images.split(BATCH)])
    fit_codes(tokenizer, turned, grids, torch.Generator().manual_seed(seed))


def principal(latents: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """latents [n, b, h, w] -> their first axes [count, b], mean [b], and the factor to a mean square of 1 on these."""
    rows = latents.movedim(1, -1).flatten(0, 2)
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).mT.cov())
    return vectors.mT.flip(0)[:count], mean, values.flip(0)[:count].mean().rsqrt()


def _renamed(source: BSQTokenizer) -> dict[str, Tensor]:
    """Under the names of the hybrid tokenizer, which wraps neither convolutions nor norms."""
    parts = {"encoder": source.encoder, "decoder": source.decoder}
    weights = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    return {re.sub(r"\.(conv|norm)\.(weight|bias)$", r".\2", key): value for key, value in weights.items()}


def _turn(weights: dict[str, Tensor], axes: Tensor, mean: Tensor, scale: Tensor) -> None:
    """The encoder ends on the axes and the decoder begins from them, as far from its borders as a kernel reaches."""
    out, into = "encoder.conv_out", "decoder.conv_in"
    weights[f"{out}.bias"] = scale * axes @ (weights[f"{out}.bias"] - mean)
    weights[f"{out}.weight"] = scale * torch.einsum("zb,bchw->zchw", axes, weights[f"{out}.weight"])
    weights[f"{into}.bias"] = weights[f"{into}.bias"] + weights[f"{into}.weight"].sum((2, 3)) @ mean
    weights[f"{into}.weight"] = torch.einsum("zb,cbhw->czhw", axes, weights[f"{into}.weight"]) / scale


def fit_codes(tokenizer: HybridTokenizer, latents: Tensor, grids: Sequence[Grid], generator: torch.Generator) -> None:
    """k-means of the codebook on what each stage has to explain of latents [n, Z, H, W]."""
    codes = tokenizer.quantize.embedding.weight
    rows = latents.movedim(1, -1).flatten(0, 2)
    shrink = torch.rand(len(codes), 1, generator=generator)
    codes.copy_(rows[torch.randperm(len(rows), generator=generator)[: len(codes)]] * shrink)
    for _ in range(ROUNDS):
        seen: list[Tensor] = []
        labels: list[Tensor] = []

        def choose(tokens: Tensor, k: int, seen: list[Tensor] = seen, labels: list[Tensor] = labels) -> Tensor:
            found = tokenizer.quantize.nearest(tokens)
            seen.append(tokens.flatten(0, 1))
            labels.append(found.flatten())
            return found

        for part in latents.split(BATCH):
            list(tokenizer.steps(part, grids, last_phi=False, choose=choose))
        _recentre(codes, torch.cat(seen), torch.cat(labels), generator)


def _recentre(codes: Tensor, tokens: Tensor, labels: Tensor, generator: torch.Generator) -> None:
    count = torch.bincount(labels, minlength=len(codes))[:, None]
    sums = torch.zeros_like(codes).index_add_(0, labels, tokens)
    drawn = tokens[torch.randint(len(tokens), (len(codes),), generator=generator)]
    codes.copy_(torch.where(count > 0, sums / count.clamp(min=1), drawn))
