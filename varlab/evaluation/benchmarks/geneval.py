"""GenEval: 553 prompts, 4 images each, judged by a detector and a colour network; its prompts ship."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from varlab.errors import VarlabError, cause, quoted
from varlab.evaluation import geneval, geneval_matching
from varlab.evaluation.contract import Asked, Benchmark, Folder, Item, Scores, finished, rates, require_all
from varlab.evaluation.results import check_facts, number, once, said
from varlab.json_files import parse, read_lines
from varlab.models.base import NextScaleModel
from varlab.scenes.prompt_sets import GENEVAL

VERSIONS = ("2023",)  # of the results: the one set of prompts that there is
PICTURE = re.compile(r"(\d+)/samples/(\d+)\.(png|jpe?g)")


class GenEval(Benchmark):
    name = "geneval"
    title = "GenEval"
    place = "{id}/samples/{k:04d}"
    per_prompt = 4
    results = "detections.jsonl"
    adapter = "geneval_detect"
    packages = ("mmdet", "open_clip")

    def items(self, prompts: Path | None, model: NextScaleModel | None = None) -> list[Item]:
        return [
            Item(f"{i:05d}", _checked(about, place)["prompt"], about["tag"], about)
            for i, (place, about) in enumerate(read_lines(prompts or GENEVAL))
        ]

    def texts(self, item: Item) -> dict[str, str]:
        return {f"{item.id}/metadata.jsonl": json.dumps(item.facts)}

    def requires(self, options: Sequence[str]) -> tuple[str, ...]:
        return ("transformers",) if "--transformers" in options else self.packages

    def command(self, folder: Folder, prompts: Path | None, out: Path) -> list[str]:
        return [str(folder.images), str(out)]

    def remarks(self, folder: Folder, items: Sequence[Item], prompts: Path | None) -> Iterator[str]:
        """Metadata that are not those of the prompts, and names that the official reader passes over."""
        for item in items:
            place = folder.images / item.id / "metadata.jsonl"
            if not place.is_file():
                continue  # said as missing
            try:
                about = json.loads(place.read_text("utf-8"))
            except ValueError as error:
                yield f"{place}: no JSON in one line ({cause(error)})"
                continue
            known = dict(item.facts)
            if about == known:
                continue
            if isinstance(about, dict) and about | {"prompt": ""} == known | {"prompt": ""}:
                yield (
                    f"{place}: a rewritten prompt stands in place of the original {quoted(item.text)}; images of one "
                    "prompt are no longer counted together"
                )
            else:
                yield f"{place}: not line {int(item.id) + 1} of the prompts ({quoted(item.text)})"
        known_ids = {item.id for item in items}
        for place in sorted(folder.images.glob("*")):
            if items and place.is_dir() and place.name.isdigit() and place.name not in known_ids:
                yield f"{place}: no prompt of that number, and the official evaluator reads every such folder"
        for place in sorted(folder.images.glob("*/samples/*")):
            if place.suffix.lower() in (".jpg", ".jpeg", ".png") and not re.match(geneval.OFFICIAL_NAME, place.name):
                yield f"{place}: the official evaluator reads no file of that name, and says nothing"

    def score(self, asked: Asked) -> Scores:
        results = asked.results or Path(self.results)
        facts, lines = read_detections(results, {item.id: item for item in asked.items})
        entries = pd.DataFrame([_row(place, line, asked.corrected) for place, line in lines])
        count, _ = asked.folder.layout(self)
        expected = [f"{item.id}/{k:04d}" for item in asked.items for k in range(count)]
        found = [f"{row.entry}/{row.image:04d}" for row in entries.itertuples()]
        missing = require_all(asked, expected, found)
        table = rates(entries, "correct")
        any_of = entries.groupby("entry", as_index=False).agg({"correct": "any", "category": "first"})
        whole = {"% correct images": entries, "% correct prompts": any_of}
        more = [rates(part, "correct", by_category=False).assign(measure=name) for name, part in whole.items()]
        return finished(pd.concat([table, *more]), asked, missing, entries, said(facts), facts)


def _checked(about: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """A line of the prompts: a tag, a prompt, and clauses with class and count."""
    if not isinstance(about.get("prompt"), str) or not isinstance(about.get("tag"), str):
        raise VarlabError(f"{place}: a prompt of GenEval has a tag and a prompt.")
    for clause in (*about.get("include", ()), *about.get("exclude", ())):
        if not isinstance(clause, dict) or not isinstance(clause.get("count"), int) or "class" not in clause:
            raise VarlabError(f"{place}: a clause has a class and a count, unlike {json.dumps(clause)}.")
        position = clause.get("position", [geneval.RELATIONS[0], 0])
        known = isinstance(position, list) and len(position) == 2 and position[0] in geneval.RELATIONS
        if not known or not isinstance(position[1], int):
            raise VarlabError(
                f"{place}: a position is one of {', '.join(geneval.RELATIONS)} and the number of a clause, unlike "
                f"{json.dumps(position)}."
            )
    return about


def read_detections(path: Path, items: Mapping[str, Item]) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """What the first line says, and each image's line with its place; of one of the official code also verdicts.

    Raises VarlabError by line for what is cut, foreign, there twice, of another prompt, or no number.
    """
    lines = list(read_lines(path))
    if not lines:
        raise VarlabError(f"{path} is empty. Write it with the adapter: varlab adapter geneval.")
    first = lines[0][1]
    facts: dict[str, Any] = {"version": VERSIONS[0], "detector": "official results.jsonl"}
    if first.get("kind") == "header":
        facts = check_facts(first, lines.pop(0)[0], "geneval", VERSIONS)
    elif not {"correct", "details"} <= first.keys():
        raise VarlabError(
            f"{lines[0][0]}: no header, so it is neither the adapter's file nor an official results.jsonl."
        )
    seen: set[tuple[str, int]] = set()
    return facts, [(place, _line(place, line, items, seen)) for place, line in lines]


def _line(place: str, line: dict[str, Any], items: Mapping[str, Item], seen: set[tuple[str, int]]) -> dict[str, Any]:
    named = PICTURE.search(str(line.get("filename", "")))
    if named is None:
        raise VarlabError(
            f"{place}: filename is {quoted(line.get('filename'))}, not 00000/samples/0000.png or its like."
        )
    entry, image = named[1], int(named[2])
    once(seen, (entry, image), place, f"image {image} of {entry}")
    about = line.get("metadata")
    about = parse(about, f"{place}: its text of metadata") if isinstance(about, str) else about
    if entry not in items:
        raise VarlabError(f"{place}: there is no prompt {entry}; the prompts have {len(items)}.")
    if about != dict(items[entry].facts):
        raise VarlabError(
            f"{place}: its metadata are not those of prompt {entry} ({quoted(items[entry].text)}): it is of another "
            "version of the prompts, or of rewritten ones."
        )
    return line | {"entry": entry, "image": image, "item": items[entry]}


def _row(place: str, line: Mapping[str, Any], corrected: bool) -> dict[str, Any]:
    item: Item = line["item"]
    row = {"entry": item.id, "image": line["image"], "category": item.category, "prompt": item.text}
    if "detections" not in line:
        if corrected:
            raise VarlabError(f"{place}: official results hold verdicts, which can be counted but not mended.")
        if not isinstance(line.get("correct"), bool):
            raise VarlabError(f"{place}: correct is {quoted(line.get('correct'))}, not true or false.")
        return row | {"correct": line["correct"]}
    return row | {"correct": _verdict(place, line, item, corrected).correct}


def _verdict(place: str, line: Mapping[str, Any], item: Item, corrected: bool) -> geneval.Verdict:
    options, rules = geneval.Options(), geneval_matching if corrected else geneval
    objects, colours = {}, {}
    detections, labelled = line["detections"], line.get("colours", {})
    if not isinstance(detections, dict) or not isinstance(labelled, dict):
        raise VarlabError(f"{place}: detections and colours are objects, class -> rows and class -> colours.")
    for name, boxes in detections.items():
        rows = _boxes(place, name, boxes)
        labels = labelled.get(name, [None] * len(rows))
        if len(labels) != len(rows):
            raise VarlabError(f"{place}: {len(labels)} colours of {len(rows)} {quoted(name)}.")
        kept = rules.selected(rows, options.threshold_of(item.category), options)
        if kept:
            objects[name], colours[name] = rows[kept], [labels[i] for i in kept]
    for clause in item.facts.get("include", ()):
        if "color" in clause and any(label is None for label in colours.get(clause["class"], ())):
            raise VarlabError(f"{place}: a {clause['class']} has no colour, which its prompt asks for.")
    try:
        return rules.judge(item.facts, objects, colours, options)
    except (KeyError, IndexError) as error:
        raise VarlabError(
            f"{place}: the official rules end with {type(error).__name__} ({cause(error)}) here."
        ) from None


def _boxes(place: str, name: str, boxes: Any) -> geneval.Rows:
    if not isinstance(boxes, list) or any(not isinstance(box, list) or len(box) != 5 for box in boxes):
        raise VarlabError(f"{place}: detections of {quoted(name)} are rows x1, y1, x2, y2, score.")
    return geneval.as_rows([[number(value, place, f"a box of {quoted(name)}") for value in box] for box in boxes])
