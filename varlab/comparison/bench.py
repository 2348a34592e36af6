"""The bench that runs methods in turn, times them and keeps what they gave."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from varlab.accelerators import DENSE, build
from varlab.engine.hooks import Accelerator
from varlab.engine.ledger import Ledger
from varlab.measures.metrics import high_frequency_ssim, psnr, ssim
from varlab.models.base import NextScaleModel
from varlab.probes.log import Log, join, of_methods, tree
from varlab.runs import Job, Progress, to_pil
from varlab.runs.clock import interleaved, timed_run
from varlab.runs.inputs import with_overrides
from varlab.scenes import CATEGORIES, score_images
from varlab.scenes.prompt_sets import Given, PromptSet, choose
from varlab.weights.lpips import load_lpips

PROMPTS = 32  # by default
SCORE_FROM = 100  # prompts below which a scene score says too little
Measure = Callable[[Tensor, Tensor], Tensor]
FIDELITY: dict[str, Measure] = {
    "psnr": psnr,
    "ssim": ssim,
    "high_frequency_ssim": high_frequency_ssim,
}


def job_of(
    model: NextScaleModel, prompt_set: Given, n: int | None, seed: int, settings: Mapping[str, Any]
) -> tuple[Job, PromptSet]:
    """What is to be sampled, checked, and the prompts with their names and categories."""
    chosen = choose(prompt_set, n, model, PROMPTS)
    return Job(model, tuple(chosen.texts), with_overrides(model.settings, **settings), seed), chosen


def measures_of(model: NextScaleModel, lpips: Path | str | None) -> dict[str, Measure]:
    """How an image is held against the dense one; LPIPS where its weights are."""
    if (perceptual := load_lpips(lpips)) is None:
        return FIDELITY
    perceptual.check_size(*(side * model.stride for side in model.latent_grid(model.schedule.final)))
    return FIDELITY | {"lpips": perceptual}


def methods_of(spec: str) -> list[Accelerator]:
    """``none``, one method, or several joined by ``+``."""
    return build([part for part in spec.split("+") if part != DENSE])


class Bench:
    """Runs the methods in turn and keeps what they gave."""

    def __init__(self, job: Job, names: Sequence[str], batch: int, measures: Mapping[str, Measure]) -> None:
        self.job, self.names, self.batch, self.measures = job, list(names), batch, measures
        self.timings: list[dict[str, Any]] = []
        self.tensors: dict[str, list[Tensor]] = {name: [] for name in names}
        self.images: dict[str, list[Image.Image]] = {name: [] for name in names}
        self.ledgers = {name: Ledger.of(len(job.model.schedule)) for name in names}
        self.parts: dict[str, list[Log]] = {name: [] for name in names}
        self.methods = {name: methods_of(name) for name in names}
        self.peaks: dict[str, float] = {}

    def run(self, rounds: int, progress: Progress | None = None) -> None:
        """Every batch of prompts ``rounds`` times by every method, in turning order."""
        batches, n = self.job.batches(self.batch), len(self.job.prompts)

        def one(name: str, turn: int) -> None:
            place = max(0, turn - 1)
            self._run(name, batches[place % len(batches)], turn, 0 < turn <= len(batches))

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(min(n, done * self.batch // rounds), n)

        self.peaks = interleaved(self.names, one, rounds * len(batches), self.job.model.device, report).peaks

    def _run(self, name: str, samples: range, turn: int, keep: bool) -> None:
        """One method on one batch; turn 0 warms up, and what the first round gives is kept."""
        job = self.job
        texts = [job.prompts[i] for i in samples]
        out, times = timed_run(
            job.model, texts, list(samples), self.methods[name], settings=job.settings, seed=job.seed
        )
        if turn:
            self.timings.append(
                {
                    "method": name,
                    "turn": turn - 1,
                    "images": len(samples),
                    "seconds": times.seconds / len(samples),
                    "transformer_seconds": times.transformer / len(samples),
                }
            )
        if keep:
            self.tensors[name].append(out.image.cpu())
            self.images[name] += to_pil(out.image)
            self.ledgers[name] += out.ledger
            self.parts[name].append(of_methods(out.reports, samples))

    def method_logs(self, facts: dict[str, Any]) -> dict[str, xr.DataTree]:
        """What the methods decided, of those that say."""
        plain = json.loads(json.dumps(facts, default=list))
        joined = {name: join(parts) for name, parts in self.parts.items()}
        return {name: tree(log, plain | {"accelerators": name.split("+")}) for name, log in joined.items() if log}

    def prompt_rows(self, texts: Sequence[str], categories: Sequence[str]) -> pd.DataFrame:
        """One row a prompt and method: fidelity to the dense image, and whether the scene is right."""
        dense = torch.cat(self.tensors[DENSE]).clamp(0, 1)
        scored = len(texts) >= SCORE_FROM and set(categories) <= set(CATEGORIES)
        parts = []
        for name in self.names:
            image = torch.cat(self.tensors[name]).clamp(0, 1)
            part = pd.DataFrame({"method": name, "prompt": texts, "category": categories})
            for measure, function in self.measures.items():
                part[measure] = function(image, dense).double().numpy() if min(image.shape[-2:]) >= 11 else np.nan
            pictures = [np.asarray(picture) for picture in self.images[name]]
            part["correct"] = score_images(pictures, texts, categories)["correct"] if scored else np.nan
            parts.append(part)
        return pd.concat(parts, ignore_index=True)
