"""mPLUG's answers to DPG-Bench's questions, written as a table. Needs pillow, numpy and modelscope; no varlab.

    python dpg_answer.py IMAGES dpg_bench.csv answers.csv --resolution 1024

IMAGES holds a picture a prompt, named after its item_id, a 2 x 2 grid of samples whose side is --resolution. The table
has columns file, crop, question, answer; it must not lie among the pictures. answers.json beside it says how it was
made.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

WEIGHTS = "damo/mplug_visual-question-answering_coco_large_en"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

Network = Callable[[Image.Image, str], str]  # a crop and a question -> the answer


def crops_of(picture: Image.Image, resolution: int, count: int) -> list[Image.Image]:
    """The first samples of a grid, row by row."""
    corners = [(0, 0), (resolution, 0), (0, resolution), (resolution, resolution)]
    return [picture.crop((x, y, x + resolution, y + resolution)) for x, y in corners[:count]]


def questions_of(place: Path) -> dict[str, list[str]]:
    """The questions of each prompt; ids stay text."""
    found: dict[str, list[str]] = {}
    with place.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["item_id"], []).append(row["question_natural_language"])
    return found


def answers(
    images: Path, questions: dict[str, list[str]], network: Network, resolution: int, count: int
) -> Iterator[tuple[str, int, str, str]]:
    """File, crop, question and answer of every picture that has questions."""
    for place in sorted(place for place in images.iterdir() if place.suffix.lower() in ENDINGS):
        asked = questions.get(place.name.split(".")[0], [])
        if not asked:
            continue
        with Image.open(place) as picture:
            parts = crops_of(picture.convert("RGB"), resolution, count)
        for crop, part in enumerate(parts):
            for question in asked:
                yield place.name, crop, question, network(part, question)


def formats(images: Path) -> list[str]:
    """The kinds of picture files, which scores feel."""
    kinds = {place.suffix.lower() for place in images.rglob("*") if place.is_file()}
    return sorted(kinds & {*ENDINGS})


def write(place: Path, rows: Iterable[tuple[str, int, str, str]], facts: Mapping[str, object]) -> None:
    """The table and its facts."""
    with place.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file", "crop", "question", "answer"))
        table.writerows(rows)
    place.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load(weights: str) -> Network:
    """mPLUG of modelscope."""
    from modelscope.pipelines import pipeline
    from modelscope.utils.constant import Tasks

    ask = pipeline(Tasks.visual_question_answering, model=weights)
    return lambda part, question: str(ask({"image": part, "question": question})["text"])


def main(arguments: Sequence[str] | None = None, network: Network | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--resolution", type=int, default=1024, help="the side of one sample")
    parser.add_argument("--crops", type=int, choices=(1, 2, 3, 4), default=4)
    parser.add_argument("--weights", default=WEIGHTS)
    given = parser.parse_args(arguments)
    if given.out.resolve().parent == given.images.resolve():
        raise SystemExit(f"{given.out} would lie among the pictures. Write it elsewhere.")
    facts = {
        "benchmark": "dpg", "version": "2024", "weights": given.weights, "resolution": given.resolution,
        "crops": given.crops, "formats": formats(given.images),
    }  # fmt: skip
    found = answers(
        given.images, questions_of(given.questions), network or load(given.weights), given.resolution, given.crops
    )
    write(given.out, found, facts)


if __name__ == "__main__":
    main()
