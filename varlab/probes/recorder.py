"""Keeps what a probe reduced, by key, until the batch is done; images may come in parts and not all, as may tokens."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor


class Recorder:
    """Tensors stay on the device until ``collect``, so that recording never waits for it."""

    def __init__(self) -> None:
        self.parts: dict[Hashable, list[tuple[tuple[int, ...], Tensor]]] = {}

    def put(self, key: Hashable, samples: tuple[int, ...], values: Tensor) -> None:
        """values [len(samples), ...]."""
        self.parts.setdefault(key, []).append((samples, values))

    def collect(self, key: Hashable, order: Sequence[int]) -> Tensor | None:
        """[len(order), ...] in this order of images, NaN for those not recorded; None when there are none."""
        parts = self.parts.get(key)
        if parts is None:
            return None
        if len(parts) == 1 and parts[0][0] == tuple(order):
            return parts[0][1].float()
        place = {image: i for i, image in enumerate(order)}
        first = parts[0][1]
        out = torch.full((len(order), *first.shape[1:]), torch.nan, device=first.device)
        for samples, values in parts:
            rows = [place[image] for image in samples]
            out[rows] = torch.where(values.isnan(), out[rows], values.float())  # tokens of one image may come in parts
        return out

    def by_block(self, name: str, stage: int, order: Sequence[int]) -> tuple[list[int], Tensor] | None:
        """Blocks that were recorded of a stage and their values [len(order), blocks, ...], from keys (name, stage,
        numbers of blocks) whose values are [len(samples), numbers, ...]; None when there are none."""
        keys = [key for key in self.parts if isinstance(key, tuple) and key[:2] == (name, stage)]
        found = [(key[2], values) for key in keys if (values := self.collect(key, order)) is not None]
        if len(found) < 2:
            return (list(found[0][0]), found[0][1]) if found else None
        ran = sorted({block for blocks, _ in found for block in blocks})
        first = found[0][1]
        out = first.new_full((len(order), len(ran), *first.shape[2:]), torch.nan)
        for blocks, values in found:
            at = [ran.index(block) for block in blocks]
            out[:, at] = torch.where(values.isnan(), out[:, at], values)  # some images may have run fewer blocks
        return ran, out

    def table(self, keys: Sequence[Hashable], order: Sequence[int]) -> np.ndarray:
        """Stack of ``collect`` over keys on axis 1 [len(order), len(keys), ...]; a missing key is NaN."""
        found = [self.collect(key, order) for key in keys]
        shape = next((values.shape for values in found if values is not None), torch.Size((len(order),)))
        filled = [torch.full(shape, torch.nan) if values is None else values.cpu() for values in found]
        return torch.stack(filled, 1).numpy()
