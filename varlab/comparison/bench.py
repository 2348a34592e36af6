"""The bench that runs methods in turn, times them and keeps what they gave."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from varlab.accelerators import DENSE, build
from varlab.comparison.previews import Stages, drawn_by_stage
from varlab.comparison.turns import Made, Turn, Turns
from varlab.engine.canvases import CanvasStore
from varlab.engine.dense import Dense
from varlab.engine.hooks import Accelerator
from varlab.engine.ledger import Ledger
from varlab.engine.state import Generation
from varlab.measures.metrics import high_frequency_ssim, psnr, ssim
from varlab.models.base import NextScaleModel
from varlab.outputs import plain
from varlab.probes.log import Log, of_methods, tree
from varlab.runs import Job, Progress, to_pil
from varlab.runs.clock import Times, interleaved, timed_run
from varlab.runs.inputs import with_overrides
from varlab.scenes import CATEGORIES, score_images
from varlab.scenes.prompt_sets import Given, PromptSet, choose
from varlab.weights.lpips import load_lpips
from varlab.weights.writing import hash_tensors

PROMPTS = 32  # by default
SMALLEST = 11  # pixels: the window of SSIM
SCORE_FROM = 100  # prompts below which a scene score says too little
Measure = Callable[[Tensor, Tensor], Tensor]
FIDELITY: dict[str, Measure] = {"psnr": psnr, "ssim": ssim, "high_frequency_ssim": high_frequency_ssim}


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


def identities(measures: Mapping[str, Measure]) -> list[str]:
    """What tells measures apart: names, and hashes of the weights of learned ones."""
    weights = {name: getattr(measure, "tensors", None) for name, measure in measures.items()}
    return [f"{name} {hash_tensors(held)}" if held else name for name, held in weights.items()]


def measured(image: Tensor, dense: Tensor, measures: Mapping[str, Measure]) -> dict[str, np.ndarray]:
    """Each measure of images [B, 3, H, W] in [0, 1], a value an image; NaN of those smaller than the window of SSIM."""
    if min(image.shape[-2:]) < SMALLEST:
        return {name: np.full(len(image), np.nan) for name in measures}
    return {name: measure(image, dense).cpu().double().numpy() for name, measure in measures.items()}


def methods_of(spec: str) -> list[Accelerator]:
    """``none``, one method, or several joined by ``+``."""
    return build([part for part in spec.split("+") if part != DENSE])


class Bench:
    """Runs the methods in turn and keeps what they gave; what is in ``place`` already is not run again.

    The first ``timed`` turns are under the clock, a batch each, and over again where there are no more; the batches
    that are left are drawn without it, the one that the machine warms up on among them. The batch of the first prompts
    comes late, for the pictures after each stage of ``stages_of`` of them are drawn without the clock; a smaller one
    comes last, since its images take another time each.
    """

    def __init__(
        self, job: Job, names: Sequence[str], batch: int, measures: Mapping[str, Measure], timed: int,
        stages_of: int = 0, place: Path | None = None,
    ) -> None:  # fmt: skip
        self.job, self.names, self.measures, self.timed = job, list(names), measures, timed
        first, *others = job.batches(batch)
        self.batches, self.turns = sorted([*others, first], key=len, reverse=True), Turns(place)
        self.staged, self.stages = range(min(stages_of, len(job.prompts))), dict[str, list[Stages]]()
        self.methods = {name: methods_of(name) for name in names}
        self._looking = [name for name in names if any("dense" in method.needs for method in self.methods[name])]
        self._dense: Dense | None = None  # of the turn
        self._made: dict[str, tuple[Times | None, Ledger, Tensor, Log]] = {}
        self.turns.only({turn: self._kept(turn) for turn in self.turns.done})

    def run(self, progress: Progress | None = None) -> None:
        """Every batch by every method, in turning order where it is timed."""
        n, there, total = len(self.job.prompts), set(self.turns.done), max(self.timed, len(self.batches))

        def end(turn: int, _: int) -> None:
            number = turn or self._warming
            if number and number not in self.turns.done:
                self._save(number, timed=turn > 0)
            self._made, self._dense = {}, None
            if progress is not None:
                progress(n * turn // total, n)

        if not self.turns.peaks or not there.issuperset(range(1, self.timed + 1)):
            looks = [DENSE, *self._looking]  # one behind the other: most turns have the dense run by then
            order = [*looks, *(name for name in self.names if name not in looks)]
            found = interleaved(order, self._run, self.timed, self.job.model.device, end, done=there)
            self.turns.save_peaks(found.peaks)
        for turn in range(self.timed + 1, total + 1):
            if turn not in self.turns.done:
                for name, out in self._drawn(samples := self._samples(turn)):
                    self._made[name] = None, out.ledger, out.image.cpu(), of_methods(out.reports, samples)
            end(turn, total)
        if self.staged and not self.stages:
            for _ in self._drawn(self.staged):
                pass

    def _drawn(self, samples: range) -> Iterator[tuple[str, Generation]]:
        """A batch by all methods without the clock; where it holds them all, with the pictures after each stage."""
        count = len(self.staged) if set(self.staged) <= set(samples) else 0
        for name, out, stages in drawn_by_stage(self.job, samples, self.methods, count):
            if stages:
                self.stages[name] = stages
            yield name, out

    @property
    def _warming(self) -> int:
        """The turn whose batch is drawn while the machine warms up; 0 where none of the size of all is left."""
        left = self.batches[self.timed :]
        return self.timed + 1 if left and len(left[0]) == len(self.batches[0]) else 0

    def _samples(self, turn: int) -> range:
        return self.batches[max(0, (turn or self._warming) - 1) % len(self.batches)]

    def _kept(self, turn: int) -> tuple[int, ...]:
        """Whose pictures a turn keeps: those of each batch's first."""
        return tuple(self._samples(turn)) if turn <= len(self.batches) else ()

    def _run(self, name: str, turn: int) -> None:
        """One method on one batch; turn 0 warms up, and its memory is measured: there nothing is kept for others."""
        job, samples = self.job, self._samples(turn)
        texts, canvases = [job.prompts[i] for i in samples], CanvasStore()
        keep = bool(turn and name == DENSE and self._looking)
        out, times = timed_run(
            job.model, texts, list(samples), self.methods[name], settings=job.settings, seed=job.seed,
            probes=[canvases] * keep, dense=self._dense,
        )  # fmt: skip
        if keep:
            self._dense = canvases.dense(samples, job.model.decode, out.image)
        self._made[name] = times, times.ledger, out.image.cpu(), of_methods(out.reports, samples)

    def _save(self, turn: int, timed: bool) -> None:
        """What all methods gave in a turn; of each batch's first also the pictures, held against the dense ones."""
        samples, dense = self._samples(turn), self._made[DENSE][2].clamp(0, 1)
        found = Turn(self._kept(turn))
        for name, (times, ledger, image, decided) in self._made.items():  # in the order in which they ran
            row, per, timing = self.names.index(name), len(samples), dict[str, Any]()
            if times is not None and timed:
                timing = {"method": name, "turn": turn - 1, "images": per, "seconds": times.seconds / per}
                timing["transformer_seconds"] = times.transformer / per
            found.add(row, timing, ledger)
            if found.samples:
                found.add_pictures(row, to_pil(image), decided)
                for measure, values in measured(image.clamp(0, 1), dense, self.measures).items():
                    found.add_values(row, measure, values)
        self.turns.save(turn, found)

    def found(self) -> Made:
        return self.turns.joined(self.names, len(self.batches))


def prompt_rows(made: Made, texts: Sequence[str], categories: Sequence[str], scene_version: str) -> pd.DataFrame:
    """One row a prompt and method: fidelity to the dense image, and whether the scene, of that version, is right."""
    scored = len(texts) >= SCORE_FROM and set(categories) <= set(CATEGORIES)
    parts = []
    for name, measured in made.measured.items():
        part = pd.DataFrame({"method": name, "prompt": texts, "category": categories}).join(measured)
        pictures = [np.asarray(picture) for picture in made.images[name]]
        right = score_images(pictures, texts, categories, version=scene_version)["correct"] if scored else np.nan
        part["correct"] = right
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def method_logs(made: Made, facts: dict[str, Any]) -> dict[str, xr.DataTree]:
    """What the methods decided, of those that say."""
    return {
        name: tree(log, plain(facts) | {"accelerators": name.split("+")}) for name, log in made.decided.items() if log
    }
