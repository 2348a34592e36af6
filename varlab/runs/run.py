"""Runs: prompts in, images and a log out, with everything needed to repeat them."""

import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from varlab.accelerators import build as build_accelerators
from varlab.context import fixed_context
from varlab.engine.hooks import Accelerator
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.machine import device_name
from varlab.markup import count, summary
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch
from varlab.outputs import image_facts, save_image
from varlab.probes import LoggingProbe, build
from varlab.probes import log as logs
from varlab.probes.log import LOG_VERSION, Log
from varlab.resources import checkout
from varlab.runs.clock import timed_run
from varlab.runs.folders import (
    find_run,
    forget,
    has_begun,
    is_finished,
    keep,
    load_part,
    open_log,
    run_key,
    sweep,
    write_record,
)
from varlab.runs.inputs import (
    Features,
    Prompts,
    as_hooks,
    at_least,
    check_negative,
    check_writable,
    keywords,
    prompt_label,
    read_prompts,
    with_overrides,
)
from varlab.runs.manifest import image_path, lost_images, note_images
from varlab.runs.origins import architecture, git_state, plugin_options, text_encoder
from varlab.runs.states import progress_of
from varlab.specs import spec_of
from varlab.weights.memory import refuse_batch
from varlab.writing import beside

Progress = Callable[[float, int], None]  # images done, stages of the present batch by their work; images in all
Probes = Sequence[str | LoggingProbe] | str | LoggingProbe
Accelerators = Sequence[str | Accelerator] | str | Accelerator
TIMED = 1e13  # operations of an image above which no passes are spent on the times of plain stages
MADE = "made"  # of a log's encoding: what ``log_run`` had to do; nothing for a run that was there
PACKAGES = ("varlab", "torch", "numpy", "xarray", "zarr", "pywavelets")


@dataclass
class RunResult:
    """``images`` in prompt order, the summed work ledger, and the ``log``: a group for each probe, and one for each
    method that tells what it decided (``log["sparsevar"].share``, ``log["sparsevar/stage-05"].kept``)."""

    images: list[Image.Image]
    log: xr.DataTree
    ledger: Ledger

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


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [0, 1] -> pictures; truncated to 8 bits, as the official code does."""
    pixels = (image.clamp(0, 1) * 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def runs_folder() -> Path:
    """Where runs without a folder go: ``runs/``, of the repository when a notebook is open in its own folder."""
    repository = checkout()
    return repository / "runs" if repository and Path.cwd() == repository / "notebooks" else Path("runs")


def default_batch(model: NextScaleModel, most: int = 16, held: int = 2**30) -> int:
    """Images at a time: as many as keep both branches' keys and values within ``held`` bytes, from 1 to ``most``."""
    element = 2 if model.precision == "bf16" else 4
    each = 2 * 2 * model.stored_keys * model.width * model.depth * element
    return max(1, min(most, held // each))


@dataclass(frozen=True)
class Job:
    """One run: what is sampled and what listens."""

    model: NextScaleModel
    prompts: tuple[str | Tensor | HartText, ...]
    settings: Settings
    seed: int = 0
    probes: tuple[str | LoggingProbe, ...] = ()
    accelerators: tuple[str | Accelerator, ...] = ()
    negative: str | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Names, numbers and all texts are checked before any work."""
        if self.model.device.type == "meta":
            raise VarlabError(f"{self.model.name} was loaded empty, as shapes only. To sample, load it with weights.")
        at_least(0, seed=self.seed)
        self.settings.check(len(self.model.schedule), self.model.depth)
        build(self.probes)
        build_accelerators(self.accelerators)
        self.model.check_text(self.text(range(len(self.prompts))))
        check_negative(self.model.family, self.negative)
        if self.negative is not None:
            self.model.check_text([self.negative])

    def text(self, samples: Sequence[int]) -> list[str] | Features:
        """The prompts of some images as the model takes them."""
        chosen = [self.prompts[i] for i in samples]
        if whole := [item for item in chosen if isinstance(item, HartText)]:
            return HartText.join(whole)
        features = [item for item in chosen if isinstance(item, Tensor)]
        if features:
            return TextBatch(torch.cat(features), tuple(len(item) for item in features))
        return [str(item) for item in chosen]

    def try_out(self) -> None:
        """Start every method once, so that one that this model cannot run is refused before the first image."""
        run = Run(self.model, self.settings, SeededNoise(self.seed))
        for method in build_accelerators(self.accelerators):
            method.start(run.context)

    def batches(self, batch: int) -> list[range]:
        count = len(self.prompts)
        refuse_batch(self.model, min(batch, count))
        return [range(first, min(first + batch, count)) for first in range(0, count, batch)]

    def run(self, samples: range) -> tuple[Generation, Log]:
        """Images of these prompts with ledger and reports, and what probes and methods log."""
        probes = build(self.probes)
        shares, count = work_shares(self.model), len(self.prompts)

        def tell(stage: Stage) -> None:
            if self.progress is not None:
                self.progress(samples.start + len(samples) * shares[stage.index], count)

        run = Run(self.model, self.settings, SeededNoise(self.seed), probes, on_progress=tell)
        negative = None if self.negative is None else [self.negative] * len(samples)
        out = run.generate(self.text(samples), list(samples), build_accelerators(self.accelerators), negative)
        log: Log = {}
        for probe in probes:
            log |= probe.log()
        return out, log | logs.of_methods(out.reports, samples)


def dense_flops(model: NextScaleModel) -> float:
    """Of one image with guidance, about: products and attention of all blocks."""
    schedule, width = model.schedule, model.width
    pairs = sum(n * end for n, end in zip(schedule.lengths, schedule.ends, strict=True))
    return 2 * model.depth * (28 * width**2 * schedule.tokens + 4 * width * pairs)


def work_shares(model: NextScaleModel) -> list[float]:
    """How much of the transformer's work is done after each stage, of a dense run."""
    schedule = model.schedule
    work = np.array([n * (7 * model.width + end) for n, end in zip(schedule.lengths, schedule.ends, strict=True)])
    return (work.cumsum() / work.sum()).tolist()


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

    A folder with the same run is continued after its last finished batch, and images that a finished one has lost are
    drawn again; one with another run is refused.
    Without a folder the run goes to one under ``runs/`` that is named after it. A folder has one writer: while another
    process samples into it, this one waits and then opens what that one made; without ``wait`` it is refused. The
    rest as in ``sample``.
    Raises VarlabError as ``sample`` does, and for a folder that holds something else, is damaged or not writable.
    """
    batch = default_batch(model) if batch is None else batch
    at_least(1, batch=batch)
    chosen = with_overrides(model.settings, keywords(log_run), **settings)
    job = _job(model, prompts, chosen, seed, probes, accelerators, negative, progress)
    record = _record(job, prompt_set, batch)
    if folder is None:
        n = len(job.prompts)
        folder = runs_folder() / f"{model.name}-{Path(prompt_set).stem}-{n}-seed{seed}-{record['key'][:8]}"
    find_run(folder, record)  # another run or other files there are refused before anything is made
    finished = is_finished(folder)
    lost = lost_images(folder, len(job.prompts)) if finished else []
    if not finished or lost:
        job.batches(batch)  # refuses one that memory cannot hold
        job.try_out()
        check_writable(folder)
        with one_writer(folder, wait=wait, done=lambda: progress_of(folder)):
            _finish(job, folder, record, progress)
    tree = open_log(folder)
    tree.encoding[MADE] = f"{count(len(lost), 'lost image')} drawn again" if lost else "" if finished else "written"
    return tree


def _finish(job: Job, folder: Path, record: dict[str, Any], progress: Progress | None) -> None:
    """Make or continue the run, as the folder's only writer. One that fails before its first batch leaves nothing."""
    sweep(folder)
    record = _claim(folder, job, record)
    if is_finished(folder):  # another process was faster, or images are lost
        _draw_again(job, folder, record)
        return
    try:
        _fill(job, folder, record, progress)
    except BaseException:
        if not has_begun(folder):
            forget(folder)
        raise


def _fill(job: Job, folder: Path, record: dict[str, Any], progress: Progress | None) -> None:
    """Run the batches that are not there yet, then turn all parts into the zarr store."""
    for name in ("parts", "images"):
        (folder / name).mkdir(exist_ok=True)
    paths = []
    for samples in job.batches(record["batch"]):
        paths.append(folder / "parts" / f"{samples.start:06d}.npz")
        if not paths[-1].exists():
            _fill_part(job, record, folder, paths[-1], samples)
        if progress is not None:
            progress(samples.stop, len(job.prompts))
    joined = logs.join([load_part(path) for path in paths])
    keep(folder, logs.tree({place: group.rounded() for place, group in joined.items()}, record))
    shutil.rmtree(folder / "parts")


def _draw_again(job: Job, folder: Path, record: dict[str, Any]) -> None:
    """Draw the images that a finished run has lost."""
    if not (lost := set(lost_images(folder, len(job.prompts)))):
        return
    (folder / "images").mkdir(exist_ok=True)
    for samples in job.batches(record["batch"]):
        if lost.intersection(samples):
            out, _ = replace(job, probes=()).run(samples)
            for i, picture in zip(samples, to_pil(out.image), strict=True):
                if i in lost:
                    save_image(image_path(folder, i), picture, image_facts(record, i))
    note_images(folder, lost)


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


# Provenance


def provenance(job: Job, prompt_set: str = "custom") -> dict[str, Any]:
    """What a figure must say of its data, and what is needed to repeat the run."""
    model = job.model
    return {
        "model": model.name,
        "family": model.family,
        "weights": str(model.weights),
        "weights_content": dict(getattr(model.weights, "content", {})),
        "architecture": architecture(model),
        "text_encoder": text_encoder(model),
        "precision": model.precision,
        "execution": model.execution,
        "schedule": [list(grid) for grid in model.schedule.grids],
        "prompt_set": prompt_set,
        "n": len(job.prompts),
        "prompts": [prompt_label(prompt) for prompt in job.prompts],
        "negative": job.negative,
        "seed": job.seed,
        "settings": asdict(job.settings),
        "probes": [spec_of(probe) for probe in build(job.probes)],
        "accelerators": [spec_of(method) for method in build_accelerators(job.accelerators)],
        "options": plugin_options(job.probes, job.accelerators),
        "log_version": LOG_VERSION,
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git": git_state(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _record(job: Job, prompt_set: str, batch: int) -> dict[str, Any]:
    """The provenance as it reads back from a file, with the run's key."""
    record: dict[str, Any] = json.loads(json.dumps(provenance(job, prompt_set), default=list))
    return record | {"key": run_key(record), "batch": batch}


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


def stage_seconds(job: Job, batch: int, repeats: int = 3, longest: float = 60.0) -> list[list[float]]:
    """Wall seconds of each stage for one batch, text and probes left out [repeats, stages].

    A first pass warms up; where it takes more than ``longest`` seconds it is the only one, and counts.
    """
    rounds: list[list[float]] = []
    for _ in range(repeats + 1):
        _, times = timed_run(job.model, job.text(range(batch)), range(batch), settings=job.settings, seed=job.seed)
        rounds.append([round(seconds, 6) for seconds in times.stages.values()])
        if sum(rounds[0]) > longest:
            return rounds
    return rounds[1:]
