"""High frequencies of the token maps: how large their share is, and what is lost without them.

Source: FreqExit, figure 2 (a) and (b).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from varlab.analysis.measured import Measured
from varlab.context import fixed_context
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.evaluation.classes import ClassSamples, as_row, described, joined, labels, measures, reference, space_of
from varlab.evaluation.scenes import drawn, held
from varlab.measures.metrics import ssim
from varlab.measures.statistics import bootstrap_interval
from varlab.models.var_model import VAR
from varlab.studies.exits import facts_of
from varlab.studies.exits.lens import detail_share
from varlab.training.freqexit.wavelets import haar, inverse


class _Shares(Probe):
    """Share of the details in the energy of each stage's codes, and of the canvas after it."""

    name = "shares"

    def __init__(self) -> None:
        self.rows: list[dict[str, float | str]] = []

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        for name, maps in (("codes of the stage", codes), ("canvas after it", canvas)):
            for image, share in zip(stage.samples, detail_share(maps).tolist(), strict=True):
                self.rows.append({"prompt": image, "stage": stage.index + 1, "source": name, "share": share})


class WithoutDetail(VAR):
    """The same model, whose token maps lose their Haar details at some stages before they reach the canvas."""

    def __init__(self, stages: Sequence[int] = (), **parts: Any) -> None:
        super().__init__(**parts)
        self.stages = frozenset(stages)

    def code_map(self, k: int, codes: Tensor) -> Tensor:
        whole = super().code_map(k, codes)
        if k not in self.stages or whole.shape[-1] < 2:
            return whole
        low, details = haar(whole)
        return inverse(low, torch.zeros_like(details))[..., : whole.shape[-2], : whole.shape[-1]]


@fixed_context()
def detail_shares(model: VAR, n: int = 32, seed: int = 0, batch: int = 8) -> Measured:
    """One row an image, stage and map: the share of a one-level Haar transform's details. None for one token."""
    texts, probe = labels(model, n), _Shares()
    for first in range(0, n, batch):
        numbers = list(range(first, min(first + batch, n)))
        Run(model, model.settings, SeededNoise(seed), [probe]).generate([texts[i] for i in numbers], numbers)
    return Measured(pd.DataFrame(probe.rows), facts_of(model, texts, seed))


def halves(model: VAR) -> dict[str, list[int]]:
    """Stages, from 0, that ``detail_removed`` compares: the first half, the second, the last one, all."""
    stages = list(range(len(model.schedule)))
    half = len(stages) // 2
    return {
        f"stages 1 to {half}": stages[:half],
        f"stages {half + 1} to {len(stages)}": stages[half:],
        f"stage {len(stages)}": stages[-1:],
        "all stages": stages,
    }


@fixed_context()
def detail_removed(
    model: VAR, removals: dict[str, Sequence[int]], n: int = 128, seed: int = 0, resamples: int = 200
) -> Measured:
    """One row a removal (name -> stages from 0; "nothing" is added): the measures of ``score_classes`` and the SSIM to
    the image of the same seed with all details, all with 95 % intervals. n must exceed the 87 features."""
    texts, stages = labels(model, n), {"nothing": (), **removals}
    space = space_of(reference(model, n), resamples)
    found: dict[str, tuple[list[ClassSamples], list[Tensor]]] = {name: ([], []) for name in stages}
    streams = [drawn(model.with_(WithoutDetail, stages=own), texts, seed) for own in stages.values()]
    for at, few in held(zip(*streams, strict=True)):  # a few images, with all their details and without some
        plain, *_ = sets = [np.stack(pictures) for pictures in zip(*few, strict=True)]
        for (parts, likeness), pictures in zip(found.values(), sets, strict=True):
            parts.append(described(pictures, texts[at]))
            likeness.append(ssim(_unit(pictures), _unit(plain)))
    rows = []
    for name, (parts, likeness) in found.items():
        values = measures(joined(parts), space) | {"ssim": bootstrap_interval(torch.cat(likeness).numpy())}
        rows.append({"removed": name, "n": n} | as_row(values))
    return Measured(pd.DataFrame(rows), facts_of(model, texts, seed))


def _unit(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 255
