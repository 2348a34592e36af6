"""The scene benchmark: does a model draw what the prompt asks, judged by the classical scorer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.measures.spectra import band_power
from varlab.models.base import NextScaleModel
from varlab.runs import sample
from varlab.scenes import SCENE_VERSION, benchmark_prompt, render, sample_scenes, score_images, summarise
from varlab.scenes.prompt_sets import PromptSet, prompts

Progress = Callable[[float, int], None]
HELD_OUT_SEED = 90_001  # scenes that no training pool contains


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


def score(
    pictures: list[np.ndarray],
    texts: list[str],
    categories: list[str],
    entries: list[int] | None = None,
    version: str = SCENE_VERSION,
) -> SceneScore:
    table = score_images(pictures, texts, categories, entries, version)
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
) -> tuple[SceneScore, list[np.ndarray], PromptSet]:
    """Sample and judge ``per_prompt`` images for each of ``n`` prompts. Time grows with n * per_prompt."""
    chosen = prompts("scenes", n=n)
    texts = [text for text in chosen for _ in range(per_prompt)]
    categories = [category for category in chosen.categories for _ in range(per_prompt)]
    entries = [i for i in range(len(chosen)) for _ in range(per_prompt)]
    images = sample(model, texts, seed=seed, batch=batch, progress=progress).images
    pictures = [np.asarray(image) for image in images]
    return score(pictures, texts, categories, entries, model.scene_version), pictures, chosen


@torch.inference_mode()
@fixed_context()
def reconstruct(model: NextScaleModel, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """uint8 [n, H, W, 3] through encoder, quantiser and decoder."""
    parts = []
    for first in range(0, len(images), batch):
        pixels = torch.from_numpy(images[first : first + batch]).to(model.device).movedim(-1, 1).float() / 255
        rebuilt = model.decode(model.encode(pixels))
        parts.append((rebuilt.clamp(0, 1) * 255).byte().movedim(1, -1).cpu().numpy())
    return np.concatenate(parts)


def score_ceiling(model: NextScaleModel, n: int = 553, seed: int = HELD_OUT_SEED) -> Ceiling:
    """Held-out scenes of the version that the model knows, as rendered, and after the tokenizer."""
    scenes = sample_scenes(n, seed, version=model.scene_version)
    texts, categories = [benchmark_prompt(scene) for scene in scenes], [scene.category for scene in scenes]
    truth = render(scenes, model.latent_grid(model.schedule.final)[0] * model.stride)
    rebuilt = reconstruct(model, truth)
    error = float(((truth.astype(np.float64) - rebuilt) ** 2).mean())
    return Ceiling(
        score(list(truth), texts, categories, version=model.scene_version),
        score(list(rebuilt), texts, categories, version=model.scene_version),
        psnr=float(10 * np.log10(255**2 / error)),
        detail_kept=detail(rebuilt) / detail(truth),
        power=detail(truth) / len(truth),
    )


def detail(images: np.ndarray) -> float:
    """Power of the pixels above 1/8 cycle a pixel, summed over the images."""
    maps = torch.from_numpy(images).movedim(-1, 1).float()
    return float(band_power(maps, (0.125, float("inf"))).sum())
