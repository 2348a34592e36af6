"""What the probes cost: seconds an image with and without them, interleaved in one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.inputs import at_least
from varlab.machine import now, peak_mib, reset_peak
from varlab.models.base import NextScaleModel
from varlab.probes import PROBES, build
from varlab.prompt_sets import prompts
from varlab.runs import default_batch

PROBED = tuple(PROBES)
WITHOUT_PREVIEWS = tuple(
    f"{name}:preview=off" if name in ("residual-spectrum", "step-redundancy") else name for name in PROBES
)
BARE = "probes, no previews"
VARIANTS = {"plain": (), BARE: WITHOUT_PREVIEWS, "probes and previews": PROBED}
ALLOWED = 1.15  # time with probes but without previews, as a multiple of the plain run's


@dataclass(frozen=True)
class ProbeCost:
    """``table``: median and quartiles of seconds an image, ratio to plain, and MiB held at most, model included, by the
    process on a CPU, by torch on a GPU; ``equal``: images bit for bit."""

    table: pd.DataFrame
    equal: bool
    batch: int

    @property
    def ratio(self) -> float:
        """Median time with probes but without previews, over the plain run's."""
        return float(self.table.set_index("variant").loc[BARE, "ratio_median"])


@dataclass(frozen=True)
class Interleaved:
    """``seconds``: one column a variant, one row a round; ``peaks``: MiB of each; ``equal``: images bit for bit."""

    seconds: pd.DataFrame
    peaks: dict[str, float]
    equal: bool


def interleaved(
    model: NextScaleModel,
    variants: Mapping[str, tuple[str, ...]],
    rounds: int,
    batch: int,
    progress: Callable[[float, int], None] | None = None,
) -> Interleaved:
    """Each round runs every variant, a set of probes, once in turning order; one round more warms up."""
    texts = list(prompts("scenes", n=batch))
    names, rows = list(variants), list[dict[str, float]]()
    peaks: dict[str, list[float]] = {name: [] for name in names}
    images: dict[str, torch.Tensor] = {}
    for turn in range(rounds + 1):
        row = {}
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            forgot = reset_peak(model.device)
            row[name], images[name] = _pass(model, texts, variants[name])
            peaks[name].append(peak_mib(model.device, forgot))
        rows.append(row)
        if progress is not None:
            progress(turn, rounds)
    first = next(iter(images.values()))
    equal = all(torch.equal(image, first) for image in images.values())
    seconds = pd.DataFrame(rows[1:], columns=names)
    return Interleaved(seconds, {name: float(np.median(found[1:])) for name, found in peaks.items()}, equal)


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
    progress: Callable[[float, int], None] | None = None,
) -> ProbeCost:
    """Wall clock of the plain run and of probes without and with previews, decode included."""
    batch = default_batch(model) if batch is None else batch
    at_least(1, repeats=repeats, batch=batch)
    found = interleaved(model, VARIANTS, repeats, batch, progress)
    rows = []
    for name in VARIANTS:
        seconds = np.quantile(found.seconds[name] / batch, [0.25, 0.5, 0.75])
        ratios = np.quantile(found.seconds[name] / found.seconds["plain"], [0.25, 0.5, 0.75])
        rows.append([name, repeats, *seconds, *ratios, found.peaks[name]])
    columns = ["variant", "n", "q25_s", "median_s", "q75_s", "ratio_q25", "ratio_median", "ratio_q75", "peak_mib"]
    return ProbeCost(pd.DataFrame(rows, columns=columns), found.equal, batch)
