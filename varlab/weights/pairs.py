"""Whether transformer and tokenizer were released together, and the label that follows.

A tokenizer of another release, of the same sizes, loads and draws: it is the commonest cause of bad pictures.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from varlab.weight_labels import CHECKPOINT, DIGITS, NAMED, OFFICIAL, WeightsLabel
from varlab.weights.content import KNOWN, Content
from varlab.weights.official import OFFICIAL as RELEASES
from varlab.weights.official import ModelEntry
from varlab.weights.reading import Checkpoint


@dataclass(frozen=True)
class Part:
    """One part of a model as it was read."""

    stored: Checkpoint
    content: Content

    @property
    def origin(self) -> str:
        """The released file that it is by its content, else the name that it was read or converted from."""
        return KNOWN.get(self.content.hash) or self.stored.metadata.get("source", self.stored.name)

    @property
    def verified(self) -> bool:
        return self.content.hash in KNOWN

    @property
    def words(self) -> str:
        return f"{self.stored.label} {self.content.hash[:DIGITS]}"


def same_name(first: str, second: str) -> bool:
    """Whether two names are those of one file, whatever its suffix and its dashes: ``infinity_vae_d32_reg.safetensors``
    is ``infinity_vae_d32reg.pth``."""
    return bool(second) and _plain(first) == _plain(second)


def _plain(name: str) -> str:
    bare = re.sub(r"\.(pth|pt|ckpt|bin|safetensors)$", "", Path(name).name)
    return re.sub(r"[^a-z0-9]", "", bare.lower())


def labelled(entry: ModelEntry, transformer: Part, tokenizer: Part) -> WeightsLabel:
    """The label of a model whose parts were read from files; warns of every doubt that it names."""
    pair = f"{entry.file} and {entry.tokenizer_file}"
    named = same_name(transformer.origin, entry.file)
    doubts = _foreign(entry, transformer, tokenizer, named)
    parts = {"transformer": transformer, "tokenizer": tokenizer}
    doubts += [f"{what}: {part.content.fault}" for what, part in parts.items() if part.content.fault]
    for doubt in doubts:
        warnings.warn(
            f"{entry.name}, {transformer.stored.label} with {tokenizer.stored.label}: {doubt}."
            + (f" Released together were {pair}." if entry.file and "released" in doubt else ""),
            stacklevel=4,
        )
    whole = all(part.verified for part in parts.values()) and not doubts
    kind = OFFICIAL if named and whole else NAMED if named else CHECKPOINT
    content = transformer.content.named("transformer") | tokenizer.content.named("tokenizer")
    return WeightsLabel.of(kind, f"{transformer.words}, tokenizer {tokenizer.words}", doubts, content)


def _foreign(entry: ModelEntry, transformer: Part, tokenizer: Part, named: bool) -> list[str]:
    """Names or contents that belong to another release than this one."""
    doubts = []
    of = [other.name for other in RELEASES if same_name(transformer.origin, other.file)]
    if of and entry.name not in of and not named:
        doubts.append(f"{transformer.origin} is the released file of {' and '.join(of)}, not of {entry.name}")
    if transformer.stored.files == tokenizer.stored.files or same_name(tokenizer.origin, entry.tokenizer_file):
        return doubts
    foreign = any(same_name(tokenizer.origin, other.tokenizer_file) for other in RELEASES)
    looks_released = re.match(r"infinity_?vae|vae_ch160", tokenizer.origin) is not None
    if named or foreign or looks_released:
        doubts.append(f"no released pair: the tokenizer is not {entry.tokenizer_file}")
    return doubts
