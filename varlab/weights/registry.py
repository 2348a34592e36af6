"""Every model by name: the official ones, and the minis whose data folder exists."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from varlab.context import shapes_only
from varlab.errors import VarlabError, unknown
from varlab.schedules import Schedule
from varlab.weights import embedded
from varlab.weights.embedded import Parts
from varlab.weights.families import FAMILIES, TransformerConfig, build
from varlab.weights.official import OFFICIAL, ModelEntry
from varlab.weights.places import data_folder, mini_folders


def mini(name: str, folder: Path) -> ModelEntry:
    """The entry of a mini in any folder. Raises VarlabError when its ``model.json`` is missing or damaged."""
    facts = embedded.read_facts(folder)
    side = facts.schedule.final[0] * facts.tokenizer.stride
    return ModelEntry(
        name,
        facts.transformer,
        facts.tokenizer,
        partial(_own, name, facts.schedule),
        facts.settings,
        f"trained on procedural scenes, {side} px, ships with varlab",
        hub="",
        text=FAMILIES[facts.family].reads,
        family=facts.family,
        folder=folder,
    )


def _own(name: str, schedule: Schedule, pixels: str | None, ratio: float) -> Schedule:
    if pixels is not None or ratio != 1:
        raise VarlabError(f"{name} knows one schedule, up to {schedule.final}: leave pixels and ratio out.")
    return schedule


class Registry(Mapping[str, ModelEntry]):
    """The minis whose folder exists at this moment, by name, then the official models."""

    def __init__(self, official: Sequence[ModelEntry]) -> None:
        self._official = {entry.name: entry for entry in official}

    def __getitem__(self, name: str) -> ModelEntry:
        return self._official[name] if name in self._official else mini(name, mini_folders()[name])

    def __iter__(self) -> Iterator[str]:
        yield from sorted(mini_folders().keys() - self._official.keys())
        yield from self._official

    def __len__(self) -> int:
        return len(set(self))

    def __contains__(self, name: object) -> bool:
        return name in set(self)  # without reading a mini, which may be damaged


MODELS: Mapping[str, ModelEntry] = Registry(OFFICIAL)


def find(name: str) -> ModelEntry:
    """The entry of a name; else near names and where minis were looked for."""
    if name not in MODELS:
        raise VarlabError(f"{unknown('model', name, MODELS)} Minis are looked for in {data_folder()}.")
    return MODELS[name]


def empty(entry: ModelEntry) -> Parts:
    """The modules of a model on the meta device: names and shapes without memory."""
    if entry.folder is not None:
        return embedded.read_facts(entry.folder).empty()
    with shapes_only():
        return Parts(build(entry.transformer), build(entry.tokenizer), None)


@cache
def parameters(config: TransformerConfig) -> int:
    """Of the transformer alone."""
    with shapes_only():
        return sum(p.numel() for p in build(config).parameters())
