"""Golden runs of Infinity's BSQ-VAE: encode, quantise, area-downsampled inputs, decode."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer, area, codes_of, quantise, upsample
from varlab.parity import weights
from varlab.parity.comparison import Comparison, held_to
from varlab.parity.golden import Golden
from varlab.schedules import Grid


def grids_of(schedule: Sequence[Sequence[int]], patch: int = 1) -> list[Grid]:
    """Latent grids of (t, h, w) or (h, w) entries with ``patch`` latents on a side of a token."""
    return [(int(height) * patch, int(width) * patch) for *_, height, width in schedule]


def tokenizer_of(golden: Golden, vae: dict[str, Any], seed: int) -> BSQTokenizer:
    """The tokenizer with the golden's weights; the released sizes where ``vae`` is silent."""
    config = BSQConfig(
        bits=golden.require("bits"),
        stride=vae.get("patch", 16),
        channels=vae.get("base_ch", 128),
        multipliers=tuple(vae.get("ch_mult", (1, 2, 4, 4, 4))),
        blocks=vae.get("nres", 2),
    )
    return weights.fill(BSQTokenizer(config).eval(), seed, weights.infinity_rule)


@held_to(abs="*")
def compare(comparison: Comparison) -> None:
    """Bits exact but for near ties."""
    golden, seed = comparison.golden, comparison.golden.require("seed")
    tokenizer, grids = tokenizer_of(golden, golden.config, seed), grids_of(golden.require("schedule"))
    height, width = (side * tokenizer.config.stride for side in grids[-1])
    image = weights.image(seed, golden.config.get("B", 1), height, width)
    bits, canvas, latent = tokenizer.encode(image, grids)
    comparison.hold({"image": image, "h": latent})
    path = _compare_bits(comparison, bits, latent, grids)
    summed = list(accumulate(upsample(codes_of(step), grids[-1]) for step in path))
    comparison.hold({f"var_input_area_{k}": area(summed[k], grid) for k, grid in enumerate(grids[1:])})
    if not all(torch.equal(a, b) for a, b in zip(bits, path, strict=True)):
        canvas = summed[-1]
    values = {
        "z": canvas,
        "recon": tokenizer.decode(canvas),
        "recon_unclamped": tokenizer.decoder(canvas),
        "summed_from_bits": summed[-1],
        "recon_from_bits": tokenizer.decode(summed[-1]),
    }
    comparison.hold(values)


def _compare_bits(comparison: Comparison, bits: list[Tensor], latent: Tensor, grids: list[Grid]) -> list[Tensor]:
    """Hold the bits of every stage against the golden's. -> the golden's bits, ours where it has none.

    After a near tie our later bits answer to another residual, so they are quantised anew behind the golden's.
    """
    golden, path = comparison.golden, []
    residual, followed = latent, True
    reference = golden.tensor("h", latent.shape)
    for k, grid in enumerate(grids):
        ours = bits[k] if followed else quantise(residual, [grid])[0][0]
        margin = None if reference is None else area(reference, grid).abs().movedim(1, -1)[:, None]
        comparison.labels(f"bits_{k}", ours[:, None], margin, golden.tolerance("abs"))
        stored = golden.tensor(f"bits_{k}", ours[:, None].shape)
        step = ours if stored is None else stored[:, 0] > 0
        followed = followed and torch.equal(step, ours)
        path.append(step)
        code = upsample(codes_of(step), grids[-1])
        residual, reference = residual - code, None if reference is None else reference - code
    return path
