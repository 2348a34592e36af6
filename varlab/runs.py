"""Runs: prompts in, images and a log out, with everything needed to repeat them."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import time
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

from varlab.accelerators import build as build_accelerators
from varlab.engine.hooks import Accelerator
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.probes import LoggingProbe, build
from varlab.probes import log as logs
from varlab.probes.log import Log

Progress = Callable[[int, int], None]  # images done, images in all
STORE = "log.zarr"
RUNS = Path("runs")
PACKAGES = ("varlab", "torch", "numpy", "xarray", "zarr", "pywavelets")


@dataclass
class RunResult:
    """``images`` in prompt order, the ``log`` (empty without probes), the summed work ledger."""

    images: list[Image.Image]
    log: xr.DataTree
    ledger: Ledger


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [0, 1] -> pictures; truncated to 8 bits, as the official code does."""
    pixels = (image.clamp(0, 1) * 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def check_prompts(prompts: Sequence[str] | str) -> list[str]:
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise VarlabError("There are no prompts. Give at least one, or a prompt set: vl.prompts('scenes', n=8).")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise VarlabError(f"Prompt {i} is empty. Describe a scene, for example: a red star above a blue ring.")
    return texts


def with_overrides(settings: Settings, **given: Any) -> Settings:
    """The model's settings with those given here; None keeps the model's."""
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items() if v is not None}
    return replace(settings, **values)


@dataclass(frozen=True)
class Job:
    """One run: what is sampled and what listens."""

    model: NextScaleModel
    prompts: tuple[str, ...]
    settings: Settings
    seed: int = 0
    probes: tuple[str | LoggingProbe, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    negative: str | None = None

    def batches(self, batch: int) -> list[range]:
        count = len(self.prompts)
        return [range(first, min(first + batch, count)) for first in range(0, count, batch)]

    def run(self, samples: range) -> tuple[torch.Tensor, Log, Ledger]:
        """Images of these prompts, the probes' datasets and the ledger."""
        probes = build(self.probes)
        run = Run(self.model, self.settings, SeededNoise(self.seed), probes)
        negative = None if self.negative is None else [self.negative] * len(samples)
        texts = [self.prompts[i] for i in samples]
        out = run.generate(texts, list(samples), self.accelerators, negative)
        log: Log = {}
        for probe in probes:
            log |= probe.log()
        return out.image, log, out.ledger

    def names(self) -> list[str]:
        return [p if isinstance(p, str) else p.name for p in self.probes]


def sample(
    model: NextScaleModel,
    prompts: Sequence[str] | str,
    *,
    seed: int = 0,
    probes: Sequence[str | LoggingProbe] = (),
    accelerators: Sequence[str | Accelerator] = (),
    negative: str | None = None,
    batch: int = 8,
    progress: Progress | None = None,
    **settings: Any,
) -> RunResult:
    """Images of prompts, and what the probes saw.

    Image i depends on (seed, i) alone, not on the batch. ``settings`` override the model's own: cfg, tau
    (a number or one a stage), top_k, top_p, cfg_layers. A larger batch costs memory in proportion.
    """
    texts = check_prompts(prompts)
    chosen = with_overrides(model.settings, **settings)
    job = Job(model, tuple(texts), chosen, seed, tuple(probes), tuple(build_accelerators(accelerators)), negative)
    images: list[Image.Image] = []
    parts: list[Log] = []
    ledger = Ledger.of(len(model.schedule))
    for samples in job.batches(batch):
        image, log, work = job.run(samples)
        images, ledger = images + to_pil(image), ledger + work
        parts.append(log)
        if progress is not None:
            progress(len(images), len(texts))
    return RunResult(images, logs.tree(logs.join(parts), provenance(job)), ledger)


def log_run(
    model: NextScaleModel,
    prompts: Sequence[str],
    folder: Path | None = None,
    *,
    probes: Sequence[str],
    prompt_set: str = "custom",
    seed: int = 0,
    batch: int = 8,
    progress: Progress | None = None,
    **settings: Any,
) -> xr.DataTree:
    """Sample into a run folder: ``run.json``, ``images/`` and, when done, ``log.zarr``.

    A folder with the same run is continued after its last finished batch; one with another run is refused.
    Without a folder the run goes to one under ``runs/`` that is named after it.
    """
    texts = check_prompts(prompts)
    job = Job(model, tuple(texts), with_overrides(model.settings, **settings), seed, tuple(probes))
    build(job.probes)  # names are checked before any work
    record = _record(job, prompt_set, batch)
    if folder is None:
        folder = RUNS / f"{model.name}-{Path(prompt_set).stem}-{len(texts)}-seed{seed}-{record['key'][:8]}"
    record = _claim(folder, job, record)
    if not (folder / STORE).exists():
        _fill(job, folder, record, progress)
    return open_log(folder)


def _fill(job: Job, folder: Path, record: dict[str, Any], progress: Progress | None) -> None:
    """Run the batches that are not there yet, then turn all parts into the zarr store."""
    paths = []
    for samples in job.batches(record["batch"]):
        path = folder / "parts" / f"{samples.start:06d}.npz"
        if not path.exists():
            image, log, _ = job.run(samples)
            for i, picture in zip(samples, to_pil(image), strict=True):
                picture.save(folder / "images" / f"{i:06d}.png")
            logs.save(path.with_suffix(".draft"), log)
            path.with_suffix(".draft").replace(path)
        paths.append(path)
        if progress is not None:
            progress(samples.stop, len(job.prompts))
    draft = folder / "draft.zarr"
    shutil.rmtree(draft, ignore_errors=True)
    tree = logs.tree(logs.join([logs.load(path) for path in paths]), record)
    tree.to_zarr(draft, consolidated=False)
    draft.rename(folder / STORE)
    shutil.rmtree(folder / "parts")


def open_log(folder: Path | str) -> xr.DataTree:
    """The log of a run folder; an unfinished run gives the prompts it has."""
    folder = Path(folder)
    if (folder / STORE).exists():
        return xr.open_datatree(folder / STORE, engine="zarr", consolidated=False)
    parts = sorted((folder / "parts").glob("*.npz"))
    if not (folder / "run.json").exists() or not parts:
        raise VarlabError(f"{folder} holds no log. Make one: varlab log MODEL --out {folder}.")
    record = json.loads((folder / "run.json").read_text())
    return logs.tree(logs.join([logs.load(path) for path in parts]), record)


# Provenance


def provenance(job: Job, prompt_set: str = "custom") -> dict[str, Any]:
    """What a figure must say of its data, and what is needed to repeat the run."""
    model = job.model
    return {
        "model": model.name,
        "family": model.family,
        "weights": model.weights,
        "precision": model.precision,
        "schedule": [list(grid) for grid in model.schedule.grids],
        "prompt_set": prompt_set,
        "n": len(job.prompts),
        "prompts": list(job.prompts),
        "seed": job.seed,
        "settings": asdict(job.settings),
        "probes": job.names(),
        "accelerators": [a.name for a in job.accelerators],
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git": git_state(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


SAME = ("model", "weights", "precision", "schedule", "prompts", "seed", "settings", "probes")


def run_key(record: dict[str, Any]) -> str:
    """16 hexadecimal digits of all that decides the log."""
    text = json.dumps({name: record[name] for name in SAME}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _record(job: Job, prompt_set: str, batch: int) -> dict[str, Any]:
    """The provenance as it reads back from a file, with the run's key."""
    record: dict[str, Any] = json.loads(json.dumps(provenance(job, prompt_set), default=list))
    return record | {"key": run_key(record), "batch": batch}


def _claim(folder: Path, job: Job, record: dict[str, Any]) -> dict[str, Any]:
    """The record of this run: found in the folder, or written there with the stage times of a plain pass."""
    path = folder / "run.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found.get("key") != record["key"]:
            different = [name for name in SAME if found.get(name) != record[name]]
            raise VarlabError(f"{folder} holds another run (different: {', '.join(different)}). Give another folder.")
        return found
    if folder.exists() and any(folder.iterdir()):
        raise VarlabError(f"{folder} is not empty and holds no run. Give another folder.")
    for name in ("parts", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    record["stage_seconds"] = stage_seconds(job, min(record["batch"], len(job.prompts)))
    path.write_text(json.dumps(record, indent=1))
    return record


def stage_seconds(job: Job, batch: int, repeats: int = 3) -> list[list[float]]:
    """Wall seconds of each stage for one batch without probes [repeats, stages]; the first pass is not counted."""
    rounds: list[list[float]] = []
    for _ in range(repeats + 1):
        marks = [time.perf_counter()]

        def mark(stage: Stage, marks: list[float] = marks) -> None:
            if job.model.device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        run = Run(job.model, job.settings, SeededNoise(job.seed), on_progress=mark)
        run.generate(list(job.prompts[:batch]), list(range(batch)))
        rounds.append(np.diff(marks).round(6).tolist())
    return rounds[1:]


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            return f"cpu ({line.split(':', 1)[1].strip()})"
    return f"cpu ({platform.machine()})"


def git_state() -> str:
    """Commit of the working tree, ``+`` when it has changes; "unknown" outside a checkout."""
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
