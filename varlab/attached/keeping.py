"""The run folder of an attachment: one call after another, each whole or not at all, and gone on with later."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import xarray as xr
from PIL import Image

from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.outputs import image_facts, save_image
from varlab.probes import log as logs
from varlab.probes.log import Log
from varlab.runs.folders import (
    SAME,
    find_run,
    forget,
    has_begun,
    is_finished,
    open_log,
    parts_of,
    refuse_another,
    run_key,
    sweep,
    write_log,
    write_record,
)
from varlab.runs.manifest import image_path
from varlab.runs.parts import joined_lazily, load_part
from varlab.writing import beside, check_writable

Record = dict[str, Any]


class Keeping:
    """A folder that this process alone writes in, from ``open`` to ``close``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found, self.held = folder, dict[str, Any](), 0
        self.stack = ExitStack()

    def open(self, asked: Mapping[str, Any]) -> None:
        """Raises VarlabError for a folder that holds another run or something else, or is being written."""
        check_writable(self.folder)
        find_run(self.folder, asked)
        self.stack.enter_context(one_writer(self.folder, wait=False))
        sweep(self.folder)
        self.found = find_run(self.folder, asked) or {}
        whole = is_finished(self.folder)
        parts = [load_part(path) for path in parts_of(self.folder)]
        self.held = (
            len(self.found["prompts"]) if whole else sum(len(next(iter(part.values())).samples) for part in parts)
        )
        self.stack.callback(self._forget_nothing)  # of a folder that was refused, nothing is ours to remove

    def close(self) -> None:
        self.stack.close()

    def _forget_nothing(self) -> None:
        """Leave no trace of a run that drew nothing."""
        if not has_begun(self.folder) and self.found == {}:
            forget(self.folder)

    def holds(self, first: int, texts: Sequence[str]) -> bool:
        """Whether the images from number ``first`` on are there, of these prompts.

        Raises VarlabError where others are there, and where the run is finished without them.
        """
        held = self.found.get("prompts", [])[: self.held]
        there = held[first : first + len(texts)]
        if there and there != list(texts):
            raise VarlabError(
                f"{self.folder} holds {there} from image {first} on, not {list(texts)}. Name the same prompts in the "
                "same order and in the same batches, or give another folder."
            )
        if not there and held and is_finished(self.folder):
            raise VarlabError(
                f"{self.folder} holds a finished run of {len(held)} prompts. Give another folder for more."
            )
        return bool(there)

    def add(self, record: Record, first: int, pictures: Sequence[Image.Image], log: Log) -> None:
        """Keep a call: the record, its images, then its part of the log."""
        if first < self.held:
            raise VarlabError(
                f"{self.folder} holds {self.held} images already. Name the prompts, hooked.prompt(text), so that those "
                "which are there are left out."
            )
        same = {name: record[name] for name in SAME if name not in ("prompts", "seed")}
        if self.found:
            refuse_another(self.folder, self.found, same)
            record |= {name: self.found[name] for name in ("seed", "date")}
        record |= {"key": run_key(record), "batch": len(pictures), "stage_seconds": None}
        write_record(self.folder, record)
        for name in ("images", "parts"):
            (self.folder / name).mkdir(exist_ok=True)
        images = [image_path(self.folder, first + i) for i in range(len(pictures))]
        try:
            for i, (path, picture) in enumerate(zip(images, pictures, strict=True), start=first):
                save_image(path, picture, _facts_of(record, i), overwrite=True)
            with beside(self.folder / "parts" / f"{first:06d}.npz") as draft:
                logs.save(draft, log)
        except BaseException:
            for path in images:
                path.unlink(missing_ok=True)
            raise
        self.found, self.held = record, first + len(pictures)

    def complete(self) -> None:
        """Turn all parts into the log."""
        parts = parts_of(self.folder)
        if not parts or is_finished(self.folder):
            return
        record = self.found | {"n": self.held, "prompts": self.found["prompts"][: self.held]}
        write_log(self.folder, logs.tree(joined_lazily(parts), record))
        shutil.rmtree(self.folder / "parts")

    def log(self) -> xr.DataTree:
        return open_log(self.folder)

    def images(self) -> list[Image.Image]:
        return [Image.open(path) for path in sorted((self.folder / "images").glob("[0-9]*.png"))]


def _facts_of(record: Record, i: int) -> dict[str, Any]:
    """Of one image, with the seed of its own call; without one where that is not known, and so without a partner."""
    facts = {name: value for name, value in image_facts(record, i).items() if name != "seeds"}
    seed = record["seeds"][i] if record["seeds"][i] is not None else record["seed"]
    return {name: value for name, value in facts.items() if name != "seed"} | ({} if seed is None else {"seed": seed})


def plain(record: Mapping[str, Any]) -> Record:
    """A record as it reads back from a file."""
    return dict(json.loads(json.dumps(record, default=list)))
