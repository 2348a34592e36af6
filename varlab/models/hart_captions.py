"""The minis' caption encoder in HART's place of Qwen2: words first, then padding that no token sees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.models.captions import CaptionEncoder
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch


def pad(batch: TextBatch, length: int) -> HartText:
    """Ragged features -> [B, length, width] with zeros behind each text, and the mask of real tokens."""
    counts = torch.tensor(batch.lengths, device=batch.features.device)
    mask = torch.arange(length, device=batch.features.device) < counts[:, None]
    features: Tensor = batch.features.new_zeros(*mask.shape, batch.features.shape[1])
    features[mask] = batch.features
    return HartText(features, mask)


class HartCaptions:
    """Captions -> HartText of ``length`` rows each. Unknown words and longer captions are refused."""

    def __init__(self, captions: CaptionEncoder, length: int) -> None:
        self.captions, self.length = captions, length

    def check(self, captions: Sequence[str]) -> None:
        for caption in captions:
            if (count := len(self.captions.words(caption))) > self.length:
                raise VarlabError(
                    f"The prompt has {count} words; this model reads at most {self.length}: {quoted(caption)}."
                )

    def __call__(self, captions: Sequence[str]) -> HartText:
        self.check(captions)
        return pad(self.captions(captions), self.length)
