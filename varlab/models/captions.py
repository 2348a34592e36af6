"""The minis' caption encoder: the scene grammar's words, learned embeddings, two small layers.

Plays the part of Flan-T5; trained jointly with the transformer and stored with its weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from varlab.errors import VarlabError, require_words
from varlab.models.infinity import TextBatch

LONGEST = 32


class CaptionEncoder(nn.Module):
    """Captions -> TextBatch with one row a word."""

    def __init__(self, vocabulary: Sequence[str], width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.number = {word: i for i, word in enumerate(self.vocabulary)}
        self.word = nn.Embedding(len(self.vocabulary), width)
        self.position = nn.Embedding(LONGEST, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def words(self, caption: str) -> list[int]:
        """Word numbers; an empty caption, unknown words (all are named) or too many words are an error."""
        words = "".join(c if c.isalnum() else " " for c in caption.lower()).split()
        if not words:
            raise VarlabError("The prompt is empty. Describe a scene, for example: a red star above a blue ring.")
        if len(words) > LONGEST:
            raise VarlabError(f"The prompt has {len(words)} words; this model reads at most {LONGEST}.")
        require_words(words, self.vocabulary, caption, "This model")
        return [self.number[word] for word in words]

    def check(self, captions: Sequence[str]) -> None:
        """Raises VarlabError for the first caption that cannot be read: one late in a long run is told at once."""
        for caption in captions:
            self.words(caption)

    def encode(self, numbers: Tensor, lengths: Sequence[int]) -> TextBatch:
        """Padded word numbers [B, T] and their lengths -> ragged features."""
        positions = torch.arange(numbers.shape[1], device=numbers.device)
        real = positions < torch.tensor(lengths, device=numbers.device)[:, None]
        h = self.layers(self.word(numbers) + self.position(positions), src_key_padding_mask=~real)
        return TextBatch(h[real], tuple(lengths))

    def forward(self, captions: Sequence[str]) -> TextBatch:
        rows = [self.words(caption) for caption in captions]
        lengths = [len(row) for row in rows]
        numbers = torch.zeros(len(rows), max(lengths), dtype=torch.long, device=self.word.weight.device)
        for i, row in enumerate(rows):
            numbers[i, : len(row)] = torch.tensor(row)
        return self.encode(numbers, lengths)
