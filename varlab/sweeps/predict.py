"""What a sweep will take before it is begun: shards, work by the ledger, time, memory and disk."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd

from varlab.accelerators import DENSE
from varlab.comparison.bench import methods_of
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.errors import VarlabError
from varlab.machine import usable
from varlab.markup import count
from varlab.models.base import NextScaleModel
from varlab.runs import Job
from varlab.runs.inputs import with_overrides
from varlab.runs.store import Store
from varlab.sweeps.file import Plan
from varlab.sweeps.shards import Shard, is_blind, shards_of
from varlab.sweeps.work import SHARDS
from varlab.timing.estimate import estimate, shallow
from varlab.weights.memory import refuse_what_cannot_fit
from varlab.weights.official import ModelEntry
from varlab.weights.options import LoadOptions
from varlab.weights.registry import find
from varlab.weights.zoo import assemble, load

ROW = 260  # bytes of a prompt's row, in its shard and in the table


def bytes_of(plan: Plan, shards: Sequence[Shard]) -> int:
    """What a sweep writes: dense images in fp32, and rows."""
    pixels: dict[str, int] = {}
    for name in plan.models:
        model = load(name, "empty", pixels=plan.pixels)
        height, width = model.latent_grid(model.schedule.final)
        pixels[name] = height * width * model.stride**2
    count = 0
    for shard in shards:
        held = pixels[shard.images.model] * 12 if shard.spec == DENSE else 0
        count += len(shard.images.texts) * (held + 2 * ROW)
    return count


def refuse_what_cannot_run(plan: Plan, workers: int = 1) -> None:
    """Raises VarlabError where this machine lacks the device, or the memory for so many workers."""
    usable(plan.device)
    for name in plan.models:
        entry = find(name)
        schedule = entry.schedule(plan.pixels, 1.0)
        refuse_what_cannot_fit(entry, schedule, plan.precision, plan.device, plan.shard * max(1, workers))


def unfit(plan: Plan) -> str:
    """What a worker of a cluster has against a plan, in words that survive the way to the client."""
    try:
        refuse_what_cannot_run(plan)
    except VarlabError as error:
        return str(error)
    return ""


def refuse_what_has_no_room(plan: Plan, shards: Sequence[Shard], store: Store) -> None:
    """Raises VarlabError where the disk cannot hold what is not there yet."""
    folder = store.folder
    if folder is not None:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        there = store.names(SHARDS)
        needed = bytes_of(plan, [shard for shard in shards if shard.name not in there])
        free = shutil.disk_usage(nearest).free
        if needed > free:
            raise VarlabError(f"The sweep writes {needed / 1e6:.1f} MB, and {nearest} has {free / 1e6:.1f} MB left.")


@dataclass(frozen=True)
class Forecast:
    """``table``: one row a model and method: shards, images, work over dense (of one image; of a method that is not
    blind on the model itself where its weights ship, else at most 1), seconds. ``bytes``: on disk."""

    table: pd.DataFrame
    bytes: int
    workers: int

    @property
    def seconds(self) -> float:
        return float(self.table.seconds.sum()) / max(1, self.workers)

    def line(self) -> str:
        alone = timedelta(seconds=round(float(self.table.seconds.sum())))
        shards, images = int(self.table.shards.sum()), int(self.table.images.sum())
        spent, workers = timedelta(seconds=round(self.seconds)), count(max(1, self.workers), "worker")
        return (
            f"{shards} shards, {images} images, {self.bytes / 1e6:.1f} MB on disk; about {spent} with {workers} "
            f"like this machine now ({alone} of one), less what methods share"
        )


def forecast(plan: Plan, workers: int = 0) -> Forecast:
    """What a plan takes here; draws an image a method on models that ship."""
    refuse_what_cannot_run(plan, workers)
    shards, rows = shards_of(plan), []
    for name in plan.models:
        own = [shard for shard in shards if shard.images.model == name]
        per_image = estimate(
            name, precision=plan.precision, pixels=plan.pixels, device=plan.device, batch=plan.shard, probes=False
        ).seconds / plan.shard  # fmt: skip
        works = works_of(plan, name)
        for spec, work in works.items():
            mine = [shard for shard in own if shard.spec == spec]
            images = sum(len(shard.images.texts) for shard in mine)
            rows.append((name, spec, len(mine), images, work, images * work * per_image))
    columns = ["model", "method", "shards", "images", "work", "seconds"]
    return Forecast(pd.DataFrame(rows, columns=columns), bytes_of(plan, shards), workers)


def works_of(plan: Plan, name: str) -> dict[str, float]:
    """Work of each spec over the dense run's, of one image."""
    entry = find(name)
    model = (
        load(name, precision=plan.precision, device=plan.device)
        if entry.folder and plan.init == "checkpoint"
        else _small(entry, plan)
    )
    text = ["0" if entry.family == "var" else plan.chosen(plan.prompts[0], name).texts[0]]
    job = Job(model, tuple(text), with_overrides(model.settings, **plan.settings[0]))
    found: dict[str, float] = {}
    for spec in dict.fromkeys([DENSE, *plan.specs]):
        if not entry.folder and not is_blind(spec):
            found[spec] = found[DENSE]  # at most: what it keeps depends on pictures of real weights
            continue
        run = Run(model, job.settings, SeededNoise(0))
        found[spec] = run.generate(job.text(range(1)), [0], methods_of(spec)).ledger.transformer_flops
    return {spec: flops / found[DENSE] for spec, flops in found.items()}


def _small(entry: ModelEntry, plan: Plan) -> NextScaleModel:
    """One block of random weights on the whole schedule: shares of work are those of the whole."""
    schedule = entry.schedule(plan.pixels, 1.0)
    return assemble(shallow(entry, 1, schedule), LoadOptions("random", plan.device, plan.precision))
