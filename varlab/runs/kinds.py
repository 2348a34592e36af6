"""Folders that other commands than ``log`` fill: known by a record, listed, verified and removed as runs are."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError, cause
from varlab.markup import count
from varlab.outputs import is_whole
from varlab.runs.manifest import MANIFEST, faults, read_manifest
from varlab.runs.store import unpacked, unsealed


@dataclass(frozen=True)
class State:
    """``word``: running, complete, partial or damaged; ``notes`` say what is wrong, or who runs it."""

    word: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.word}: {'; '.join(self.notes)}" if self.notes else self.word


@dataclass(frozen=True)
class Kind:
    """``records``: files of which any makes a folder one of this kind, the first one the newest. ``own``: what it
    consists of. ``state``: how far it is. ``facts``: model, methods and n, of what its record holds."""

    name: str
    records: tuple[str, ...]
    own: tuple[str, ...]
    state: Callable[[Path, bool], State]
    facts: Callable[[Mapping[str, Any]], tuple[str, str, str]]

    def record(self, folder: Path) -> dict[str, Any]:
        """Raises VarlabError where it cannot be read."""
        path = next(folder / name for name in self.records if (folder / name).is_file())
        try:
            return dict(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise VarlabError(f"{path} is damaged ({cause(error)}).") from error

    def row(self, folder: Path) -> tuple[str, str, str]:
        """Model, methods and n; question marks where its record is damaged."""
        try:
            return self.facts(self.record(folder))
        except VarlabError:
            return "?", "?", "?"

    def knows(self, folder: Path) -> bool:
        """Whether a record is there, which may be damaged; other programs give files such names too."""
        try:
            return any((folder / name).is_file() for name in self.records) and bool(self.row(folder))
        except (KeyError, TypeError, AttributeError):
            return False


def _listed(folder: Path, full: bool) -> State | None:
    """By the manifest; None where there is none."""
    if read_manifest(folder) is None:
        return None
    wrong = faults(folder, full)
    return State("damaged", tuple(wrong)) if wrong else State("complete")


def _counted(there: int, wanted: int, what: str) -> State:
    return State("complete") if there >= wanted else State("partial", (f"{there} of {wanted} {what}",))


def _comparison(folder: Path, full: bool) -> State:
    if (folder / "turns" / "begun.json").is_file():
        return State("partial", (count(len(list((folder / "turns").glob("[0-9]*.npz"))), "turn"),))
    if listed := _listed(folder, full):
        return listed
    if "ledgers" in _COMPARISON.record(folder):  # of compare, whose manifest is written last
        return State("partial", (f"no {MANIFEST} yet",))
    return _whole(folder, "comparison.csv", "prompts.csv")


def _whole(folder: Path, *names: str) -> State:
    """Written at the end of all, or not there yet."""
    missing = [name for name in names if not (folder / name).is_file()]
    return State("partial", (f"no {' and no '.join(missing)} yet",)) if missing else State("complete")


def _damaged(names: Sequence[str]) -> State:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return State("damaged", (f"{names[0]}{more} cannot be read: the same command makes that again",))


def _sweep(folder: Path, full: bool) -> State:
    record = _SWEEP.record(folder)
    shards = sorted((folder / "shards").glob("[0-9a-f]*.csv"))
    if full:
        wrong = [path for path in shards if unsealed(path.read_bytes()) is None]
        wrong += [path for path in sorted((folder / "dense").glob("*.npy")) if unpacked(path.read_bytes()) is None]
        if wrong:
            return _damaged([str(path.relative_to(folder)) for path in wrong])
    found = _counted(len(shards), int(record.get("shards", 0)), "shards")
    return found if found.word == "partial" else _whole(folder, "table.csv", "prompts.csv")


def _tuning(folder: Path, full: bool) -> State:
    for place in sorted((*folder.glob("choose-*"), *folder.glob("report"))):
        if (found := _sweep(place, full)).word == "damaged":
            return State("damaged", tuple(f"{place.name}/{note}" for note in found.notes))
    return _whole(folder, "answers.csv", "tuned.json")


def _benchmark(folder: Path, full: bool) -> State:
    record = _BENCHMARK.record(folder)
    pictures = [path for path in (folder / "images").rglob("*") if path.suffix == record["ending"]]
    if wrong := [str(path.relative_to(folder)) for path in pictures if full and not is_whole(path)]:
        return _damaged(wrong)
    return _counted(len(pictures), int(record.get("pictures", len(record["items"]))), "pictures")


def _frontier(folder: Path, full: bool) -> State:
    record = _FRONTIER.record(folder)
    batches = -(-int(record["n"]) // int(record["batch"]))
    return _counted(len(list(folder.glob("baselines-*.csv"))), batches, "batches")


def _compared(record: Mapping[str, Any]) -> tuple[str, str, str]:
    facts = record.get("facts", record)  # begun: the facts alone
    names = facts["compared"]["methods"] if "compared" in facts else [row["method"] for row in record["rows"]]
    return str(facts.get("model", "?")), f"{len(names) - 1} beside none", str(facts.get("n", "?"))


def _planned(record: Mapping[str, Any]) -> tuple[str, str, str]:
    plan = record["plan"]
    return (
        ", ".join(plan["models"]),
        count(len(plan["specs"]), "spec"),
        "+".join(str(each["n"]) for each in plan["prompts"]),
    )


def _tuned(record: Mapping[str, Any]) -> tuple[str, str, str]:
    if "plan" in record:  # begun: the first sweep alone
        return *_planned(record)[:2], "?"
    facts = record["facts"]
    return facts["model"], count(facts["candidates"], "candidate"), str(facts["chosen_on"] + facts["reported_on"])


_BENCHMARK = Kind(
    "benchmark", ("benchmark.json",), ("benchmark.json", "images"), _benchmark,
    lambda record: (record["model"], record["spec"], str(record["n"])),
)  # fmt: skip
_FRONTIER = Kind(
    "frontier", ("frontier.json",), ("frontier.json", "baselines-*.csv"), _frontier,
    lambda record: (record["model"], "baselines", str(record["n"])),
)  # fmt: skip
_SWEEP = Kind("sweep", ("sweep.json",), ("sweep.json", "shards", "dense", "table.csv", "prompts.csv"), _sweep, _planned)
_COMPARISON = Kind(
    "comparison", ("turns/begun.json", "comparison.json"),
    ("comparison.csv", "comparison.json", "prompts.csv", "timings.csv", "spectra.csv", "paired.csv", "frontier.*",
     "tradeoff.*", "viewer.html", "viewer", "images", "previews", "decisions", "foreign", "turns", MANIFEST),
    _comparison, _compared,
)  # fmt: skip
KINDS = (  # a folder is of the first kind that knows it: comparisons hold a copy of their frontier
    _COMPARISON,
    _BENCHMARK,
    _SWEEP,
    Kind("tuning", ("tuned.json", "choose-0/sweep.json"),
         ("tuned.json", "front.*", "answers.csv", "choose-*", "report", "dense"), _tuning, _tuned),
    _FRONTIER,
)  # fmt: skip


def kind_at(folder: Path) -> Kind | None:
    """What a folder holds, besides runs of ``log``."""
    return next((kind for kind in KINDS if kind.knows(folder)), None)


def others_in(folder: Path, own: tuple[str, ...]) -> Iterator[str]:
    """Names in a folder that fit none of these patterns."""
    yield from (item.name for item in sorted(folder.iterdir()) if not any(item.match(name) for name in own))
