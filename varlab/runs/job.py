"""One run as an object: what is sampled and what listens, and its batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from varlab.accelerators import build as build_accelerators
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch
from varlab.probes import LoggingProbe, build
from varlab.probes import log as logs
from varlab.probes.log import Log
from varlab.runs.inputs import Features, at_least, check_negative
from varlab.runs.trial import try_methods
from varlab.weights.memory import WHOLE, refuse_batch

Progress = Callable[[float, int], None]  # images done, stages of the present batch by their work; images in all


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [0, 1] -> pictures; truncated to 8 bits, as the official code does."""
    pixels = (image.clamp(0, 1) * 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def default_batch(model: NextScaleModel, most: int = 16, held: int = 2**30) -> int:
    """Images at a time: as many as keep both branches' keys and values within ``held`` bytes, from 1 to ``most``."""
    element = 4 if model.precision in WHOLE else 2
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
        try_methods(self.model, self.settings, build_accelerators(self.accelerators))

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
