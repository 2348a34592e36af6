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
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.engine.state import Generation
from varlab.machine import now, peak_mib, reset_peak
from varlab.measures.metrics import high_frequency_ssim, psnr, ssim
from varlab.models.base import NextScaleModel
from varlab.probes.log import Log, join, of_methods, tree
from varlab.runs import Job, to_pil
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


class StageClock(Probe):
    """Wall time of the transformer: from the first stage's entry to the end of the last."""

    name = "clock"

    def __init__(self, device: torch.device) -> None:
        self.device, self.first, self.last = device, 0.0, 0.0

    def on_stage(self, stage: Stage, x: Tensor) -> None:
        if stage.index == 0:
            self.first = now(self.device)

    def on_progress(self, stage: Stage) -> None:
        self.last = now(self.device)


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

    def warm_up(self) -> None:
        samples = range(min(self.batch, len(self.job.prompts)))
        for name in self.names:
            forgot = reset_peak(self.job.model.device)  # not while time is taken: the pages that it frees cost some
            self._run(name, samples)
            self.peaks[name] = peak_mib(self.job.model.device, forgot)

    def turn(self, samples: range, turn: int, keep: bool) -> None:
        for i in range(len(self.names)):
            name = self.names[(i + turn) % len(self.names)]
            out, seconds, transformer = self._run(name, samples)
            self.timings.append(
                {
                    "method": name,
                    "turn": turn,
                    "images": len(samples),
                    "seconds": seconds / len(samples),
                    "transformer_seconds": transformer / len(samples),
                }
            )
            if keep:
                self.tensors[name].append(out.image.cpu())
                self.images[name] += to_pil(out.image)
                self.ledgers[name] += out.ledger
                self.parts[name].append(of_methods(out.reports, samples))

    def _run(self, name: str, samples: range) -> tuple[Generation, float, float]:
        job = self.job
        clock = StageClock(job.model.device)
        run = Run(job.model, job.settings, SeededNoise(job.seed), [clock], on_progress=clock.on_progress)
        texts = [job.prompts[i] for i in samples]
        needs = any("dense" in method.needs for method in self.methods[name])
        dense = run.dense_run(texts, list(samples)) if needs else None
        start = now(job.model.device)
        out = run.generate(texts, list(samples), self.methods[name], dense=dense)
        seconds = now(job.model.device) - start
        return out, seconds, clock.last - clock.first

    def told(self, facts: dict[str, Any]) -> dict[str, xr.DataTree]:
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
