"""What the probes cost: seconds, memory and bytes on disk an image, with and without them, interleaved in one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from varlab.context import fixed_context
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.machine import now
from varlab.models.base import NextScaleModel
from varlab.probes import PROBES, build
from varlab.probes import log as logs
from varlab.runs import Progress, default_batch
from varlab.runs.clock import interleaved
from varlab.runs.folders import write_log
from varlab.runs.inputs import at_least
from varlab.scenes.prompt_sets import prompts
from varlab.weights.memory import refuse_batch

PROBED = tuple(PROBES)
WITHOUT_PREVIEWS = tuple(
    f"{name}:preview=off" if name in ("residual-spectrum", "step-redundancy") else name for name in PROBES
)
BARE = "probes, no previews"
WHOLE = "probes and previews"
VARIANTS = {"plain": (), BARE: WITHOUT_PREVIEWS, WHOLE: PROBED}
ALLOWED = 1.15  # of a small model: time with probes but without previews, as a multiple of the plain run's
# Of a full-size model, previews at an eighth of the side: time and memory as multiples of the plain run's; MB an image.
TARGETS = {"time": 1.10, "memory": 1.05, "log": 5.0}


@dataclass(frozen=True)
class ProbeCost:
    """``table``: median and quartiles of seconds an image, ratio to plain, MiB held at most, model included, by the
    process on a CPU, by torch on a GPU, and MB of the log an image; ``equal``: images bit for bit."""

    table: pd.DataFrame
    equal: bool
    batch: int

    def ratio(self, variant: str) -> float:
        """Median time over the plain run's."""
        return float(self.table.set_index("variant").loc[variant, "ratio_median"])

    def memory(self, variant: str) -> float:
        """Peak over the plain run's."""
        peaks = self.table.set_index("variant").peak_mib
        return float(peaks[variant] / peaks["plain"])

    def log_mb(self, variant: str) -> float:
        return float(self.table.set_index("variant").loc[variant, "log_mb"])


@dataclass(frozen=True)
class PairedCost:
    """``seconds``: one column a variant, one row a round; ``peaks``: MiB of each; ``log_mb``: of its log on disk, an
    image; ``equal``: images bit for bit."""

    seconds: pd.DataFrame
    peaks: dict[str, float]
    log_mb: dict[str, float]
    equal: bool


def paired_cost(
    model: NextScaleModel,
    variants: Mapping[str, tuple[str, ...]],
    rounds: int,
    batch: int,
    progress: Progress | None = None,
) -> PairedCost:
    """Each round runs every variant, a set of probes, once in turning order; one more warms up and shows memory."""
    refuse_batch(model, batch)
    texts = list(prompts("scenes", n=batch))
    images: dict[str, torch.Tensor] = {}
    sizes: dict[str, float] = {}

    def one(name: str, turn: int) -> float:
        seconds, images[name], log = _pass(model, texts, variants[name])
        if not turn:
            sizes[name] = stored_bytes(log) / 1e6 / batch
        return seconds

    timed = interleaved(list(variants), one, rounds, model.device, progress)
    first = next(iter(images.values()))
    equal = all(torch.equal(image, first) for image in images.values())
    return PairedCost(pd.DataFrame(timed.passes), timed.peaks, sizes, equal)


def stored_bytes(log: logs.Log) -> int:
    """Of a log as a run folder holds it."""
    if not log:
        return 0
    with TemporaryDirectory() as folder:
        write_log(Path(folder), logs.tree({path: group.rounded() for path, group in log.items()}, {}))
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _pass(model: NextScaleModel, texts: list[str], probes: tuple[str, ...]) -> tuple[float, torch.Tensor, logs.Log]:
    made = build(probes)
    start = now(model.device)
    out = Run(model, model.settings, SeededNoise(0), made).generate(texts, range(len(texts)))
    log: logs.Log = {}
    for probe in made:
        log |= probe.log()
    return now(model.device) - start, out.image, log


@fixed_context()
def probe_cost(
    model: NextScaleModel,
    repeats: int = 15,
    batch: int | None = None,
    progress: Progress | None = None,
    variants: Mapping[str, tuple[str, ...]] = VARIANTS,
) -> ProbeCost:
    """Wall clock of the plain run and of probes without and with previews, decode included."""
    batch = default_batch(model) if batch is None else batch
    at_least(1, repeats=repeats, batch=batch)
    found = paired_cost(model, variants, repeats, batch, progress)
    rows = []
    for name in variants:
        seconds = np.quantile(found.seconds[name] / batch, [0.25, 0.5, 0.75])
        ratios = np.quantile(found.seconds[name] / found.seconds["plain"], [0.25, 0.5, 0.75])
        rows.append([name, repeats, *seconds, *ratios, found.peaks[name], found.log_mb[name]])
    columns = ["variant", "n", "q25_s", "median_s", "q75_s", "ratio_q25", "ratio_median", "ratio_q75"]
    return ProbeCost(pd.DataFrame(rows, columns=[*columns, "peak_mib", "log_mb"]), found.equal, batch)
