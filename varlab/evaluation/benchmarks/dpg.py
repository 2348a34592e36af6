"""DPG-Bench: a picture of four samples for each of 1065 prompts, whose questions mPLUG answers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from varlab.errors import VarlabError, quoted
from varlab.evaluation import dpg
from varlab.evaluation.contract import (
    ENDINGS,
    Asked,
    Benchmark,
    Folder,
    Item,
    Scores,
    finished,
    interval_row,
    moved,
    rates,
    require_all,
)
from varlab.evaluation.results import facts_beside, once, read_table, said, whole
from varlab.markup import count as numbered
from varlab.measures.statistics import Interval
from varlab.models.base import NextScaleModel

VERSIONS = ("2024",)


class Dpg(Benchmark):
    name = "dpg"
    title = "DPG-Bench"
    per_prompt = 4
    results = "answers.csv"
    adapter = "dpg_answer"
    packages = ("modelscope",)
    needs = "the official dpg_bench.csv of github.com/TencentQQGYLab/ELLA, whose licence forbids to ship it"
    tiles = 4

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        table = self.require_prompts(prompts)
        known = dpg.read_csv(table)
        texts: dict[str, str] = {}
        for place, row in read_table(table, ("item_id", "text")):
            texts.setdefault(row["item_id"], row["text"])
            if not row["text"].strip() and row["item_id"] in known:
                raise VarlabError(f"{place}: the text of {quoted(row['item_id'])} is empty.")
        return [Item(name, texts[name]) for name in known]

    def stored(self, samples: Sequence[Image.Image]) -> list[Image.Image]:
        """One picture, row by row two samples wide."""
        width, height = samples[0].size
        rows = -(-len(samples) // 2)
        whole_picture = Image.new("RGB", (width * min(2, len(samples)), height * rows))
        for i, sample in enumerate(samples):
            whole_picture.paste(sample, (i % 2 * width, i // 2 * height))
        return [whole_picture]

    def command(self, folder: Folder, prompts: Path | None, out: Path) -> list[str]:
        side = _side(folder)
        return [*super().command(folder, self.require_prompts(prompts), out), "--resolution", str(side)]

    def remarks(self, folder: Folder, items: Sequence[Item], prompts: Path | None) -> Iterator[str]:
        """Two pictures of one prompt, names without one, and pictures that are no grid of the others' size."""
        known, by_key = {item.id for item in items}, defaultdict(list)
        for place in sorted(folder.images.glob("*")):
            if place.suffix.lower() in ENDINGS:
                by_key[dpg.key_of(place.name)].append(place)
        for key, places in by_key.items():
            if key not in known:
                yield f"{places[0]}: no prompt {quoted(key)}, so that it counts for nothing"
            elif len(places) > 1:
                yield f"{places[1]}: a second picture of {quoted(key)} beside {places[0].name}; both would count"
        for place in (place for places in by_key.values() for place in places):
            try:
                with Image.open(place) as picture:
                    width, height = picture.size
            except OSError:
                continue  # said as damaged
            if width != height or width % 2:
                yield f"{place}: {width} x {height} is no square grid of 2 x 2 samples"

    def score(self, asked: Asked) -> Scores:
        results = asked.results or Path(self.results)
        facts = facts_beside(results, self.name, VERSIONS)
        answers = read_answers(results)
        crops = int(facts.get("crops", min(len(own) for asks in answers.values() for own in asks.values())))
        rules = dpg.CORRECTED if asked.corrected else dpg.OFFICIAL
        table = self.require_prompts(asked.prompts)
        try:
            run = dpg.score(table, answers, crops, rules)
        except VarlabError as error:
            raise VarlabError(f"{results}: {error}") from None
        if run.crash:
            raise VarlabError(f"The official code ends with {run.crash} on {table}. Score with --mode corrected.")
        texts = {item.id: item.text for item in asked.items}
        if strange := sorted(file for file in answers if dpg.key_of(file) not in texts):
            raise VarlabError(f"{results}: {strange[0]} belongs to no prompt of {table}.")
        keys = [dpg.key_of(file) for file in answers]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise VarlabError(f"{results}: two pictures of {quoted(twice[0])}, both of which would count. Remove one.")
        missing = require_all(asked, list(texts), keys, "pictures")
        lost = {file: why for file, why in run.dropped.items() if asked.corrected}
        if lost and not asked.allow_missing:
            file, why = next(iter(lost.items()))
            raise VarlabError(f"{results}: {len(lost)} pictures cannot be scored, such as {file} (parent {why}).")
        entries = pd.DataFrame([
            {"entry": key, "image": 0, "category": "", "prompt": texts[key], "dpg": 100 * value}
            for key, value in ((dpg.key_of(file), value) for file, value in run.images.items())
        ])  # fmt: skip
        overall = rates(entries, "dpg", by_category=False).iloc[0].to_dict()
        rows = [moved(overall, run.overall)]
        levels = (run.l1 | run.l2).items()
        rows += [interval_row(name, Interval(value, np.nan, np.nan), len(run.crops)) for name, value in levels]
        notes = [*said(facts), f"{crops} crops a picture"]
        if run.dropped:
            notes.append(
                f"dropped by the {asked.mode} rules: {numbered(len(run.dropped), 'picture')}, such as "
                f"{next(iter(run.dropped))}"
            )
        return finished(rows, asked, missing + len(run.dropped), entries, notes, facts)


def _side(folder: Folder) -> int:
    """The side of one sample, of the first picture."""
    for place in sorted(folder.images.glob("*")):
        if place.suffix.lower() in ENDINGS:
            with Image.open(place) as picture:
                return picture.size[0] // 2
    raise VarlabError(f"{folder.images} holds no pictures.")


def read_answers(path: Path) -> dict[str, dict[str, list[str]]]:
    """file -> question -> an answer a crop. Raises VarlabError by line."""
    found: dict[str, dict[str, dict[int, str]]] = {}
    seen: set[tuple[str, str, int]] = set()
    for place, row in read_table(path, ("file", "crop", "question", "answer")):
        crop = whole(row["crop"], place, "crop")
        if crop > 3:
            raise VarlabError(f"{place}: crop {crop}; a picture has 4, from 0.")
        file, question = row["file"], row["question"]
        once(seen, (file, question, crop), place, f"crop {crop} of {file}, {quoted(question)},")
        found.setdefault(file, {}).setdefault(question, {})[crop] = row["answer"]
    if not found:
        raise VarlabError(f"{path} holds no answers.")
    for file, asks in found.items():
        for question, own in asks.items():
            if sorted(own) != list(range(len(own))):
                raise VarlabError(f"{path}: {file}, {quoted(question)} has crops {sorted(own)}, not all from 0.")
    return {
        file: {question: [own[crop] for crop in sorted(own)] for question, own in asks.items()}
        for file, asks in found.items()
    }
