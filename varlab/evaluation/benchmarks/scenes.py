"""What varlab judges without another network: the scene benchmark, and the distance of class-conditional scenes."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from varlab.errors import VarlabError, cause
from varlab.evaluation.classes import MEASURES, described, held_out, measures, space_of
from varlab.evaluation.contract import Asked, Benchmark, Item, Scores, finished, rates, require_all
from varlab.evaluation.scenes import score
from varlab.models.base import NextScaleModel
from varlab.runs.origins import scene_version
from varlab.scenes.prompt_sets import prompts as prompt_set


class Scenes(Benchmark):
    name = "scenes"
    title = "The scene benchmark"
    place = "{id}/{k:04d}"
    per_prompt = 4
    needs = "no file: its prompts are varlab's own"
    reads_prompts = False

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        chosen = prompt_set("scenes")
        return [
            Item(f"{i:05d}", text, category)
            for i, (text, category) in enumerate(zip(chosen.texts, chosen.categories, strict=True))
        ]

    def score(self, asked: Asked) -> Scores:
        rows, pictures, missing = _pictures(self, asked)
        texts, categories = ([row[name] for row in rows] for name in ("prompt", "category"))
        version = scene_version(asked.folder.record, asked.scene_version)
        found = score(pictures, texts, categories, version=version).images
        entries = pd.DataFrame(rows).assign(correct=found["correct"].to_numpy(bool))
        return finished(rates(entries, "correct"), asked, missing, entries)


class Frechet(Scenes):
    name = "frechet"
    title = "The Frechet distance of scene classes"
    per_prompt = 50
    needs = "a model of named scene classes, such as mini-var"

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        names: Sequence[str] = getattr(getattr(model, "text", None), "names", ())
        if not names:
            raise VarlabError(f"{self.title} needs {self.needs}, or a folder that varlab generate made of one.")
        return [Item(f"{i:05d}", name, name) for i, name in enumerate(names)]

    def score(self, asked: Asked) -> Scores:
        """Against as many held-out scenes, by scattering features: no FID."""
        rows, pictures, missing = _pictures(self, asked)
        names = [row["prompt"] for row in rows]
        first = next(pictures)
        found, side = described(chain([first], pictures), names), len(first)
        values = measures(found, space_of(held_out(len(names), side)))
        table = [
            {"measure": name, "value": v.estimate, "low": v.low, "high": v.high,
             "prompts": len(set(names)), "images": len(names)}
            for name, v in values.items()
        ]  # fmt: skip
        assert set(values) == set(MEASURES)
        entries = pd.DataFrame(rows).assign(correct=found.correct)
        return finished(table, asked, missing, entries, ["scattering features: the distance is no FID"])


def _pictures(benchmark: Benchmark, asked: Asked) -> tuple[list[dict[str, Any]], Iterator[np.ndarray], int]:
    """A row and the pixels of every image that is there, which are read one by one, and how many are not."""
    places = [
        (item, k, asked.folder.images / path)
        for item in asked.items
        for k, path in enumerate(benchmark.paths(item, *asked.folder.layout(benchmark)))
    ]
    there = [(item, k, place) for item, k, place in places if place.is_file()]
    missing = require_all(asked, [str(place) for *_, place in places], [str(place) for *_, place in there])
    rows = [{"entry": item.id, "image": k, "category": item.category, "prompt": item.text} for item, k, _ in there]
    return rows, (_read(place) for *_, place in there), missing


def _read(place: Path) -> np.ndarray:
    try:
        with Image.open(place) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise VarlabError(f"{place} cannot be read as an image ({cause(error)}). Make it again.") from error
