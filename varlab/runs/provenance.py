"""What the record of a run says: all that is needed to repeat it, and all that a figure must say of its data."""

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from varlab.accelerators import build as build_accelerators
from varlab.machine import device_name
from varlab.probes import build
from varlab.probes.log import LOG_VERSION
from varlab.runs.clock import timed_run
from varlab.runs.folders import run_key
from varlab.runs.inputs import prompt_label
from varlab.runs.job import Job
from varlab.runs.origins import architecture, contents, plugin_options, scenes_of, signed, text_encoder
from varlab.specs import spec_of

PACKAGES = ("varlab", "torch", "numpy", "xarray", "zarr", "pywavelets")


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
        **scenes_of(model),
        "contents": contents(model, build_accelerators(job.accelerators)),
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
        **machine_and_code(model.device),
    }


def machine_and_code(device: torch.device) -> dict[str, Any]:
    """What a record says of where it was made, and by what."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return {"device": device_name(device), "threads": torch.get_num_threads()} | signed() | {"versions": versions}


def record_of(job: Job, prompt_set: str, batch: int) -> dict[str, Any]:
    """The provenance as it reads back from a file, with the run's key."""
    record: dict[str, Any] = json.loads(json.dumps(provenance(job, prompt_set), default=list))
    return record | {"key": run_key(record), "batch": batch}


TIMED_IMAGES = 4  # at most, a pass: four passes of a whole batch cost more than many a run


def stage_seconds(job: Job, batch: int, repeats: int = 3, longest: float = 60.0) -> list[list[float]]:
    """Wall seconds of each stage for one batch of at most ``TIMED_IMAGES``, text and probes left out [repeats, stages].

    A first pass warms up; where it takes more than ``longest`` seconds it is the only one, and counts.
    """
    rounds: list[list[float]] = []
    images = range(min(batch, TIMED_IMAGES))
    for _ in range(repeats + 1):
        _, times = timed_run(job.model, job.text(images), images, settings=job.settings, seed=job.seed)
        rounds.append([round(seconds, 6) for seconds in times.stages.values()])
        if sum(rounds[0]) > longest:
            return rounds
    return rounds[1:]
