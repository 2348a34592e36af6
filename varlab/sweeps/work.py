"""What a worker does: load a model once, make the shards of a task, answer in plain words."""

import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.comparison.bench import FIDELITY, measured, methods_of
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import shared_runs
from varlab.machine import device_name
from varlab.models.base import NextScaleModel
from varlab.runs import Job, to_pil
from varlab.runs.dense import Batch, DenseImages
from varlab.runs.inputs import with_overrides
from varlab.runs.store import Store, StoreLost, sealed, unsealed
from varlab.scenes import CATEGORIES, score_images
from varlab.sweeps.shards import Images, Shard, Task, shares, weights_here
from varlab.weights.zoo import load

RECORD = "sweep.json"  # of a store that a sweep was begun in
SHARDS = "shards"


@dataclass(frozen=True)
class Outcome:
    """``error``: what went wrong, in one line; ``stops``: and no other shard could be written either."""

    error: str = ""
    trace: str = ""
    stops: bool = False


Work = Callable[..., Outcome]


def work(task: Task, place: str, dense: str) -> Outcome:
    """Make the shards of a task that are not there. Never raises: an error may not survive the way to the client."""
    try:
        store = Store.at(place)
        refuse_lost(store)
        _make(task, store.child(SHARDS), DenseImages(Store.at(dense)))
    except StoreLost as error:
        return Outcome(str(error), stops=True)
    except Exception as error:  # whatever a method, a model or a file may raise
        return Outcome(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", traceback.format_exc()
        )
    return Outcome()


def refuse_lost(store: Store) -> None:
    """Raises StoreLost where the sweep's record is gone."""
    if not store.exists(RECORD):
        raise StoreLost(f"{store.place} is gone: it holds no {RECORD} any more. The same command begins anew.")


def _make(task: Task, shards: Store, store: DenseImages) -> None:
    images = task.images
    before = torch.get_num_threads()
    torch.set_num_threads(images.threads)
    try:
        model = loaded(images)
        settings = with_overrides(model.settings, **dict(images.settings))
        batch = Batch(model, settings, images.seed, images.first, images.texts)
        dense = store.read(batch)
        missing = [shard for shard in task.shards if unsealed(shards.read(shard.name)) is None]
        for shard, image, flops in _runs(model, task, missing, dense is None):
            if shard.spec == DENSE and dense is None:
                dense = image
                store.write(batch, dense)
            if shard in missing:
                assert dense is not None
                shards.write(shard.name, sealed(rows(model, shard, image, dense, flops).to_csv(index=False)))
    finally:
        torch.set_num_threads(before)


@lru_cache(1)
def _loaded(model: str, loading: tuple[tuple[str, Any], ...], weights: str | None, process: int) -> NextScaleModel:
    return load(model, **dict(loading))


def loaded(images: Images) -> NextScaleModel:
    """The model, which a worker keeps until another is asked for."""
    here = weights_here(images.model, dict(images.loading).get("init"))
    if images.weights not in (None, here):
        raise ValueError(
            f"the weights of {images.model} are {here} here and {images.weights} where the sweep was begun"
        )
    return _loaded(images.model, images.loading, here, os.getpid())


def _runs(model: NextScaleModel, task: Task, missing: list[Shard], draw: bool) -> Iterator[tuple[Shard, Tensor, int]]:
    """(shard, images in [0, 1] on the CPU, operations an image): the dense run first where it is needed."""
    wanted = [shard for shard in task.shards if shard in missing]
    if task.draws and draw and not any(shard.spec == DENSE for shard in wanted):
        wanted = [shard for shard in task.shards if shard.spec == DENSE or shard in missing]
    images = task.images
    if not task.draws and draw and wanted:
        wanted = [replace(task.shards[0], spec=DENSE), *wanted]  # drawn once more: the store has lost it
    settings = with_overrides(model.settings, **dict(images.settings))
    job = Job(model, images.texts, settings, images.seed)
    samples = list(range(images.first, images.first + len(images.texts)))
    text = job.text(range(len(samples)))
    by_spec = {shard.spec: shard for shard in sorted(wanted, key=lambda shard: shard.spec != DENSE)}

    def run() -> Run:
        return Run(model, settings, SeededNoise(images.seed))

    if len(by_spec) > 1 and all(shares(spec) for spec in by_spec):
        for spec, out in shared_runs(run(), text, samples, {spec: methods_of(spec) for spec in by_spec}):
            yield by_spec[spec], out.image.clamp(0, 1).cpu(), _flops(out.ledger, samples)
        return
    for spec, shard in by_spec.items():
        out = run().generate(text, samples, methods_of(spec))
        yield shard, out.image.clamp(0, 1).cpu(), _flops(out.ledger, samples)


def _flops(ledger: Ledger, samples: list[int]) -> int:
    return round(ledger.transformer_flops / len(samples))


def rows(model: NextScaleModel, shard: Shard, image: Tensor, dense: Tensor, flops: int) -> pd.DataFrame:
    """One row a prompt: operations, fidelity to the dense image, whether the scene is right."""
    images = shard.images
    table = pd.DataFrame({"prompt": range(images.first, images.first + len(images.texts)), "flops": flops})
    table = table.assign(**measured(image, dense, FIDELITY))
    scored = set(shard.categories) <= set(CATEGORIES)
    pictures = [np.asarray(picture) for picture in to_pil(image)]
    asked, version = (list(images.texts), list(shard.categories)), model.scene_version
    right = score_images(pictures, *asked, version=version)["correct"] if scored else np.nan
    table["correct"] = np.asarray(right, dtype=float)
    return table.assign(weights=str(model.weights), device=device_name(model.device))
