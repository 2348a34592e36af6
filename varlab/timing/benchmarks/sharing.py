"""What drawing methods together saves: the stages before they part, computed once instead of once a method."""

import time
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.comparison.bench import methods_of
from varlab.context import fixed_context
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import shared_runs
from varlab.measures.statistics import bootstrap_interval
from varlab.models.base import NextScaleModel
from varlab.scenes.prompt_sets import prompts

Progress = Callable[[float, int], None]
ROUND = 16  # images
SPECS = (
    DENSE, "truncate:last=1", "truncate:last=2", "truncate:last=3", "cfg-off:last=1", "cfg-off:last=2",
    "cfg-off:last=3", "sparsevar:keep=0.27,last=3",
)  # fmt: skip
"""A method's rows as ``varlab compare`` and ``varlab generate`` draw them: the dense run, baselines, the method."""


@fixed_context()
def sharing(model: NextScaleModel, rounds: int, progress: Progress | None = None) -> tuple[pd.DataFrame, bool]:
    """A row a way of drawing ``ROUND`` images a round by all ``SPECS``, and whether both gave the same bits.

    The ways take turns in being first. cpu_seconds: of the process, an image and method; ratio: to drawing each alone,
    mean of the rounds with its 95 % interval.
    """
    texts, equal = prompts("scenes").texts, True
    ways = {"each alone": _alone, "together": _together}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for done in range(rounds):
        numbers = list(range(done * ROUND, (done + 1) * ROUND))
        chosen, images = [texts[i % len(texts)] for i in numbers], {}
        for way in list(ways)[:: 1 if done % 2 == 0 else -1]:
            start = time.process_time()
            images[way] = dict(ways[way](model, chosen, numbers))
            seconds[way].append((time.process_time() - start) / ROUND / len(SPECS))
        alone, together = images.values()
        equal &= alone.keys() == together.keys() and all(torch.equal(alone[spec], together[spec]) for spec in alone)
        if progress is not None:
            progress(done + 1, rounds)
    return pd.DataFrame([_row(way, spent, seconds["each alone"]) for way, spent in seconds.items()]), equal


def _row(way: str, spent: list[float], alone: list[float]) -> dict[str, object]:
    ratio = bootstrap_interval([own / other for own, other in zip(spent, alone, strict=True)])
    return {"way": way, "rounds": len(spent), "images": len(spent) * ROUND, "methods": len(SPECS),
            "cpu_seconds": sum(spent) / len(spent), "ratio": ratio.estimate, "low": ratio.low,
            "high": ratio.high}  # fmt: skip


def _alone(model: NextScaleModel, texts: list[str], numbers: list[int]) -> Iterator[tuple[str, Tensor]]:
    for spec in SPECS:
        run = Run(model, model.settings, SeededNoise(0))
        yield spec, run.generate(texts, numbers, methods_of(spec)).image


def _together(model: NextScaleModel, texts: list[str], numbers: list[int]) -> Iterator[tuple[str, Tensor]]:
    run, methods = Run(model, model.settings, SeededNoise(0)), {spec: methods_of(spec) for spec in SPECS}
    for spec, made in shared_runs(run, texts, numbers, methods):
        yield spec, made.image
