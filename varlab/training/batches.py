"""What the transformers' training shares, whatever the family: which samples, which tokens, and their weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from varlab.models.captions import CaptionEncoder
from varlab.scenes import shortened
from varlab.schedules import Grid
from varlab.training.recipe import CorrectionConfig


class Captions:
    """Word numbers of the captions. A share ``shorten`` is cut, half of them to shapes and colours, half to shapes,
    so that short prompts are no rare ones."""

    def __init__(self, text: CaptionEncoder, captions: Sequence[str], shorten: float) -> None:
        cut = [[shortened(caption, colors) for caption in captions] for colors in (True, False)] if shorten else []
        rows = [text.words(caption) for version in (captions, *cut) for caption in version]
        lengths = np.array([len(row) for row in rows])
        words = np.zeros((len(rows), lengths.max()), np.int64)
        for i, row in enumerate(rows):
            words[i, : len(row)] = row
        self.shorten, self.longest = shorten, int(lengths.max())
        self.lengths = lengths.reshape(-1, len(captions))  # [versions, n]
        self.words = words.reshape(*self.lengths.shape, -1)  # [versions, n, longest], zeros behind each

    def drawn(self, index: np.ndarray, generator: torch.Generator) -> tuple[Tensor, list[int]]:
        """Word numbers [B, longest of these] and lengths of the captions ``index``."""
        version = np.zeros(len(index), np.int64)
        if self.shorten:
            chance = torch.rand(len(index), generator=generator).numpy()
            version = (chance < self.shorten).astype(np.int64) + (chance < self.shorten / 2)
        lengths = self.lengths[version, index].tolist()
        return torch.from_numpy(self.words[version, index, : max(lengths)]), lengths


def drawn(config: CorrectionConfig, step: int, rank: int, n: int) -> tuple[np.ndarray, torch.Generator]:
    """Which of n samples a batch holds, ascending, and the generator of all else: functions of seed, step and rank."""
    rng = np.random.default_rng((config.seed, step, rank))
    index = np.sort(rng.integers(0, n, config.batch))
    return index, torch.Generator().manual_seed(int(rng.integers(2**62)))


def subset(
    lengths: Sequence[int], config: CorrectionConfig, step: int, generator: torch.Generator
) -> list[Tensor | None]:
    """Positions of each stage that an update trains on, ascending; None for all of them."""
    largest = None if config.whole(step) else config.largest
    return [
        None if largest is None or n <= largest else torch.randperm(n, generator=generator)[:largest].sort().values
        for n in lengths
    ]


def at(chosen: Sequence[Tensor | None], parts: Sequence[Tensor], axis: int) -> list[Tensor]:
    """The chosen tokens of each stage's part; None takes it whole."""
    return [
        part if index is None else part.index_select(axis, index.to(part.device))
        for part, index in zip(parts, chosen, strict=True)
    ]


def shares(grids: Sequence[Grid]) -> Tensor:
    """Of each stage in the loss [stages]: 1 / side a token, so that coarse stages count."""
    sides = torch.tensor([(h * w) ** 0.5 for h, w in grids])
    return sides / sides.sum()
