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
from varlab.models.base import NextScaleModel
from varlab.runs.clock import interleaved, paired_ratio
from varlab.scenes.prompt_sets import prompts

Progress = Callable[[float, int], None]
ROUND = 16  # images
SEED = 0
ALONE = "each alone"
SPECS = (
    DENSE, "truncate:last=1", "truncate:last=2", "truncate:last=3", "cfg-off:last=1", "cfg-off:last=2",
    "cfg-off:last=3", "sparsevar:keep=0.27,last=3",
)  # fmt: skip
"""A method's rows as ``varlab compare`` and ``varlab generate`` draw them: the dense run, baselines, the method."""


@fixed_context()
def sharing(model: NextScaleModel, rounds: int, progress: Progress | None = None) -> tuple[pd.DataFrame, bool]:
    """A row a way of drawing ``ROUND`` images a round by all ``SPECS``, and whether both gave the same bits.

    The ways take turns in being first, after a round that warms up. cpu_seconds: of the process, an image and method;
    ratio: to drawing each alone, median of the rounds with its 95 % interval.
    """
    texts, ways = prompts("scenes").texts, {ALONE: _alone, "together": _together}
    waiting: dict[int, dict[str, Tensor]] = {}  # by round: images of the way that went first
    equal: list[bool] = []

    def one(way: str, turn: int) -> float:
        numbers = list(range(turn * ROUND, (turn + 1) * ROUND))
        chosen = [texts[i % len(texts)] for i in numbers]
        start = time.process_time()
        images = dict(ways[way](model, chosen, numbers))
        seconds = time.process_time() - start
        other = waiting.pop(turn, None)
        if other is None:
            waiting[turn] = images
        else:
            equal.append(
                images.keys() == other.keys() and all(torch.equal(images[spec], other[spec]) for spec in SPECS)
            )
        return seconds / ROUND / len(SPECS)

    spent = interleaved(list(ways), one, rounds, model.device, progress).passes
    return pd.DataFrame([_row(model, way, spent[way], spent[ALONE]) for way in ways]), all(equal)


def _row(model: NextScaleModel, way: str, spent: list[float], alone: list[float]) -> dict[str, object]:
    ratio = paired_ratio(spent, alone)
    return {"model": model.name, "weights": model.weights, "precision": model.precision, "seed": SEED, "way": way,
            "rounds": len(spent), "images": len(spent) * ROUND, "methods": len(SPECS),
            "cpu_seconds": sum(spent) / len(spent), "ratio": ratio.estimate, "low": ratio.low,
            "high": ratio.high}  # fmt: skip


def _alone(model: NextScaleModel, texts: list[str], numbers: list[int]) -> Iterator[tuple[str, Tensor]]:
    for spec in SPECS:
        run = Run(model, model.settings, SeededNoise(SEED))
        yield spec, run.generate(texts, numbers, methods_of(spec)).image


def _together(model: NextScaleModel, texts: list[str], numbers: list[int]) -> Iterator[tuple[str, Tensor]]:
    run, methods = Run(model, model.settings, SeededNoise(SEED)), {spec: methods_of(spec) for spec in SPECS}
    for spec, made in shared_runs(run, texts, numbers, methods):
        yield spec, made.image
