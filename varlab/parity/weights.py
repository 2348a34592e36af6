"""Deterministic numbers: every weight and input of a golden run is drawn from its name and a seed.

So a golden file needs to store no weights. The formula is that of the files' maker.
"""

import math
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from varlab.models.infinity import TextBatch
from varlab.schedules import Grid

M = TypeVar("M", bound=nn.Module)
Shape = tuple[int, ...]
Rule = Callable[[str, np.ndarray], np.ndarray | None]  # key, normal numbers -> value, None to leave it alone


def normal(key: str, seed: int, shape: Shape) -> np.ndarray:
    """Standard normal numbers (float64, C order) that belong to a name and a seed."""
    return numbers(key, seed, shape, "standard_normal")


def numbers(key: str, seed: int, shape: Shape, law: str) -> np.ndarray:
    """Numbers of a name and a seed by a law of numpy's generator, such as ``standard_exponential``."""
    number = int.from_bytes(sha256(f"{key}|{seed}".encode()).digest()[:8], "little")
    values: np.ndarray = getattr(np.random.default_rng(number), law)(shape)
    return values


def fill(module: M, seed: int, rule: Rule, prefix: str = "") -> M:
    """The module, every entry of its state dict set by its key, under ``prefix`` where the official file has one."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            key = prefix + name
            value = rule(key, normal(key, seed, tuple(tensor.shape)))
            if value is not None:
                tensor.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))
    return module


def infinity_rule(key: str, z: np.ndarray) -> np.ndarray | None:
    """Weights of Infinity and its VAE; the first rule that matches counts."""
    last = key.rsplit(".", 1)[-1]
    if last == "mask":
        return None
    if last == "zero_k_bias":
        return np.zeros_like(z)
    if last == "scale_mul_1H11":
        return math.log(10) + 1.5 * z
    if key == "text_norm.weight" or key.endswith((".ca_norm.weight", ".norm.weight")):
        return 1 + 0.1 * z
    if key.endswith(".sa.proj.weight"):
        return 4 * z / np.sqrt(z.shape[1])
    if key == "shared_ada_lin.1.weight":
        return 0.5 * z / np.sqrt(z.shape[1])
    scale = _SCALE_OF_KEY.get(key, _SCALE_OF_LAST.get(last))
    return z / np.sqrt(math.prod(z.shape[1:])) if scale is None else scale * z


def hart_rule(key: str, z: np.ndarray) -> np.ndarray | None:
    """Weights of HART and its tokenizer, whose keys begin with ``vae.``; the first rule that matches counts."""
    last = key.rsplit(".", 1)[-1]
    if last == "zero_k_bias":
        return np.zeros_like(z)
    if last == "scale_mul_1H11":
        return math.log(4) + 0.1 * z
    if last in ("bias", "q_bias", "v_bias"):
        return 0.1 * z
    if last == "scale_shift_table" or key == "lvl_embed.weight" or key.endswith("quantize.embedding.weight"):
        return 0.5 * z
    if z.ndim == 1:
        return 1 + 0.1 * z
    scale = 0.25 if key == "diffloss.net.final_layer.linear.weight" else 1.0
    return scale * z / np.sqrt(math.prod(z.shape[1:]))


_SCALE_OF_KEY = {"lvl_embed.weight": 0.3, "word_embed.weight": 1.5}
_SCALE_OF_LAST = {
    "bias": 0.05,
    "q_bias": 0.05,
    "v_bias": 0.05,
    "cfg_uncond": 1.0,
    "mat_q": 1.0,  # the pool's query itself; a layer called mat_q ends in .weight
    "pos_start": 0.5,
    "ada_gss": 0.3,
}


def var_rule(key: str, z: np.ndarray) -> np.ndarray | None:
    """Weights of VAR and its tokenizer; the first rule that matches counts."""
    last, fan_in = key.rsplit(".", 1)[-1], math.prod(z.shape[1:])
    if last in ("lvl_1L", "attn_bias_for_masking", "ema_vocab_hit_SV", "zero_k_bias"):
        return None
    if last == "scale_mul_1H11":
        return math.log(4) + 0.1 * z
    if last == "ada_gss":
        return 0.3 * z
    if key in _VAR_TABLES:
        return 0.5 * z
    if z.ndim == 1:
        return 1 + 0.1 * z if last == "weight" else 0.05 * z
    gain = 0.5 if "ada_lin" in key else 2.0 if key == "head.weight" else 1.0
    return gain / np.sqrt(fan_in) * z


_VAR_TABLES = ("pos_start", "pos_1LC", "class_emb.weight", "lvl_embed.weight", "quantize.embedding.weight")


def tensor(key: str, seed: int, shape: Shape, scale: float = 1.0) -> Tensor:
    """fp32 normal numbers of a name, scaled."""
    return torch.from_numpy((scale * normal(key, seed, shape)).astype(np.float32))


def indices(key: str, seed: int, shape: Shape, codes: int) -> Tensor:
    """Token indices of a name [shape], below ``codes``."""
    return torch.from_numpy((np.abs(normal(key, seed, shape)) * 1e6).astype(np.int64) % codes)


def text(key: str, seed: int, lengths: Sequence[int], width: int) -> TextBatch:
    """Text features of a batch; ``key`` is text_features or negative_text_features."""
    features = normal(key, seed, (sum(lengths), width)).astype(np.float32)
    return TextBatch(torch.from_numpy(features), tuple(lengths))


def leaked_bits(stage: int, seed: int, batch: int, grid: Grid, bits: int) -> Tensor:
    """Bits prescribed for a stage [B, h, w, bits]."""
    return torch.from_numpy(normal(f"leak_bits_{stage}", seed, (batch, 1, *grid, bits)) > 0)[:, 0]


def image(seed: int, batch: int, height: int, width: int) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1]: waves and noise."""
    channel, y, x = np.arange(3)[:, None, None], np.arange(height)[:, None], np.arange(width)
    waves = np.sin(2 * np.pi * ((channel + 1) * y / height + 2 * x / width) + channel)
    noise = normal("image", seed, (batch, 3, height, width))
    return torch.from_numpy(np.clip(0.6 * waves + 0.2 * noise, -1, 1).astype(np.float32))
