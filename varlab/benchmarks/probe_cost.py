"""What the probes cost: seconds an image with and without them, interleaved in one run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.machine import now, peak_mib
from varlab.models.base import NextScaleModel
from varlab.probes import PROBES, build
from varlab.prompt_sets import prompts
from varlab.runs import at_least, default_batch

WITH_PREVIEWS = tuple(PROBES)
WITHOUT_PREVIEWS = tuple(
    f"{name}:preview=off" if name in ("residual-spectrum", "step-redundancy") else name for name in PROBES
)
BARE = "probes, no previews"
VARIANTS = {"plain": (), BARE: WITHOUT_PREVIEWS, "probes and previews": WITH_PREVIEWS}
ALLOWED = 1.15  # time with probes but without previews, as a multiple of the plain run's


@dataclass(frozen=True)
class ProbeCost:
    """``table``: median and quartiles of seconds an image, and ratio to plain; ``equal``: images bit for bit.

    ``peak``: MiB held at most, model included: by the process on a CPU, by torch on a GPU.
    """

    table: pd.DataFrame
    equal: bool
    batch: int
    peak: float

    @property
    def ratio(self) -> float:
        """Median time with probes but without previews, over the plain run's."""
        return float(self.table.set_index("variant").loc[BARE, "ratio_median"])


def _pass(model: NextScaleModel, texts: list[str], probes: tuple[str, ...]) -> tuple[float, torch.Tensor]:
    made = build(probes)
    start = now(model.device)
    out = Run(model, model.settings, SeededNoise(0), made).generate(texts, range(len(texts)))
    for probe in made:
        probe.log()
    return now(model.device) - start, out.image


def probe_cost(
    model: NextScaleModel,
    repeats: int = 15,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeCost:
    """Each round runs every variant once, in turning order; one round more warms up. Wall clock, decode included."""
    batch = default_batch(model) if batch is None else batch
    at_least(1, repeats=repeats, batch=batch)
    texts = list(prompts("scenes", n=batch))
    names = list(VARIANTS)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    images: dict[str, torch.Tensor] = {}
    for turn in range(repeats + 1):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            taken, images[name] = _pass(model, texts, VARIANTS[name])
            if turn:
                seconds[name].append(taken / batch)
        if progress is not None:
            progress(turn, repeats)
    plain = np.array(seconds["plain"])
    rows = []
    for name in names:
        low, median, high = np.quantile(seconds[name], [0.25, 0.5, 0.75])
        ratios = np.quantile(np.array(seconds[name]) / plain, [0.25, 0.5, 0.75])
        rows.append([name, repeats, low, median, high, *ratios])
    columns = ["variant", "n", "q25_s", "median_s", "q75_s", "ratio_q25", "ratio_median", "ratio_q75"]
    equal = all(torch.equal(image, images["plain"]) for image in images.values())
    return ProbeCost(pd.DataFrame(rows, columns=columns), equal, batch, peak_mib(model.device))
