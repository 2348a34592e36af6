"""Captioned images for training."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from varlab.errors import VarlabError
from varlab.scenes.grammar import SCENE_VERSION, caption
from varlab.scenes.render import render
from varlab.scenes.sampling import sample_scenes, scene_generator

PART = 2048


def make_dataset(
    n: int,
    seed: int,
    size: int = 64,
    categories: Mapping[str, float] | None = None,
    workers: int = 1,
    first: int = 0,
    version: str = SCENE_VERSION,
) -> tuple[np.ndarray, list[str]]:
    """Images uint8 [n, size, size, 3] and their captions: scenes `first` to `first + n - 1` of a seed.

    `version`: of the scenes, as `sample_scenes` takes it. The result does not depend on `workers` (processes).
    """
    if workers < 1:
        raise VarlabError(f"workers must be at least 1, not {workers}.")
    if n < 0:
        raise VarlabError(f"n must not be negative: {n}.")
    starts = range(first, first + n, PART)
    jobs = [(min(PART, first + n - start), seed, size, categories, start, version) for start in starts]
    if not jobs:
        jobs = [(n, seed, size, categories, first, version)]
    if workers == 1 or len(jobs) == 1:
        parts = [_part(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_part, *zip(*jobs, strict=True)))
    return np.concatenate([images for images, _ in parts]), [text for _, texts in parts for text in texts]


def _part(
    n: int, seed: int, size: int, categories: Mapping[str, float] | None, first: int, version: str
) -> tuple[np.ndarray, list[str]]:
    scenes = sample_scenes(n, seed, categories, first, version)
    texts = [caption(scene, scene_generator(seed, first + i, stream=1)) for i, scene in enumerate(scenes)]
    return render(scenes, size), texts
