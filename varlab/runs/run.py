"""Runs: prompts in, images and a log out, with everything needed to repeat them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr
from PIL import Image

from varlab.context import fixed_context
from varlab.engine.hooks import Accelerator
from varlab.engine.ledger import Ledger
from varlab.locks import one_writer
from varlab.markup import Shown, count, summary
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.outputs import image_facts, picture_html, save_image
from varlab.probes import LoggingProbe
from varlab.probes import log as logs
from varlab.probes.log import Log
from varlab.resources import checkout
from varlab.runs.folders import (
    find_run,
    forget,
    has_begun,
    is_finished,
    open_log,
    parts_of,
    sweep,
    write_log,
    write_record,
)
from varlab.runs.inputs import Prompts, as_hooks, at_least, keywords, read_prompts, with_overrides
from varlab.runs.job import Job, Progress, default_batch, dense_flops, to_pil
from varlab.runs.manifest import image_path, lost_images, note_images
from varlab.runs.parts import joined_lazily
from varlab.runs.provenance import provenance, record_of, stage_seconds
from varlab.runs.states import progress_of
from varlab.runs.watched import watched
from varlab.writing import beside, check_writable

Probes = Sequence[str | LoggingProbe] | str | LoggingProbe
Accelerators = Sequence[str | Accelerator] | str | Accelerator
SHOWN = 8  # pictures of a run in a notebook
TIMED = 1e13  # operations of an image above which no passes are spent on the times of plain stages
MADE = "made"  # of a log's encoding: what ``log_run`` had to do; nothing for a run that was there


@dataclass
class RunResult(Shown):
    """``images`` in prompt order, the summed work ledger, and the ``log``: a group for each probe, and one for each
    method that tells what it decided (``log["sparsevar"].share``, ``log["sparsevar/stage-05"].kept``)."""

    images: list[Image.Image]
    log: xr.DataTree
    ledger: Ledger

    def _repr_html_(self) -> str:
        """The summary, and the first pictures with their prompts."""
        pairs = zip(self.images[:SHOWN], self.log.attrs.get("prompts", ()), strict=False)
        return super()._repr_html_() + "".join(picture_html(image, text) for image, text in pairs)

    def __repr__(self) -> str:
        facts = self.log.attrs
        size = " x ".join(map(str, self.images[0].size)) if self.images else "nothing"
        return summary(
            f"{count(len(self.images), 'image')} of {size} from {facts.get('model')}, seed {facts.get('seed')}",
            weights=facts.get("weights"),
            methods=", ".join(facts.get("accelerators", ())) or "none",
            log=", ".join(map(str, self.log.children)) or "nothing",
            work=self.ledger.work,
        )


def runs_folder() -> Path:
    """Where runs without a folder go: ``runs/``, of the repository when a notebook is open in its own folder."""
    repository = checkout()
    return repository / "runs" if repository and Path.cwd() == repository / "notebooks" else Path("runs")


@fixed_context()
def sample(
    model: NextScaleModel,
    prompts: Prompts,
    *,
    seed: int = 0,
    probes: Probes = (),
    accelerators: Accelerators = (),
    negative: str | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> RunResult:
    """Images of prompts, and what the probes saw.

    ``prompts``: texts, or text features as a TextBatch, a HartText or a list of arrays [T, width], of which HART takes
    all rows as real tokens. Image i depends on (seed, i) alone, not on the batch. ``settings`` override the model's
    own: cfg, tau (a number or one a stage), top_k, top_p, cfg_layers. ``negative`` is a text that guidance leads away
    from; an empty one is none. A larger batch costs memory in proportion; None is ``default_batch``.
    Raises VarlabError, before any work, for names and numbers that do not fit, prompts that the model cannot read,
    and a model without weights.
    """
    batch = default_batch(model) if batch is None else batch
    at_least(1, batch=batch)
    chosen = with_overrides(model.settings, keywords(sample), **settings)
    progress = progress or watched()
    job = _job(model, prompts, chosen, seed, probes, accelerators, negative, progress)
    record = provenance(job)  # before objects among the hooks have seen a run
    job.try_out()
    images: list[Image.Image] = []
    parts: list[Log] = []
    ledger = Ledger.of(len(model.schedule))
    for samples in job.batches(batch):
        out, log = job.run(samples)
        images, ledger = images + to_pil(out.image), ledger + out.ledger
        parts.append(log)
        if progress is not None:
            progress(len(images), len(job.prompts))
    return RunResult(images, logs.tree(logs.join(parts), record), ledger)


def _job(
    model: NextScaleModel,
    prompts: Prompts,
    settings: Settings,
    seed: int,
    probes: Probes,
    accelerators: Accelerators,
    negative: str | None,
    progress: Progress | None,
) -> Job:
    """A job from what callers may write: one hook for a list of them, an empty negative text for none."""
    negative = negative if negative and negative.strip() else None
    hooks = as_hooks(probes), as_hooks(accelerators)
    return Job(model, read_prompts(prompts), settings, seed, *hooks, negative, progress)


@fixed_context()
def log_run(
    model: NextScaleModel,
    prompts: Prompts,
    folder: Path | None = None,
    *,
    probes: Probes,
    accelerators: Accelerators = (),
    negative: str | None = None,
    prompt_set: str = "custom",
    seed: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
    wait: bool = True,
    **settings: Any,
) -> xr.DataTree:
    """Sample into a run folder: ``run.json``, ``images/`` and, when done, ``log.zarr`` with ``complete.json``.

    A folder with the same run is continued after its last finished batch, and images that are lost or cut short are
    drawn again; one with another run is refused.
    Without a folder the run goes to one under ``runs/`` that is named after it. A folder has one writer: while another
    process samples into it, this one waits and then opens what that one made; without ``wait`` it is refused. The
    rest as in ``sample``.
    Raises VarlabError as ``sample`` does, and for a folder that holds something else, is damaged or not writable.
    """
    batch = default_batch(model) if batch is None else batch
    at_least(1, batch=batch)
    chosen = with_overrides(model.settings, keywords(log_run), **settings)
    progress = progress or watched()
    job = _job(model, prompts, chosen, seed, probes, accelerators, negative, progress)
    record = record_of(job, prompt_set, batch)
    if folder is None:
        n = len(job.prompts)
        folder = runs_folder() / f"{model.name}-{Path(prompt_set).stem}-{n}-seed{seed}-{record['key'][:8]}"
    find_run(folder, record)  # another run or other files there are refused before anything is made
    finished, made = is_finished(folder), ""
    lost = lost_images(folder, range(len(job.prompts))) if finished else []
    if not finished or lost:
        job.batches(batch)  # refuses one that memory cannot hold
        job.try_out()
        check_writable(folder)
        with one_writer(folder, wait=wait, done=lambda: progress_of(folder)):
            made = _finish(job, folder, record, progress)
    tree = open_log(folder)
    tree.encoding[MADE] = made
    return tree


def _finish(job: Job, folder: Path, record: dict[str, Any], progress: Progress | None) -> str:
    """Make or continue the run, as the folder's only writer; what was done. One that fails before its first batch
    leaves nothing."""
    sweep(folder)
    record = _claim(folder, job, record)
    if is_finished(folder):  # another process was faster, or images are lost
        return f"{count(again, 'lost image')} drawn again" if (again := _draw_again(job, folder, record)) else ""
    try:
        _fill(job, folder, record, progress)
    except BaseException:
        if not has_begun(folder):
            forget(folder)
        raise
    return "written"


def _fill(job: Job, folder: Path, record: dict[str, Any], progress: Progress | None) -> None:
    """Run the batches that are not there yet, then turn all parts into the zarr store."""
    for name in ("parts", "images"):
        (folder / name).mkdir(exist_ok=True)
    paths, former = [], parts_of(folder)
    for samples in job.batches(record["batch"]):
        paths.append(folder / "parts" / f"{samples.start:06d}.npz")
        if not paths[-1].exists() or lost_images(folder, samples):
            _fill_part(job, record, folder, paths[-1], samples)
            if former:  # those of another version may not join: said after one batch, not after all
                joined_lazily([*former, paths[-1]])
                former = []
        if progress is not None:
            progress(samples.stop, len(job.prompts))
    write_log(folder, logs.tree(joined_lazily(paths), record))
    shutil.rmtree(folder / "parts")


def _draw_again(job: Job, folder: Path, record: dict[str, Any]) -> int:
    """Draw the images of a finished run that are lost or cannot be read; how many."""
    if not (lost := set(lost_images(folder, range(len(job.prompts))))):
        return 0
    (folder / "images").mkdir(exist_ok=True)
    for samples in job.batches(record["batch"]):
        if lost.intersection(samples):
            out, _ = replace(job, probes=()).run(samples)
            for i, picture in zip(samples, to_pil(out.image), strict=True):
                if i in lost:
                    save_image(image_path(folder, i), picture, image_facts(record, i), overwrite=True)
    note_images(folder, lost)
    return len(lost)


def _fill_part(job: Job, record: dict[str, Any], folder: Path, part: Path, samples: range) -> None:
    """One batch: its images, then its part of the log; no image stays where the part could not be written."""
    out, log = job.run(samples)
    images = [image_path(folder, i) for i in samples]
    try:
        for i, path, picture in zip(samples, images, to_pil(out.image), strict=True):
            save_image(path, picture, image_facts(record, i), overwrite=True)
        with beside(part) as draft:
            logs.save(draft, log)
    except BaseException:
        for path in images:
            path.unlink(missing_ok=True)
        raise


def _claim(folder: Path, job: Job, record: dict[str, Any]) -> dict[str, Any]:
    """The record of this run: found in the folder, or written there with the stage times of a plain pass."""
    found = find_run(folder, record)
    if found is not None:
        return found
    # With a method the passes differ, image by image; and of a large model each would take minutes.
    plain = not job.accelerators and dense_flops(job.model) < TIMED
    record["stage_seconds"] = stage_seconds(job, min(record["batch"], len(job.prompts))) if plain else None
    write_record(folder, record)
    return record
