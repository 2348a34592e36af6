"""Time and peak memory of a run before it: memory from shapes, time from one and two blocks of the same model.

A model of one block and one of two draw a batch, probes and decode included; what the second block adds is taken as
often as the model has further blocks. Of a short schedule that is the whole run. Of a long one the models draw a short
one with a single middle stage, and the measured parts grow as their operations do: blocks by their products, beside
attention at the rate of this device at the full length; decoding by its convolutions; all else by the tokens. The
seconds are those of this machine as it is now.
"""

import os
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from varlab import schedules
from varlab.context import fixed_context
from varlab.machine import give_back_pages, now, rates, usable
from varlab.models.base import NextScaleModel
from varlab.models.hart import HartConfig
from varlab.models.infinity import InfinityConfig
from varlab.models.var import VARConfig
from varlab.probes import PROBES
from varlab.probes.base import preview_grid
from varlab.runs import Job
from varlab.schedules import Grid, Schedule
from varlab.weights.memory import BYTES, GIB, RESERVE, MemoryAccount, account, available, largest
from varlab.weights.official import ModelEntry
from varlab.weights.options import LoadOptions
from varlab.weights.precision import chosen
from varlab.weights.registry import find
from varlab.weights.zoo import assemble

ENOUGH = 2.0  # seconds after which a pass is not repeated
LONG = 1000  # tokens of a schedule above which a short one is drawn in its place
MIDDLE = 600  # tokens at most of the one stage that is then measured, beside the first
MOST = 4  # images that are drawn at most; the time of a larger batch is taken to grow in proportion


@dataclass(frozen=True)
class Estimate:
    """Seconds to make random weights and to draw a batch, and bytes at the peak; ``idle``: those of a process that
    has loaded what a run needs, without a model, on a CPU."""

    name: str
    precision: str
    schedule: Schedule
    batch: int
    load_seconds: float
    seconds: float
    memory: MemoryAccount
    probe_bytes: int
    idle: int
    free: int
    advice: str = ""  # the largest choice that fits, where this one does not
    why: str = ""  # this precision, where nobody asked for one

    @property
    def peak(self) -> int:
        """Bytes resident at most."""
        return self.idle + self.memory.total + self.probe_bytes

    @property
    def fits(self) -> bool:
        return self.peak - self.idle + RESERVE <= self.free

    def table(self) -> pd.DataFrame:
        """Memory by part in GiB."""
        parts = {**vars(self.memory), "probes": self.probe_bytes, "process": self.idle, "peak": self.peak}
        rows = [[name.replace("_", " "), f"{value / GIB:.2f}"] for name, value in parts.items()]
        return pd.DataFrame(rows, columns=["part", "GiB"])

    def line(self) -> str:
        fits = "fits" if self.fits else "does NOT fit"
        return (
            f"{self.name} on {self.schedule.name} in {self.precision}{f' ({self.why})' if self.why else ''}, "
            f"batch {self.batch}: {self.seconds:.3g} s, "
            f"{self.load_seconds:.2g} s to make random weights, peak {self.peak / GIB:.1f} GiB; "
            f"{fits} in the {self.free / GIB:.1f} GiB that are free. Decoding comes when keys and values are gone."
            + (f" {self.advice}" if self.advice else "")
        )


@fixed_context()
def estimate(
    name: str,
    *,
    precision: str | None = None,
    pixels: str | None = None,
    ratio: float = 1.0,
    device: str = "cpu",
    batch: int = 1,
    probes: bool = True,
    strips: int | None = None,
) -> Estimate:
    """For random weights; official ones compute as long, but are read from disk and need a text encoder."""
    usable(device)
    entry = find(name)
    schedule = entry.schedule(pixels, ratio)
    drawn = short(schedule) if schedule.tokens > LONG else schedule
    images, hooks = min(batch, MOST), tuple(PROBES) if probes else ()
    precision, why = chosen(entry, precision, "random", device)
    depth = entry.transformer.depth

    def build(blocks: int) -> NextScaleModel:
        return assemble(shallow(entry, blocks, drawn), LoadOptions("random", device, precision, strips=strips))

    loads, passes, seconds = [], [], 0.0
    for blocks in (1, 2):
        start = now(torch.device(device))
        model = build(blocks)
        loads.append(now(torch.device(device)) - start)
        if drawn is not schedule and blocks == 1:
            seconds = decode_seconds(model, schedule, images, probes)
            _seconds(_blind(model), images, hooks)  # warms up: what is scaled must not hold what comes once
        passes.append(_seconds(model if drawn is schedule else _blind(model), images, hooks))
    one, further = passes[0], max(0.0, passes[1] - passes[0])
    if drawn is not schedule:
        rest = (one - further) * schedule.tokens / drawn.tokens
        further = block_seconds(model, further, drawn, schedule, images)
        one = seconds + rest + further
    del model  # before its process is weighed
    idle, free = resident() if torch.device(device).type == "cpu" else 0, available(device)
    held = probe_bytes(entry, schedule, precision, batch) if probes else 0
    made = Estimate(
        name, precision, schedule, batch,
        load_seconds=_extended(loads, depth),
        seconds=(one + (depth - 1) * further) * batch / images,
        memory=account(entry, schedule, precision, batch, strips=strips),
        probe_bytes=held,
        idle=idle,
        free=free,
        why=why,
    )  # fmt: skip
    if made.fits:
        return made
    return replace(
        made, advice=largest(entry, schedule, precision, free, batch, ratio=ratio, strips=strips, beside=held // batch)
    )


def short(schedule: Schedule) -> Schedule:
    """The first stage and the largest of at most ``MIDDLE`` tokens."""
    middle = [grid for grid in schedule.grids[1:] if grid[0] * grid[1] <= MIDDLE]
    return schedules.custom([schedule.grids[0], *middle[-1:]], f"{schedule.name}, one stage")


def shallow(entry: ModelEntry, blocks: int, schedule: Schedule | None = None) -> ModelEntry:
    """The same model with fewer blocks, without files; on another schedule if one is given."""
    config, found = entry.transformer, schedule or entry.schedule(None, 1.0)
    changes: dict[str, Any] = {"depth": blocks}
    if isinstance(config, InfinityConfig):
        changes["chunks"] = 1
    elif isinstance(config, HartConfig):
        changes["stages"] = len(found)
    elif isinstance(config, VARConfig):
        changes["sides"] = tuple(height for height, _ in found.grids)
    config = replace(config, **changes)
    return replace(entry, transformer=config, folder=None, schedule=lambda pixels, ratio: found)


def _blind(model: NextScaleModel) -> NextScaleModel:
    """The model with a decoder that draws nothing, where decoding is measured on its own."""

    def decode(self: NextScaleModel, canvas: Tensor) -> Tensor:
        height, width = (side * self.stride for side in canvas.shape[-2:])
        return canvas.new_zeros(canvas.shape[0], 3, height, width)

    return model.with_(type("Blind", (type(model),), {"decode": decode}))


@torch.inference_mode()
def decode_seconds(model: NextScaleModel, schedule: Schedule, images: int, previews: bool) -> float:
    """Of the final image, and of a preview after each stage, from the time of one at a quarter of the side."""
    final = model.latent_grid(schedule.final)
    quarter: Grid = (max(1, final[0] // 4), max(1, final[1] // 4))
    canvas = model.resize(model.new_canvas(images), quarter)
    model.decode(canvas[:1])  # warms up
    start = now(model.device)
    model.decode(canvas)
    spent = now(model.device) - start
    work = model.decode_cost(final).total
    if previews:
        work += len(schedule) * model.decode_cost(preview_grid(final, model.stride)).total
    return spent * work / model.decode_cost(quarter).total


def block_seconds(model: NextScaleModel, drawn_seconds: float, drawn: Schedule, whole: Schedule, images: int) -> float:
    """Of one block on the whole schedule, from its time on the drawn one."""
    conditioning = model.prepare(_prompts(model, images), True)

    def work(schedule: Schedule) -> tuple[int, int]:
        costs = [
            model.sublayer_cost(name, length + model.prefix(k), schedule.ends[k] + model.prefix(0), conditioning)
            for k, length in enumerate(schedule.lengths)
            for name in model.sublayers
        ]
        return sum(cost.linear for cost in costs) * 2 * images, sum(cost.attention for cost in costs) * 2 * images

    (linear, attended), (all_linear, all_attended) = work(drawn), work(whole)
    rate = rates(model.device, model.precision, model.width, tokens=MIDDLE, rows=1, keys=whole.tokens).attention
    products = max(0.0, drawn_seconds - attended / rate)
    return products * all_linear / linear + all_attended / rate


def _extended(found: list[float], depth: int) -> float:
    one, two = found
    return one + (depth - 1) * max(0.0, two - one)


def _seconds(model: NextScaleModel, batch: int, probes: tuple[str, ...]) -> float:
    """Of one batch; the median of up to five where that is quick."""
    job = Job(model, tuple(_prompts(model, batch)), model.settings, probes=probes)
    found: list[float] = []
    while not found or (len(found) < 5 and sum(found) < ENOUGH):
        start = now(model.device)
        job.run(range(batch))
        found.append(now(model.device) - start)
    return statistics.median(found)


def _prompts(model: NextScaleModel, count: int) -> list[str]:
    return [str(i) if model.family == "var" else f"prompt {i}" for i in range(count)]


def probe_bytes(entry: ModelEntry, schedule: Schedule, precision: str, batch: int) -> int:
    """What all probes hold at most: token-mse keeps the output of every block for the next stage, conditional rows
    alone, and all keep norms of every token."""
    config = entry.transformer
    kept = schedule.lengths[-2] if len(schedule) > 1 else 0
    outputs = batch * config.depth * kept * config.width * BYTES[precision]
    norms = batch * config.depth * schedule.tokens * 24 * 4
    return outputs + norms


def resident() -> int:
    """Bytes of this process in memory, without what it freed; 0 where the system does not tell."""
    give_back_pages()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
