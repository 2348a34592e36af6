"""Tiny random models for the laws of the engine: seconds, no weights."""

import torch

from varlab import schedules
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer, TextBatch
from varlab.models.infinity_model import Infinity
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer

SCHEDULES = {
    "square": schedules.square((1, 2, 3, 5), "square"),
    "odd-tall": schedules.custom([(1, 1), (2, 1), (3, 2), (5, 3)], "odd-tall"),
    "long": schedules.square((1, 2, 3, 4, 5, 6, 7, 8), "long"),
    "official-wide": schedules.Schedule(schedules.infinity("0.06M", 0.571).grids[:4], (48, 84), "wide"),
}
TEXT_WIDTH = 128


# Bit equality needs one order of summation; fixtures of any scope must see it, so no fixture sets it.
torch.set_num_threads(1)


def tiny_infinity(schedule: str = "square", patchify: bool = False, seed: int = 0) -> Infinity:
    """Four blocks, 64 channels; gates are enlarged so that every branch matters."""
    torch.manual_seed(seed)
    bits = 4
    config = InfinityConfig(
        depth=4, width=64, heads=2, bits=bits * (4 if patchify else 1), chunks=2, text_width=TEXT_WIDTH,
        text_length=16, patchify=patchify,
    )  # fmt: skip
    tokenizer = BSQTokenizer(BSQConfig(bits=bits, stride=4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4))
    transformer = InfinityTransformer(config)
    with torch.no_grad():
        for block in transformer.blocks:
            block.ada_gss.mul_(3)
    model = Infinity(
        transformer.eval().requires_grad_(False),
        tokenizer.eval().requires_grad_(False),
        SCHEDULES[schedule],
        name="tiny",
        settings=Settings(cfg=2.0, tau=1.0),
    )
    return model


def features(*lengths: int, seed: int = 1) -> TextBatch:
    generator = torch.Generator().manual_seed(seed)
    return TextBatch(torch.randn(sum(lengths), TEXT_WIDTH, generator=generator), lengths)
