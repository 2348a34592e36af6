"""Scores that a network gives to an image and its prompt: HPSv2.1 and ImageReward."""

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.errors import VarlabError, cause, quoted
from varlab.evaluation import hps, imagereward
from varlab.evaluation.contract import Asked, Benchmark, Folder, Item, Scores, finished, moved, rates, require_all
from varlab.evaluation.results import facts_beside, number, once, read_table, said, whole
from varlab.evaluation.scripts import imagereward_score
from varlab.json_files import read_json
from varlab.models.base import NextScaleModel


class Preference(Benchmark):
    """``scores.csv`` with a row an image."""

    results = "scores.csv"
    versions: tuple[str, ...]
    columns: tuple[str, str]  # what names an image

    @abstractmethod
    def entry(self, row: dict[str, str], place: str) -> tuple[str, int]:
        """The prompt's name and the image's number."""

    @abstractmethod
    def rows(self, entries: pd.DataFrame, asked: Asked) -> list[dict[str, Any]]:
        """The table."""

    def score(self, asked: Asked) -> Scores:
        results = asked.results or Path(self.results)
        facts = facts_beside(results, self.name, self.versions)
        items, seen = {item.id: item for item in asked.items}, set[Any]()
        rows = []
        for place, row in read_table(results, (*self.columns, "score")):
            name, image = self.entry(row, place)
            if name not in items:
                raise VarlabError(f"{place}: there is no prompt {quoted(name)} among the {len(items)}.")
            once(seen, (name, image), place, f"image {image} of {quoted(name)}")
            value, item = number(row["score"], place, "score"), items[name]
            rows.append({"entry": name, "image": image, "category": item.category, "prompt": item.text,
                         self.name: value * self.factor})  # fmt: skip
        count, _ = asked.folder.layout(self)
        expected = [f"{name}, image {k}" for name in items for k in range(count)]
        missing = require_all(asked, expected, [f"{row['entry']}, image {row['image']}" for row in rows])
        entries = pd.DataFrame(rows)
        return finished(self.rows(entries, asked), asked, missing, entries, said(facts), facts)

    factor = 1.0


class Hps(Preference):
    name = "hps"
    title = "HPSv2.1"
    ending = ".jpg"
    endings = (".jpg",)  # the official reader knows no other
    adapter = "hps_score"
    packages = ("hpsv2",)
    versions = ("v2.1",)
    columns = ("style", "index")
    needs = "its prompts, STYLE.json for anime, concept-art, paintings and photo (the folder benchmark of HPSv2)"
    factor = 100.0

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        place = self.require_prompts(prompts)
        files = sorted(place.glob("*.json")) if place.is_dir() else []
        if not files:
            raise VarlabError(f"{place} holds no STYLE.json. HPSv2.1 needs {self.needs}.")
        return [Item(f"{path.stem}/{i:05d}", text, path.stem) for path in files for i, text in enumerate(_texts(path))]

    def entry(self, row: dict[str, str], place: str) -> tuple[str, int]:
        return f"{row['style']}/{whole(row['index'], place, 'index'):05d}", 0

    def rows(self, entries: pd.DataFrame, asked: Asked) -> list[dict[str, Any]]:
        values = dict(zip(entries["entry"], entries["hps"], strict=True))
        styles: dict[str, list[float | None]] = {}
        for item in asked.items:
            found = values.get(item.id)
            styles.setdefault(item.category, []).append(None if found is None else found / 100)
        table = rates(entries, "hps").set_index("measure", drop=False)
        rows = [
            moved(table.loc[name].to_dict(), hps.style(own, asked.corrected).score)
            for name, own in styles.items()
            if name in table.index
        ]
        present = {name: np.array([v for v in own if v is not None]) for name, own in styles.items()}
        flat = rates(entries, "hps", by_category=False).iloc[0].to_dict()
        base = table.loc["overall"].to_dict() if asked.corrected else flat
        return [*rows, moved(base, hps.average(present, asked.corrected), "average")]

    def remarks(self, folder: Folder, items: Sequence[Item], prompts: Path | None) -> Iterator[str]:
        """Folders that the official reader would take for styles."""
        styles = {item.category for item in items}
        for place in sorted(folder.images.glob("*")):
            if place.is_dir() and place.name not in styles:
                yield f"{place}: the official reader takes every folder for a style"


def _texts(path: Path) -> list[str]:
    found: list[str] = read_json(path, "It must be a list of texts.", list)
    if not all(isinstance(text, str) and text.strip() for text in found):
        raise VarlabError(f"{path} is no list of texts.")
    return found


class ImageReward(Preference):
    name = "imagereward"
    title = "ImageReward"
    place = "{id}_{k}"
    per_prompt = imagereward.PER_PROMPT
    adapter = "imagereward_score"
    packages = ("ImageReward",)
    versions = ("v1.0",)
    columns = ("id", "index")
    needs = "benchmark-prompts.json of the ImageReward repository: a list of objects with id and prompt"

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        place = self.require_prompts(prompts)
        items, seen = [], set[Any]()
        for i, item in enumerate(read_json(place, f"ImageReward needs {self.needs}.", list)):
            if not isinstance(item, dict) or not isinstance(item.get("prompt"), str) or "id" not in item:
                raise VarlabError(f"{place}, entry {i}: no object with id and prompt. ImageReward needs {self.needs}.")
            once(seen, str(item["id"]), f"{place}, entry {i}", f"id {item['id']}")
            items.append(Item(str(item["id"]), item["prompt"]))
        return items

    def entry(self, row: dict[str, str], place: str) -> tuple[str, int]:
        return row["id"], whole(row["index"], place, "index")

    def rows(self, entries: pd.DataFrame, asked: Asked) -> list[dict[str, Any]]:
        """Both means of the official scripts, or the mended one."""
        count, _ = asked.folder.layout(self)
        values = {(row.entry, row.image): row.imagereward for row in entries.itertuples()}
        most = max(count, int(entries["image"].max()) + 1)
        rewards = [[values.get((item.id, k)) for k in range(most)] for item in asked.items]
        rewards = [own[: max([count, *(k + 1 for k, v in enumerate(own) if v is not None)])] for own in rewards]
        flat = rates(entries, self.name, by_category=False).iloc[0].to_dict()
        if asked.corrected:
            return [moved(flat, imagereward.corrected(rewards).score, "mean of prompts")]
        found = {"mean of prompts": imagereward.upstream(rewards), "mean of images": imagereward.infinity(rewards)}
        if error := found["mean of prompts"].error:
            raise VarlabError(f"The official script ends with {error}. Score with --mode corrected.")
        return [moved(flat, means.score, name) for name, means in found.items() if not means.error]

    def remarks(self, folder: Folder, items: Sequence[Item], prompts: Path | None) -> Iterator[str]:
        """Prompts whose images lie in both layouts, and Infinity's list of prompts where it is not the originals."""
        for item in items:
            both = [*folder.images.glob(f"{item.id}_*.*"), *(folder.images / item.id).glob(f"{item.id}_*.*")]
            if len(both) > len(imagereward_score.images_of(folder.images, item.id)):
                yield f"{both[0]}: prompt {item.id} has an image twice, under two names"
        listed = folder.images / "metadata.jsonl"  # of Infinity's script: one JSON list in truth
        if listed.is_file():
            try:
                known = {str(entry["id"]): entry["prompt"] for entry in json.loads(listed.read_text("utf-8-sig"))}
            except (ValueError, TypeError, KeyError) as error:
                yield f"{listed}: no list of objects with id and prompt ({cause(error)})"
                return
            for item in items:
                if known.get(item.id, item.text) != item.text:
                    yield f"{listed}: prompt {item.id} is a rewritten one in place of {quoted(item.text)}"
