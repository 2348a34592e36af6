"""Golden runs of HART's hybrid tokenizer: encode, quantise in both ways, decode discrete and continuous latents."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.parity import weights
from varlab.parity.comparison import Comparison, held_to
from varlab.schedules import Grid


def config_of(vae: dict[str, Any], vocabulary: int | None = None) -> HybridConfig:
    """From the official arguments; the released sizes where they are silent."""
    return HybridConfig(
        vocabulary=vae.get("vocab_size", 4096) if vocabulary is None else vocabulary,
        latents=vae.get("z_channels", 32),
        channels=vae.get("ch", 160),
        multipliers=tuple(vae.get("ch_mult", (1, 1, 2, 2, 4))),
        phis=vae.get("share_quant_resi", 4),
        mix=abs(vae.get("quant_resi", 0.5)),
        kernel=vae.get("quant_conv_ks", 3),
    )


def tokenizer_of(vae: dict[str, Any], seed: int, vocabulary: int | None = None) -> HybridTokenizer:
    """The tokenizer with a golden's weights."""
    return weights.fill(HybridTokenizer(config_of(vae, vocabulary)).eval(), seed, weights.hart_rule, "vae.")


@held_to(given="state_keys meta_json", abs="*")
def compare(comparison: Comparison) -> None:
    """Labels exact but for near ties."""
    golden, vae = comparison.golden, comparison.golden.require("vae")
    tokenizer = tokenizer_of(vae, golden.require("seed"))
    grids = [(int(side), int(side)) for side in vae.get("v_patch_nums", ())]
    side = grids[-1][0] * tokenizer.config.stride
    stored = golden.arrays.get("image_in")  # else two images of the last scale
    numbers = weights.normal(
        "input.image", golden.require("seed"), (2, 3, side, side) if stored is None else stored.shape
    )
    image = torch.from_numpy(np.tanh(numbers).astype(np.float32))
    latent = tokenizer.encode(image)
    comparison.hold({"image_in": image, "encoder_out": tokenizer.encoder(image), "f": latent})
    canvases, _ = _compare_steps(comparison, tokenizer, latent, grids, "")
    comparison.hold({f"fhat.{k}": canvas for k, canvas in enumerate(canvases)})
    inputs = [area(canvas, grid).flatten(2).mT for canvas, grid in zip(canvases, grids[1:], strict=False)]
    _, left = _compare_steps(comparison, tokenizer, latent, grids, "hybrid_")
    values = {
        "var_input": torch.cat(inputs, 1),
        "hybrid_frest_before_last": left.flatten(2).mT,
        "rec_discrete": tokenizer.decode(canvases[-1]),
        "rec_continuous": tokenizer.decode(latent),
        "forward_out_discrete": tokenizer.pixels(canvases[-1]),
        "forward_out_continuous": tokenizer.pixels(latent),
    }
    comparison.hold(values)


def _compare_steps(
    comparison: Comparison, tokenizer: HybridTokenizer, latent: Tensor, grids: list[Grid], prefix: str
) -> tuple[list[Tensor], Tensor]:
    """-> canvases after each stage, and what the last stage had to explain; hybrid: without the last phi convolution.

    After a near tie the later stages answer to the golden's own label. The golden states no margins: ours stand in
    for them where its latent is ours.
    """
    agreed = any(row.name == "f" and row.ok for row in comparison.result.rows)

    def settle(tokens: Tensor, k: int) -> Tensor:
        distances = tokenizer.quantize.distances(tokens)
        two = distances.topk(2, largest=False).values
        noise = comparison.golden.tolerance("abs") * float(two.max())
        margin = two[..., 1] - two[..., 0] if agreed else None
        return torch.from_numpy(comparison.labels(f"{prefix}idx.{k}", distances.argmin(-1), margin, noise))

    steps = list(tokenizer.steps(latent, grids, last_phi=not prefix, choose=settle))
    return [step.canvas for step in steps], steps[-1].residual
