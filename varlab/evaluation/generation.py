"""The images that a benchmark asks for, drawn in its official layout; a drawing that was cut goes on."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from varlab.accelerators import DENSE
from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.evaluation.contract import IMAGES, RECORD, SHOWN, Benchmark, Item
from varlab.locks import one_writer
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.outputs import plain, save_image, save_json
from varlab.runs import Job, default_batch, to_pil
from varlab.runs.inputs import check_writable
from varlab.runs.origins import made_with
from varlab.weights.memory import refuse_batch
from varlab.writing import beside

Progress = Callable[[float, int], None]
QUALITY = 95  # of JPG: the default of OpenCV, by which the official scripts of Infinity and its kin write
PASSING = ("date", "device", "threads", "git", "versions")  # of a record: what may differ when a drawing goes on


@dataclass(frozen=True)
class Drawing:
    """What is drawn and how it is stored.

    rewritten : what is drawn in place of a prompt, by the prompt; the layout and the record keep the original.
    """

    benchmark: Benchmark
    model: NextScaleModel
    items: Sequence[Item]
    spec: str
    seed: int
    per_prompt: int
    ending: str
    rewritten: Mapping[str, str]
    settings: Settings
    batch: int | None = None

    def record(self) -> dict[str, Any]:
        """What the folder says of itself."""
        replaced = {item.id: self.rewritten[item.text] for item in self.items if item.text in self.rewritten}
        made = made_with(self.model, seed=self.seed) | {"settings": asdict(self.settings)}
        return plain({
            "benchmark": self.benchmark.name, "spec": self.spec, **made, "images_per_prompt": self.per_prompt,
            "ending": self.ending, "quality": QUALITY if self.ending == ".jpg" else None, "rewritten": replaced,
            "n": len(self.items) * self.per_prompt, "items": [asdict(item) for item in self.items],
        })  # fmt: skip

    def job(self) -> Job:
        """Sample i is image i % per_prompt of item i // per_prompt, and depends on (seed, i) alone."""
        texts = [self.rewritten.get(item.text, item.text) for item in self.items for _ in range(self.per_prompt)]
        methods = tuple(part for part in self.spec.split("+") if part != DENSE)
        return Job(self.model, tuple(texts), self.settings, self.seed, accelerators=methods)

    def paths(self, item: Item) -> list[str]:
        return self.benchmark.paths(item, self.per_prompt, self.ending)


def folder_of(out: Path, spec: str) -> Path:
    """Where the images of a spec go."""
    return out / spec.replace(":", "-").replace("/", "_").replace(",", "-")


def check(drawing: Drawing, folder: Path) -> None:
    """Refuse, before anything is made, what the model cannot draw and a folder that holds something else."""
    check_writable(folder)
    drawing.job().try_out()
    refuse_batch(drawing.model, drawing.batch or default_batch(drawing.model))
    if not (folder / RECORD).is_file():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise VarlabError(f"{folder} is not empty and holds no {RECORD}. Give another folder.")
        return
    try:
        held = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise VarlabError(f"{folder / RECORD} cannot be read ({error}). Give another folder.") from error
    asked = drawing.record()
    if differing := [name for name in asked if name not in PASSING and held.get(name) != asked[name]]:
        raise VarlabError(
            f"{folder} holds other images (different: {', '.join(differing[:SHOWN])}). Give another folder."
        )


@fixed_context()
def generate(drawing: Drawing, folder: Path, progress: Progress | None = None, wait: bool = True) -> int:
    """Draw what is not there yet; returns how many pictures were made.

    A picture is written whole or not at all. Memory: ``batch`` images at a time, and the samples of one prompt.
    """
    check(drawing, folder)
    made = 0
    with one_writer(folder, wait=wait):
        if not (folder / RECORD).is_file():
            save_json(folder / RECORD, drawing.record())
        images = folder / IMAGES
        for item in drawing.items:
            for path, text in drawing.benchmark.texts(item).items():
                _write_text(images / path, text)
        wanting = [
            i
            for i, item in enumerate(drawing.items)
            if not all((images / path).is_file() for path in drawing.paths(item))
        ]
        if progress is not None:
            progress((len(drawing.items) - len(wanting)) * drawing.per_prompt, len(drawing.items) * drawing.per_prompt)
        for item, samples in _drawn(drawing, wanting, progress):
            pictures = drawing.benchmark.stored(samples)
            for path, picture in zip(drawing.paths(item), pictures, strict=True):
                _save(images / path, picture, drawing, item)
                made += 1
    return made


def _drawn(
    drawing: Drawing, wanting: Sequence[int], progress: Progress | None
) -> Iterator[tuple[Item, list[Image.Image]]]:
    """The samples of each item; runs of neighbouring items share batches."""
    job = drawing.job()
    per, count = drawing.per_prompt, len(drawing.items) * drawing.per_prompt
    batch = drawing.batch or default_batch(drawing.model)
    if progress is not None:
        job = replace(job, progress=progress)
    for first, last in _neighbours(wanting):
        held: list[Image.Image] = []
        ready = first
        for start in range(first * per, last * per, batch):
            samples = range(start, min(start + batch, last * per))
            out, _ = job.run(samples)
            held += to_pil(out.image)
            while len(held) >= per:
                yield drawing.items[ready], held[:per]
                held, ready = held[per:], ready + 1
            if progress is not None:
                progress(samples.stop, count)


def _neighbours(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """[first, last) of each run of consecutive numbers."""
    first = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[first], numbers[i - 1] + 1
            first = i


def _save(path: Path, picture: Image.Image, drawing: Drawing, item: Item) -> None:
    """A PNG says its prompt and spec itself; of a JPG the folder's record does."""
    if path.is_file():
        return
    if drawing.ending == ".png":
        facts = {"prompt": item.text, "spec": drawing.spec, "seed": drawing.seed, "weights": str(drawing.model.weights)}
        save_image(path, picture, facts)
        return
    with beside(path) as part:
        picture.convert("RGB").save(part, "JPEG", quality=QUALITY)


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text("utf-8") != text:
        with beside(path) as part:
            part.write_text(text, "utf-8")


def read_rewritten(path: Path | None) -> dict[str, str]:
    """original -> rewritten, of a JSON object. Raises VarlabError for anything else."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise VarlabError(f"{path} cannot be read ({error}). Give a JSON object, original -> rewritten.") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) and text.strip() for text in found.values()):
        raise VarlabError(f"{path} is no JSON object of texts, original -> rewritten.")
    return found
