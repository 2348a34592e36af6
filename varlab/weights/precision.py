"""In which type weights are kept and in which is computed, and the choice of both by a measurement of the machine."""

from functools import cache

import torch

from varlab.machine import rates
from varlab.models.widened import BF16_WEIGHTS
from varlab.weights.official import ModelEntry
from varlab.weights.registry import parameters

PRECISIONS = ("fp32", "bf16", BF16_WEIGHTS)
AUTO = "auto"
LARGE = 500_000_000  # parameters from which half the memory counts


def text_precision(precision: str) -> str:
    """Of the text encoder beside a model of this precision: it runs once an image."""
    return "bf16" if precision == BF16_WEIGHTS else precision


@cache
def bf16_gain(device: str) -> float:
    """How many times as fast as fp32 this device multiplies bf16, measured once a process in about a second."""
    first, second = (rates(torch.device(device), kind, tokens=128, keys=128).matmul for kind in ("bf16", "fp32"))
    return first / second


def chosen(entry: ModelEntry, asked: str | None, init: str | None, device: str) -> tuple[str, str]:
    """The precision of a model, and why where it was left to us.

    By default fp32, but for the official models of half a billion parameters and more on random weights: those mean
    nothing in fp32 either and take half the memory. They, and any model with ``AUTO``, compute in bf16 where that is
    faster here; else a large model on a CPU keeps its weights in bf16 and computes in fp32, and others are all fp32.
    """
    large = parameters(entry.transformer) >= LARGE
    if asked is None and not (large and init == "random" and entry.folder is None):
        return "fp32", ""
    if asked not in (None, AUTO):
        return asked, ""
    gain, kind = bf16_gain(device), torch.device(device).type
    said = f"{kind} multiplies bf16 {gain:.2g} times as fast as fp32"
    if gain >= 1:
        return "bf16", said
    widened = large and kind == "cpu"
    return (BF16_WEIGHTS, f"{said}: weights in bf16, arithmetic in fp32") if widened else ("fp32", said)
