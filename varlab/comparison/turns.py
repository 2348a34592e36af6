"""What the methods gave in each turn of a comparison, kept as it comes: with a folder, an interruption loses one."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
from PIL import Image

from varlab.engine.ledger import Ledger
from varlab.json_files import read_json
from varlab.outputs import save_json
from varlab.probes import log as logs
from varlab.probes.log import Group, Log
from varlab.writing import beside

TURNS = "turns"
BEGUN = "begun.json"  # among the turns: what the unfinished comparison is
PEAKS = "peaks.json"
PIXELS = "pixels"


@dataclass
class Turn:
    """One batch by all methods. ``samples``: its images, none of a turn that was for the clock alone."""

    samples: tuple[int, ...]
    gave: Log = field(default_factory=dict)  # a group a method, named by its row; what it decided lies below that

    def add(self, row: int, timing: dict[str, Any], ledger: Ledger) -> None:
        """``timing``: a row of the timings; empty for what was not timed."""
        self.gave[f"{row:02d}"] = Group(self.samples, {}, {}, {"timing": timing, "ledger": asdict(ledger)})

    def add_pictures(self, row: int, pictures: Sequence[Image.Image], decided: Log) -> None:
        self.add_values(row, PIXELS, np.stack([np.asarray(picture) for picture in pictures]), ("y", "x", "channel"))
        self.gave |= {f"{row:02d}/{path}": group for path, group in decided.items()}

    def add_values(self, row: int, name: str, values: np.ndarray, axes: tuple[str, ...] = ()) -> None:
        """values [B, ...] of a measure, an image each."""
        self.gave[f"{row:02d}"].variables[name] = (axes, values, "")


@dataclass(frozen=True)
class Made:
    """What each batch gave first, by method: pictures and measures of all prompts, work, decisions."""

    images: dict[str, list[Image.Image]]
    measured: dict[str, pd.DataFrame]
    ledgers: dict[str, Ledger]
    decided: dict[str, Log]


class Turns:
    """All turns that are done, by their numbers from 1. ``place``: a folder that keeps each; damaged ones run again."""

    def __init__(self, place: Path | None = None) -> None:
        self.place, self.done, self.peaks = place, dict[int, Log](), dict[str, float]()
        self.sitting = uuid4().hex[:8]
        if place is None:
            return
        for path in sorted(place.glob("[0-9]*.npz")):
            try:
                self.done[int(path.stem)] = logs.load(path)
            except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
                path.unlink()
        if (place / PEAKS).is_file():
            self.peaks = read_json(place / PEAKS, "Remove it: memory is measured again.")

    def only(self, samples: Mapping[int, tuple[int, ...]]) -> None:
        """Forget turns of other images, which an earlier version drew in another order: they run again."""
        self.done = {turn: gave for turn, gave in self.done.items() if gave["00"].samples == samples[turn]}

    def save(self, number: int, turn: Turn) -> None:
        for path, group in turn.gave.items():
            group.attrs |= {"sitting": self.sitting} if group.attrs.get("timing") and "/" not in path else {}
        self.done[number] = turn.gave
        if self.place is not None:
            with beside(self.place / f"{number:06d}.npz") as draft:
                logs.save(draft, turn.gave)

    def save_peaks(self, peaks: dict[str, float]) -> None:
        self.peaks = peaks
        if self.place is not None:
            save_json(self.place / PEAKS, peaks)

    @property
    def sittings(self) -> int:
        """How often the comparison was taken up."""
        groups = (group for turn in self.done.values() for group in turn.values())
        return len({group.attrs["sitting"] for group in groups if "sitting" in group.attrs})

    def timings(self) -> pd.DataFrame:
        """A row a timed turn and method, in the order in which they ran."""
        groups = (item for number in sorted(self.done) for item in self.done[number].items())
        return pd.DataFrame([timing for path, group in groups if "/" not in path and (timing := group.attrs["timing"])])

    def joined(self, names: Sequence[str], batches: int) -> Made:
        """What each batch gave first."""
        first = sorted(map(self.done.__getitem__, range(1, batches + 1)), key=lambda turn: turn["00"].samples)
        log, rows = logs.join(first), {name: f"{row:02d}" for row, name in enumerate(names)}
        variables = {name: {key: held[1] for key, held in log[row].variables.items()} for name, row in rows.items()}
        pixels = {name: values.pop(PIXELS) for name, values in variables.items()}
        return Made(
            {name: [Image.fromarray(picture) for picture in values] for name, values in pixels.items()},
            {name: pd.DataFrame(values) for name, values in variables.items()},
            {name: _summed([turn[row].attrs["ledger"] for turn in first]) for name, row in rows.items()},
            {name: _below(log, f"{row}/") for name, row in rows.items()},
        )


def _below(log: Log, start: str) -> Log:
    return {path.removeprefix(start): group for path, group in log.items() if path.startswith(start)}


def _summed(held: Sequence[dict[str, Any]]) -> Ledger:
    first, *others = map(Ledger.read, held)
    return sum(others, first)
