"""The shards of a plan: one file each, named by all that decides its rows, and the tasks that make them together."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from varlab.accelerators import DENSE
from varlab.comparison.bench import methods_of
from varlab.engine.sharing import may_share
from varlab.sweeps.file import Plan
from varlab.weights.content import digest_of_files
from varlab.weights.registry import find
from varlab.weights.zoo import files_of, shipped_weights

TOGETHER = 16  # specs of a task: what they share is computed once, and a worker that is lost loses no more
VERSION = 1  # raised when a row changes its meaning: shards of before are made again


@dataclass(frozen=True)
class Images:
    """Which images: a model as it is loaded, settings, a seed, and prompts ``first`` to ``first + len(texts)``."""

    model: str
    weights: str | None  # as ``weights_here``, where the sweep was begun
    loading: tuple[tuple[str, Any], ...]
    threads: int
    settings: tuple[tuple[str, Any], ...]
    seed: int
    first: int
    texts: tuple[str, ...]

    @property
    def key(self) -> str:
        return _key([VERSION, asdict(self)])


@dataclass(frozen=True)
class Shard:
    """One spec on some images. ``name``: its file; ``prompt_set``, ``categories``: for the table."""

    images: Images
    spec: str
    prompt_set: str
    categories: tuple[str, ...]
    read: tuple[str, ...] = ()  # digests of the files that its methods read

    @property
    def name(self) -> str:
        return f"{_key([self.images.key, self.spec, *self.read])}.csv"

    @property
    def label(self) -> str:
        images = self.images
        last = images.first + len(images.texts) - 1
        settings = " ".join(f"{name}={value}" for name, value in images.settings)
        parts = (images.model, self.spec, settings, f"seed {images.seed}", f"prompts {images.first} to {last}")
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Task:
    """Shards of the same images that a worker makes together; ``draws``: the dense images are among them."""

    shards: tuple[Shard, ...]
    draws: bool

    @property
    def images(self) -> Images:
        return self.shards[0].images


def _key(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def is_blind(spec: str) -> bool:
    """Whether what a spec leaves out depends on nothing but the stage."""
    return all(method.blind for method in methods_of(spec))


def shares(spec: str) -> bool:
    """Whether a spec can share the stages before it acts with others."""
    return may_share(methods_of(spec))


def weights_here(model: str, init: str | None) -> str | None:
    """What tells the weights that are loaded here by default: their label, or a digest of their files. None without."""
    if init not in (None, "checkpoint"):
        return init
    if label := shipped_weights(find(model)):
        return str(label)
    digest = digest_of_files(files_of(find(model)))
    return f"files {digest}" if digest else None


def _read_by(spec: str, model: str) -> tuple[str, ...]:
    return tuple(digest for method in methods_of(spec) if (digest := digest_of_files(method.files(model))))


def images_of(plan: Plan) -> Iterator[tuple[Images, str, tuple[str, ...]]]:
    """All images with their prompt set and categories, model by model, so that a worker keeps its model."""
    loading = tuple((name, getattr(plan, name)) for name in ("init", "precision", "device", "pixels"))
    for model in plan.models:
        weights = weights_here(model, plan.init)
        for prompts in plan.prompts:
            chosen = plan.chosen(prompts, model)
            for settings in plan.settings:
                pairs = tuple(sorted((name, tuple(v) if isinstance(v, list) else v) for name, v in settings.items()))
                for seed in plan.seeds:
                    for first in range(0, len(chosen), plan.shard):
                        part = chosen[first : first + plan.shard]
                        number = prompts["first"] + first  # of the image, which decides its noise
                        made = Images(model, weights, loading, plan.threads, pairs, seed, number, tuple(part.texts))
                        yield made, chosen.name, tuple(part.categories)


def tasks_of(plan: Plan) -> Iterator[tuple[Task, list[Task]]]:
    """For each part of the images the task that draws the dense ones, with all blind methods, and those that need its
    images: the methods that look at pictures, by up to ``TOGETHER`` where they share stages, else one by one."""
    specs = list(dict.fromkeys([DENSE, *plan.specs]))
    blind = [spec for spec in specs if is_blind(spec)]
    rest = [spec for spec in specs if spec not in blind]
    sharing = [spec for spec in rest if shares(spec)]
    groups = [sharing[first : first + TOGETHER] for first in range(0, len(sharing), TOGETHER)]
    groups += [[spec] for spec in rest if spec not in sharing]
    read = {(model, spec): _read_by(spec, model) for model in plan.models for spec in specs}
    for images, prompt_set, categories in images_of(plan):
        shards = {spec: Shard(images, spec, prompt_set, categories, read[images.model, spec]) for spec in specs}
        yield (
            Task(tuple(shards[spec] for spec in blind), True),
            [Task(tuple(shards[spec] for spec in group), False) for group in groups],
        )


def shards_of(plan: Plan) -> list[Shard]:
    """In the order of the table: on the same images those that draw, then the others as the plan lists them."""
    return [shard for first, rest in tasks_of(plan) for task in (first, *rest) for shard in task.shards]
