"""The images that a benchmark asks for, drawn in its official layout; a drawing that was cut goes on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.comparison.bench import methods_of
from varlab.context import fixed_context
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import may_share, shared_runs
from varlab.errors import VarlabError
from varlab.evaluation.contract import IMAGES, RECORD, SHOWN, Benchmark, Item
from varlab.json_files import read_json
from varlab.locks import one_writer
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.outputs import is_whole, key_of, plain, save_image, save_json
from varlab.runs import Job, Progress, default_batch, runs_folder, to_pil
from varlab.runs.dense import Batch, DenseImages
from varlab.runs.origins import contents, made_with
from varlab.weights.memory import refuse_batch
from varlab.writing import beside, check_writable, write_text

QUALITY = 95  # of JPG: the default of OpenCV, by which the official scripts of Infinity and its kin write
# Of a record: what may differ when a drawing goes on.
PASSING = ("date", "device", "threads", "git", "versions", "pictures")


@dataclass(frozen=True)
class Drawing:
    """What is drawn and how it is stored.

    rewritten : what is drawn in place of a prompt, by the prompt; the layout and the record keep the original.
    kept : where dense images of the same batches may lie already, and are kept.
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
    kept: DenseImages | None = None

    def record(self) -> dict[str, Any]:
        """What the folder says of itself."""
        replaced = {item.id: self.rewritten[item.text] for item in self.items if item.text in self.rewritten}
        made = made_with(self.model, seed=self.seed) | {"settings": asdict(self.settings)}
        made["contents"] = contents(self.model, methods_of(self.spec))
        return plain({
            "benchmark": self.benchmark.name, "spec": self.spec, **made, "images_per_prompt": self.per_prompt,
            "ending": self.ending, "quality": QUALITY if self.ending == ".jpg" else None, "rewritten": replaced,
            "n": len(self.items) * self.per_prompt, "pictures": sum(len(self.paths(item)) for item in self.items),
            "items": [asdict(item) for item in self.items],
        })  # fmt: skip

    def job(self) -> Job:
        """Sample i is image i % per_prompt of item i // per_prompt, and depends on (seed, i) alone."""
        texts = [self.rewritten.get(item.text, item.text) for item in self.items for _ in range(self.per_prompt)]
        methods = tuple(part for part in self.spec.split("+") if part != DENSE)
        return Job(self.model, tuple(texts), self.settings, self.seed, accelerators=methods)

    @property
    def shares(self) -> bool:
        """Whether its methods do nothing before their plans leave the dense run, so that other runs may share that."""
        return may_share(methods_of(self.spec))

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
    held = {"contents": {}} | read_json(folder / RECORD, "Give another folder.")
    asked = drawing.record()
    if differing := [name for name in asked if name not in PASSING and held.get(name) != asked[name]]:
        raise VarlabError(
            f"{folder} holds other images (different: {', '.join(differing[:SHOWN])}). Give another folder."
        )


def generate(drawings: Mapping[Path, Drawing], progress: Progress | None = None, wait: bool = True) -> dict[Path, int]:
    """Draw what is not there yet or cannot be read, folder by folder; returns how many pictures were made in each.

    All drawings are checked before the first one begins, and are of the same prompts. Specs that can share are
    drawn together: the stages that they have in common with the dense run, and with each other, are computed once.
    A picture is written whole or not at all. Memory: ``batch`` images at a time, and the samples of one prompt.
    """
    for folder, drawing in drawings.items():
        check(drawing, folder)
    together = {folder: drawing for folder, drawing in drawings.items() if drawing.shares}
    alone = [{folder: drawing} for folder, drawing in drawings.items() if not drawing.shares]
    made = dict.fromkeys(drawings, 0)
    for group in [together, *alone] if together else alone:
        with ExitStack() as locks:
            for folder in group:
                locks.enter_context(one_writer(folder, wait=wait))
            for folder, count in _generate(group, progress):
                made[folder] += count
    return made


def kept_at(drawing: Drawing) -> Path:
    """A folder under ``runs/`` that is named after all that decides the pictures."""
    key = key_of({name: value for name, value in drawing.record().items() if name not in PASSING})
    size = f"{len(drawing.items)}x{drawing.per_prompt}"
    return runs_folder() / f"{drawing.benchmark.name}-{drawing.model.name}-{size}-seed{drawing.seed}-{key}"


def drawn_at(drawing: Drawing, folder: Path, progress: Progress | None = None) -> Iterator[np.ndarray]:
    """The pictures [H, W, 3] of a drawing in the order of its samples, drawn where they are not there and read one by
    one."""
    generate({folder: drawing}, progress)

    def read(name: str) -> np.ndarray:
        with Image.open(folder / IMAGES / name) as picture:
            return np.asarray(picture.convert("RGB"))

    return (read(name) for item in drawing.items for name in drawing.paths(item))


def _prepare(drawing: Drawing, folder: Path) -> set[int]:
    """Write record and texts; returns the items whose pictures are not all there and whole."""
    if not (folder / RECORD).is_file():
        save_json(folder / RECORD, drawing.record())
    images = folder / IMAGES
    for item in drawing.items:
        for path, text in drawing.benchmark.texts(item).items():
            if not (images / path).is_file() or (images / path).read_text("utf-8") != text:
                write_text(images / path, text)
    return {
        i for i, item in enumerate(drawing.items) if not all(is_whole(images / path) for path in drawing.paths(item))
    }


def _generate(group: Mapping[Path, Drawing], progress: Progress | None) -> Iterator[tuple[Path, int]]:
    """The missing pictures of drawings that are made together: the folder of each, and 1 where it was not there."""
    wanting = sorted(set[int]().union(*(_prepare(drawing, folder) for folder, drawing in group.items())))
    records = {folder: read_json(folder / RECORD, "Give another folder.") for folder in group}
    for folder, item, samples in _drawn(group, wanting, progress):
        drawing = group[folder]
        for path, picture in zip(drawing.paths(item), drawing.benchmark.stored(samples), strict=True):
            yield folder, int(_save(folder / IMAGES / path, picture, drawing, _about(records[folder], item)))


def _drawn(
    group: Mapping[Path, Drawing], wanting: Sequence[int], progress: Progress | None
) -> Iterator[tuple[Path, Item, list[Image.Image]]]:
    """The samples of each item for each folder; runs of neighbouring items share batches."""
    drawing = next(iter(group.values()))
    per, count = drawing.per_prompt, len(drawing.items) * drawing.per_prompt
    batch = drawing.batch or default_batch(drawing.model)
    if progress is not None:
        progress(count - len(wanting) * per, count)
    for first, last in _neighbours(wanting):
        held: dict[Path, list[Image.Image]] = {folder: [] for folder in group}
        ready = dict.fromkeys(group, first)
        for start in range(first * per, last * per, batch):
            samples = range(start, min(start + batch, last * per))
            for folder, images in _images(group, samples, progress):
                held[folder] += images
                while len(held[folder]) >= per:
                    yield folder, drawing.items[ready[folder]], held[folder][:per]
                    held[folder], ready[folder] = held[folder][per:], ready[folder] + 1
            if progress is not None:
                progress(samples.stop, count)


def _images(
    group: Mapping[Path, Drawing], samples: range, progress: Progress | None
) -> Iterator[tuple[Path, list[Image.Image]]]:
    """A batch for each folder: read where the dense images are kept, else on its own, or as branches of one run."""
    drawing = next(iter(group.values()))
    job, kept = drawing.job(), drawing.kept
    batch = Batch(job.model, job.settings, job.seed, samples.start, [str(job.prompts[i]) for i in samples])
    dense = {place for place, own in group.items() if own.spec == DENSE and kept is not None}
    if kept is not None and dense and (held := kept.read(batch)) is not None:
        yield from ((place, to_pil(held)) for place in dense)
        group, dense = {place: own for place, own in group.items() if place not in dense}, set()
    for place, image in _run(group, samples, progress):
        if kept is not None and place in dense:
            kept.write(batch, image.clamp(0, 1))
        yield place, to_pil(image)


def _run(group: Mapping[Path, Drawing], samples: range, progress: Progress | None) -> Iterator[tuple[Path, Tensor]]:
    """A batch of each folder [B, 3, H, W]."""
    if not group:
        return
    (folder, drawing), *others = group.items()
    job = drawing.job()
    if not others:
        with fixed_context():
            out, _ = (job if progress is None else replace(job, progress=progress)).run(samples)
        yield folder, out.image
        return
    run = Run(drawing.model, drawing.settings, SeededNoise(drawing.seed))
    methods = {str(place): methods_of(own.spec) for place, own in group.items()}
    for name, generation in shared_runs(run, job.text(samples), list(samples), methods):
        yield Path(name), generation.image


def _neighbours(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """[first, last) of each run of consecutive numbers."""
    first = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[first], numbers[i - 1] + 1
            first = i


def _about(record: Mapping[str, Any], item: Item) -> dict[str, Any]:
    """How a picture of a prompt was made, from the folder's record; ``drawn`` is what stood for the prompt."""
    rewritten = record["rewritten"].get(item.id)
    own = {name: value for name, value in record.items() if name not in ("items", "n", "pictures", "rewritten")}
    return {"prompt": item.text} | ({"drawn": rewritten} if rewritten else {}) | own


def _save(path: Path, picture: Image.Image, drawing: Drawing, facts: Mapping[str, Any]) -> bool:
    """Whether no whole picture was there. A PNG says how it was made itself; of a JPG the folder's record does."""
    if is_whole(path):
        return False
    if drawing.ending == ".png":
        save_image(path, picture, facts, overwrite=True)
        return True
    with beside(path) as part:
        picture.convert("RGB").save(part, "JPEG", quality=QUALITY)
    return True


def read_rewritten(path: Path | None) -> dict[str, str]:
    """original -> rewritten, of a JSON object. Raises VarlabError for anything else."""
    if path is None:
        return {}
    found: dict[str, str] = read_json(path, fix := "Give a JSON object of texts, original -> rewritten.")
    if not all(isinstance(text, str) and text.strip() for text in found.values()):
        raise VarlabError(f"{path} holds what is no text. {fix}")
    return found
