"""In which type weights are kept and in which is computed, and the choice of both by a measurement of the machine."""

from functools import cache
from statistics import median

import torch
from torch import nn

from varlab.machine import DIFFUSION, DTYPES, fastest, half, rates
from varlab.models.packed import PackedLinear, can_pack
from varlab.models.quantised import INT8
from varlab.models.widened import BF16_WEIGHTS
from varlab.weights.official import ModelEntry
from varlab.weights.registry import parameters

PRECISIONS = tuple(DTYPES)
AUTO = "auto"
ROWS, ROUNDS = 256, 3  # of the measurement of packed weights
LARGE = 500_000_000  # parameters from which half the memory counts


def text_precision(precision: str) -> str:
    """Of the text encoder beside a model of this precision: it runs once an image."""
    return {BF16_WEIGHTS: "bf16", INT8: "fp32"}.get(precision, precision.removesuffix(DIFFUSION))


@cache
def gain(device: str, precision: str) -> float:
    """How many times as fast as fp32 this device multiplies so, measured once a process in about a second."""
    first, second = (rates(torch.device(device), kind, tokens=128, keys=128).matmul for kind in (precision, "fp32"))
    return first / second


@cache
def packs_faster(device: str, width: int) -> bool:
    """Whether this processor multiplies bf16 weights of this width faster once they are laid out for it; measured once
    a process, in some ten milliseconds."""
    if torch.device(device).type != "cpu" or not can_pack():
        return False
    x = torch.zeros(ROWS, width, dtype=torch.bfloat16)
    layer = nn.utils.skip_init(nn.Linear, width, width, dtype=torch.bfloat16)  # the caller's own numbers stay undrawn
    with torch.inference_mode():
        layer.weight.zero_()
        packed = PackedLinear(layer)
        rounds = [(fastest(lambda: packed(x), x.device), fastest(lambda: layer(x), x.device)) for _ in range(ROUNDS)]
    return median(own / plain for own, plain in rounds) < 1


def chosen(entry: ModelEntry, asked: str | None, init: str | None, device: str) -> tuple[str, str]:
    """The precision of a model, and why where it was left to us.

    By default fp32, but for the official models of half a billion parameters and more on random weights: those mean
    nothing in fp32 either and take half the memory. They, and any model with ``AUTO``, compute in bf16 where that is
    faster here, or in fp16 on a GPU without bf16; else a large model on a CPU keeps its weights in bf16 and computes in
    fp32, and others are all fp32.
    """
    large = parameters(entry.transformer) >= LARGE
    if asked is None and not (large and init == "random" and entry.folder is None):
        return "fp32", ""
    if asked not in (None, AUTO):
        return asked, ""
    kind, halved = torch.device(device).type, half(torch.device(device))
    faster = gain(device, halved)
    said = f"{kind} multiplies {halved} {faster:.2g} times as fast as fp32"
    if faster >= 1:
        return halved, said
    widened = large and kind == "cpu"
    return (BF16_WEIGHTS, f"{said}: weights in bf16, arithmetic in fp32") if widened else ("fp32", said)
