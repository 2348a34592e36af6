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

    def table(self, keys: Sequence[Hashable], order: Sequence[int]) -> np.ndarray:
        """Stack of ``collect`` over keys on axis 1 [len(order), len(keys), ...]; a missing key is NaN."""
        found = [self.collect(key, order) for key in keys]
        shape = next((values.shape for values in found if values is not None), torch.Size((len(order),)))
        filled = [torch.full(shape, torch.nan) if values is None else values.cpu() for values in found]
        return torch.stack(filled, 1).numpy()
