"""What a model's weights are, in one line that tables, figures, cards and logs carry: its kind first, then the rest.

"Official" is what has the content of a released file. A name alone proves nothing, and the label says so.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Self

OFFICIAL = "official, verified by content"
NAMED = "named as official, not verified"
CHECKPOINT = "checkpoint"  # a file of any other origin
TRAINED = "trained"  # a mini
RANDOM = "random"
EMPTY = "empty"
DIGITS = 8  # of a content hash, in a label
KINDS = (OFFICIAL, NAMED, CHECKPOINT, TRAINED, RANDOM, EMPTY)


class WeightsLabel(str):
    """The line, and what it is made of.

    Attributes
    ----------
    content : 16 hexadecimal digits of each part's tensors, the same for every file format and precision, and where
        rounding to bf16 would change it that to the last bit; empty where nothing was read, and for a label that was
        read from a log.
    """

    content: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def of(cls, kind: str, details: str, doubts: Iterable[str] = (), content: Mapping[str, str] | None = None) -> Self:
        """``kind (details)``, and each doubt in brackets."""
        made = cls(f"{kind} ({details})" + "".join(f" [{doubt}]" for doubt in doubts))
        made.content = dict(content or {})
        return made

    def and_text(self, text: str) -> Self:
        """With what is said of a random text encoder."""
        made = type(self)(f"{self}, {text}")
        made.content = self.content
        return made

    @property
    def kind(self) -> str:
        """One of ``KINDS``. Before content was looked at, labels of logs said "official" of a file's name."""
        return NAMED if self.startswith("official (") else next((k for k in KINDS if self.startswith(k)), CHECKPOINT)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against these weights: no released pair, or values that no training leaves."""
        return tuple(re.findall(r" \[([^\]]+)\]", self))

    @property
    def partly_random(self) -> bool:
        """Whether another part than the transformer is random."""
        return self.kind != RANDOM and f", {RANDOM} " in self
