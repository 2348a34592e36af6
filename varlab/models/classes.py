"""Class labels in the place of prompts: numbers, or names where a model has them."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted


class ClassReader:
    """Reads "207", "class 207", 207 or a class name -> numbers [B]. ``names`` may be empty."""

    def __init__(self, classes: int, names: Sequence[str] = ()) -> None:
        if names and len(names) != classes:
            raise VarlabError(f"{classes} classes need as many names, got {len(names)}.")
        self.classes, self.names = classes, tuple(names)
        self.number = {name.lower(): i for i, name in enumerate(self.names)}
        self.label = "class names" if self.names else "class numbers"

    @property
    def texts(self) -> list[str]:
        """Every class as ``one`` reads it."""
        return list(self.names) or [str(number) for number in range(self.classes)]

    def one(self, text: str | int) -> int:
        word = str(text).strip().lower()
        digits = word.removeprefix("class").strip()
        if digits.isdecimal():
            if int(digits) < self.classes:
                return int(digits)
            raise VarlabError(f"Class {digits} does not exist: this model knows 0 to {self.classes - 1}.")
        if word in self.number:
            return self.number[word]
        near = get_close_matches(word, list(self.number), n=3, cutoff=0.5)
        hint = f" Near names: {', '.join(near)}." if near else ""
        known = "a class number" + (" or name" if self.names else "")
        raise VarlabError(
            f"{quoted(text)} is no class of this model. Give {known} from 0 to {self.classes - 1}, or take the prompt "
            f"set 'classes'.{hint}"
        )

    def __call__(self, labels: Sequence[str | int] | Tensor) -> Tensor:
        if not len(labels):
            raise VarlabError("There are no class labels. Give at least one.")
        values = labels.tolist() if isinstance(labels, Tensor) else labels
        return torch.tensor([self.one(value) for value in values])
