"""The scene benchmark: does a model draw what the prompt asks, judged by the classical scorer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.measures.spectra import band_power
from varlab.models.base import NextScaleModel
from varlab.runs import Job, Progress, default_batch, to_pil
from varlab.scenes import SCENE_VERSION, benchmark_prompt, render, sample_scenes, score_images, summarise
from varlab.scenes.prompt_sets import prompts

T = TypeVar("T")
HELD_OUT_SEED = 90_001  # scenes that no training pool contains
HELD = 64  # pictures at a time


@dataclass(frozen=True)
class SceneScore:
    """``images``: one row an image; ``summary``: mean and interval by category, and overall."""

    images: pd.DataFrame
    summary: pd.DataFrame

    @property
    def entries(self) -> pd.DataFrame:
        """One row a prompt entry: category, prompt, and the mean of its images."""
        found = self.images.groupby("entry").agg({"category": "first", "prompt": "first", "correct": "mean"})
        return found.astype({"correct": float}).reset_index()


@dataclass(frozen=True)
class Ceiling:
    """What any sample could reach: the scorer on renders and on reconstructions.

    psnr in dB; ``detail_kept``: power above 1/8 cycle a pixel, reconstructions over renders; ``power``: that of a
    render.
    """

    truth: SceneScore
    rebuilt: SceneScore
    psnr: float
    detail_kept: float
    power: float


def drawn(
    model: NextScaleModel,
    texts: Sequence[str],
    seed: int = 0,
    accelerators: Sequence[str] = (),
    batch: int | None = None,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """Pictures uint8 [H, W, 3], of which one batch is held; image i depends on (seed, i) alone."""
    job = Job(model, tuple(texts), model.settings, seed, accelerators=tuple(accelerators), progress=progress)
    job.try_out()
    for samples in job.batches(batch or default_batch(model)):
        yield from map(np.array, to_pil(job.run(samples)[0].image))
        if progress is not None:
            progress(samples.stop, len(texts))


def held(items: Iterable[T], count: int = HELD) -> Iterator[tuple[slice, list[T]]]:
    """A few at a time, and where they are."""
    left, first = iter(items), 0
    while part := list(islice(left, count)):
        yield slice(first, first := first + len(part)), part


def score(
    pictures: Iterable[np.ndarray],
    texts: Sequence[str],
    categories: Sequence[str],
    entries: Sequence[int] | None = None,
    version: str = SCENE_VERSION,
) -> SceneScore:
    """Of pictures that may come one by one: a few are held at a time."""
    entries = range(len(texts)) if entries is None else entries
    parts = [score_images(few, texts[at], categories[at], entries[at], version) for at, few in held(pictures)]
    table = pd.concat(parts, ignore_index=True)
    if len(table) != len(texts):
        raise VarlabError(f"{len(texts)} prompts need as many images, not {len(table)}.")
    return SceneScore(table, summarise(table))


def lead(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """``entries`` of one score less those of another, as ``summarise``: paired, overall is the plain mean of the
    categories. The two may differ in images an entry, not in entries: VarlabError says so."""
    if own.entry.tolist() != other.entry.tolist() or own.prompt.tolist() != other.prompt.tolist():
        raise VarlabError("The two scores are of different prompt entries: score both with the same n.")
    return summarise(own.assign(lead=own.correct - other.correct), "lead")


def score_samples(
    model: NextScaleModel,
    n: int = 553,
    per_prompt: int = 4,
    seed: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
    every: int = 1,
) -> tuple[SceneScore, float, list[np.ndarray]]:
    """Sample and judge ``per_prompt`` images for each of ``n`` prompts: their score, their mean power above 1/8 cycle
    a pixel, and one picture of ``every`` so many. Time grows with n * per_prompt, memory with n * per_prompt / every.
    """
    chosen = prompts("scenes", n=n)
    texts = [text for text in chosen for _ in range(per_prompt)]
    categories = [category for category in chosen.categories for _ in range(per_prompt)]
    entries = [i for i in range(len(chosen)) for _ in range(per_prompt)]
    powers, kept = list[float](), list[np.ndarray]()

    def seen() -> Iterator[np.ndarray]:
        for i, picture in enumerate(drawn(model, texts, seed, (), batch, progress)):
            powers.append(detail(picture[None]))
            kept.extend([] if i % every else [picture])
            yield picture

    return score(seen(), texts, categories, entries, model.scene_version), float(np.mean(powers)), kept


@torch.inference_mode()
@fixed_context()
def reconstruct(model: NextScaleModel, images: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] through encoder, quantiser and decoder."""
    parts = []
    for _, few in held(images):
        pixels = torch.from_numpy(np.stack(few)).to(model.device).movedim(-1, 1).float() / 255
        rebuilt = model.decode(model.encode(pixels))
        parts.append((rebuilt.clamp(0, 1) * 255).byte().movedim(1, -1).cpu().numpy())
    return np.concatenate(parts)


def score_ceiling(model: NextScaleModel, n: int = 553, seed: int = HELD_OUT_SEED) -> Ceiling:
    """Held-out scenes of the version that the model knows, as rendered, and after the tokenizer."""
    side, version = model.latent_grid(model.schedule.final)[0] * model.stride, model.scene_version
    tables, sums = [], []
    for at, scenes in held(sample_scenes(n, seed, version=version)):
        texts, categories = [benchmark_prompt(scene) for scene in scenes], [scene.category for scene in scenes]
        truth = render(scenes, side)
        rebuilt = reconstruct(model, truth)
        tables.append([score_images(own, texts, categories, range(n)[at], version) for own in (truth, rebuilt)])
        sums.append((((truth.astype(np.float64) - rebuilt) ** 2).sum(), detail(truth), detail(rebuilt)))
    error, power, kept = np.sum(sums, axis=0)
    whole = [pd.concat(parts, ignore_index=True) for parts in zip(*tables, strict=True)]
    of_truth, of_rebuilt = (SceneScore(table, summarise(table)) for table in whole)
    return Ceiling(
        of_truth,
        of_rebuilt,
        psnr=float(10 * np.log10(255**2 * n * 3 * side**2 / error)),
        detail_kept=float(kept / power),
        power=float(power / n),
    )


def detail(images: np.ndarray) -> float:
    """Power of the pixels above 1/8 cycle a pixel, summed over the images."""
    maps = torch.from_numpy(images).movedim(-1, 1).float()
    return float(band_power(maps, (0.125, float("inf"))).sum())
