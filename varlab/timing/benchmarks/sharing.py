"""What drawing methods together saves: dense images, and the stages before methods part, computed once for all."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.comparison.bench import methods_of
from varlab.context import fixed_context
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import may_share, shared_runs
from varlab.models.base import NextScaleModel
from varlab.outputs import save_table
from varlab.runs import Progress
from varlab.runs.clock import interleaved, paired_ratio
from varlab.scenes.prompt_sets import prompts

ROUND = 4  # images of one prompt: 553 rounds are as many as GenEval draws
SEED = 0
APART, ALONE, TOGETHER = "dense images for each method", "dense images once", "first stages shared too"
SPECS = (
    DENSE, "sparsevar:tau=0.6", "sparsevar:keep=0.27,last=3", "sparsevar:keep=0.49,last=3", "skipvar:target=0.86",
    "fastvar", "truncate:last=1", "cfg-off:last=2", "random-tokens:keep=0.5",
    "sparsevar:keep=0.49,last=3+cfg-off:last=3",
)  # fmt: skip
"""The settings of a comparison: the dense run, which comes first, published methods, baselines, a composition."""


@fixed_context()
def sharing(
    model: NextScaleModel, rounds: int, kept: Path, progress: Progress | None = None
) -> tuple[pd.DataFrame, bool]:
    """A row a way of drawing ``ROUND`` images a round by all ``SPECS``, and whether all gave the same bits.

    The ways take turns in being first, after a round that warms up; dense images for each method are the account of
    what was timed, not run. cpu_seconds: of the process, an image and method; ratio: to the first row, step: to the
    row above, medians of the rounds with their 95 % intervals.

    Parameters
    ----------
    kept: table of the rounds so far; a call that was cut goes on from it.
    """
    rows: list[dict[str, Any]] = pd.read_csv(kept).to_dict("records") if kept.is_file() else []
    texts, ways = prompts("scenes").texts, {ALONE: _alone, TOGETHER: _together}
    waiting: dict[int, tuple[list[float], dict[str, Tensor]]] = {}  # by round: of the way that went first

    def one(way: str, turn: int) -> None:
        place = max(turn - 1, 0)  # a prompt; the warming round draws the first one
        numbers, chosen = list(range(place * ROUND, (place + 1) * ROUND)), [texts[place % len(texts)]] * ROUND
        images, spent, start = dict[str, Tensor](), list[float](), time.process_time()
        for spec, image in ways[way](model, chosen, numbers):
            images[spec] = image
            spent.append(time.process_time() - start)
        if turn not in waiting:
            waiting[turn] = spent, images
            return
        other, others = waiting.pop(turn)
        alone, together = (spent, other) if way == ALONE else (other, spent)
        if turn:
            equal = all(torch.equal(images[spec], others[spec]) for spec in SPECS)
            rows.append({"round": turn, "dense": alone[0], ALONE: alone[-1], TOGETHER: together[-1], "equal": equal})
            save_table(kept, pd.DataFrame(rows), digits="%.6g")

    done = [row["round"] for row in rows]
    interleaved(list(ways), one, rounds, model.device, progress, warm_up=len(done) < rounds, done=done)
    found = pd.DataFrame(rows).head(rounds)
    found[APART] = found[ALONE] + (len(SPECS) - 1) * found.dense
    return _table(model, found), bool(found.equal.all())


def _table(model: NextScaleModel, found: pd.DataFrame) -> pd.DataFrame:
    made = {"model": model.name, "weights": model.weights, "precision": model.precision, "seed": SEED,
            "rounds": len(found), "images": len(found) * ROUND, "methods": len(SPECS)}  # fmt: skip
    ways, rows = [APART, ALONE, TOGETHER], []
    for way, above in zip(ways, [APART, *ways], strict=False):
        ratio, step = (paired_ratio(found[way], found[other]) for other in (APART, above))
        rows.append(made | {"way": way, "cpu_seconds": found[way].mean() / ROUND / len(SPECS),
                            "ratio": ratio.estimate, "low": ratio.low, "high": ratio.high,
                            "step": step.estimate, "step_low": step.low, "step_high": step.high})  # fmt: skip
    return pd.DataFrame(rows)


def _alone(model: NextScaleModel, texts: list[str], numbers: list[int]) -> Iterator[tuple[str, Tensor]]:
    yield from ((spec, _one(model, texts, numbers, spec)) for spec in SPECS)


def _together(model: NextScaleModel, texts: list[str], numbers: list[int]) -> Iterator[tuple[str, Tensor]]:
    """As ``varlab generate`` draws them: whoever listens before it acts goes alone."""
    methods = {spec: methods_of(spec) for spec in SPECS}
    sharers = {spec: own for spec, own in methods.items() if may_share(own)}
    run = Run(model, model.settings, SeededNoise(SEED))
    yield from ((spec, made.image) for spec, made in shared_runs(run, texts, numbers, sharers))
    yield from ((spec, _one(model, texts, numbers, spec)) for spec in SPECS if spec not in sharers)


def _one(model: NextScaleModel, texts: list[str], numbers: list[int], spec: str) -> Tensor:
    return Run(model, model.settings, SeededNoise(SEED)).generate(texts, numbers, methods_of(spec)).image
