"""What goldens of accelerators share: packed bits, thinned logits, margins that are known only as a bound."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from varlab.engine.hooks import Accelerator
from varlab.engine.images import Images
from varlab.engine.stage import Stage
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity_capture import Outcome
from varlab.parity.infinity_setup import Setup

Shape = tuple[int, ...]


class CacheWatch(Accelerator):
    """Notes, after every stage, what each block's cache holds: [stages][blocks] of (rows, heads, tokens, width)."""

    name = "cache-watch"

    def __init__(self) -> None:
        self.shapes: list[list[Shape]] = []

    def end_stage(self, stage: Stage, images: Images) -> None:
        kv = images.kv
        self.shapes.append(
            [
                (0, 0, length, 0) if keys is None else (keys.shape[0], keys.shape[1], length, keys.shape[3])
                for keys, length in zip(kv.keys, kv.lengths, strict=True)
            ]
        )


def prepared(golden: Golden, rebuilt: Setup) -> Golden:
    """The golden with its bits unpacked; hidden states take the tolerance of the logits where none is stated."""
    arrays, tolerances = dict(golden.arrays), dict(golden.tolerances)
    for name, array in arrays.items():
        stage = re.fullmatch(r"(?:.*[._])?bits_used_(\d+)", name)
        if stage and int(stage[1]) in rebuilt.stages:
            arrays[name] = unpacked(array, bits_shape(rebuilt, int(stage[1])))
    if "logits_rel" in tolerances:
        tolerances.setdefault("hidden_rel", tolerances["logits_rel"])
    return replace(golden, arrays=arrays, tolerances=tolerances)


def unpacked(array: np.ndarray, shape: Shape) -> np.ndarray:
    """An array of ``shape`` from the bytes that hold its flattened bits; anything else is left as it is."""
    count = int(np.prod(shape))
    if array.dtype != np.uint8 or array.shape != (-(-count // 8),):
        return array
    return np.unpackbits(array)[:count].reshape(shape).astype(np.int8)


def bits_shape(rebuilt: Setup, k: int) -> Shape:
    """[B, 1, h, w, b] of a stage's bits on the latent grid."""
    model = rebuilt.model
    return (rebuilt.batch, 1, *model.latent_grid(model.schedule.grids[k]), model.tokenizer.config.bits)


def path(golden: Golden, rebuilt: Setup, k: int, names: Sequence[str]) -> Tensor | None:
    """Labels [B, n, d] that the golden run went on with at a stage: the first of ``names`` that the file holds."""
    for name in names:
        used = golden.arrays.get(name)
        if used is not None and used.shape == bits_shape(rebuilt, k):
            return rebuilt.model.labels_of(torch.from_numpy(used[:, 0]))
    return rebuilt.model.labels_of(rebuilt.leaked[k]) if k in rebuilt.leaked else None


def compare_logits(comparison: Comparison, outcome: Outcome, k: int, prefix: str = "", stride: int = 1) -> None:
    """Raw logits of both branches and the guided ones, of every ``stride``-th token."""
    capture = outcome.capture
    for name, values in (("cond", capture.cond[k]), ("uncond", capture.uncond[k]), ("final", capture.final[k])):
        thinned = None if values is None else values[:, ::stride]
        comparison.relative(f"{prefix}logits_{name}_{k}", thinned, "logits_rel")


def compare_bits(
    comparison: Comparison, outcome: Outcome, k: int, prefix: str = "", stride: int = 1, least: float | None = None
) -> None:
    """The engine's own argmax on the latent grid, or the bits that were leaked.

    ``least`` is the smallest margin of the stage that the golden states, for tokens whose logits it does not hold.
    """
    model, leaked = outcome.setup.model, outcome.setup.leaked.get(k)

    def on_grid(values: Tensor) -> Tensor:
        return model.code_map(k, values).movedim(1, -1)[:, None]

    if leaked is not None:
        comparison.equal(f"{prefix}bits_used_{k}", leaked[:, None])
        return
    margin, noise = _margin(comparison.golden, outcome.capture.final[k], f"{prefix}logits_final_{k}", stride, least)
    used = on_grid(model.codes(k, outcome.capture.labels[k])) > 0
    comparison.labels(f"{prefix}bits_used_{k}", used, on_grid(margin).numpy(), noise)


def _margin(golden: Golden, final: Tensor, name: str, stride: int, least: float | None) -> tuple[Tensor, float]:
    """|z1 - z0| of every bit [B, n, d] by the golden, and the size that counts as noise.

    Where the golden holds no logits, its bound must be below the noise and so must our own margin: the bound says
    that the stage has a near tie, ours where. Without a bound nothing is excused.
    """
    ours, stored = _apart(final), golden.arrays.get(name)
    margin = torch.full_like(ours, torch.inf) if least is None else ours.clamp(min=least)
    largest = float(final.abs().max())
    if stored is not None and stored.shape == final[:, ::stride].shape:
        margin[:, ::stride] = _apart(torch.from_numpy(stored))
        largest = float(np.abs(stored).max())
    return margin, golden.tolerance("logits_rel") * largest


def _apart(logits: Tensor) -> Tensor:
    pairs = logits.unflatten(-1, (-1, 2))
    return (pairs[..., 1] - pairs[..., 0]).abs()
