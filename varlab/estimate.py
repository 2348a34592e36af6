"""Time and peak memory of a run before it: memory from shapes, time from one and two blocks of the same model.

A model of one block and one of two draw a batch on the whole schedule, probes and decode included; what the second
block adds is taken as often as the model has further blocks. The seconds are those of this machine as it is now.
"""

import os
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from varlab.machine import now
from varlab.models.base import NextScaleModel
from varlab.models.infinity import InfinityConfig
from varlab.models.memory import BYTES, GIB, RESERVE, MemoryAccount, account, available
from varlab.models.official import ModelEntry
from varlab.models.registry import find
from varlab.models.zoo import assemble, default_precision
from varlab.probes import PROBES
from varlab.runs import Job
from varlab.schedules import Schedule

ENOUGH = 2.0  # seconds after which a pass is not repeated


@dataclass(frozen=True)
class Estimate:
    """Seconds to make random weights and to draw a batch, and bytes at the peak; ``idle``: held before loading."""

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

    @property
    def peak(self) -> int:
        """Bytes resident at most."""
        return self.idle + self.memory.total + self.probe_bytes

    def table(self) -> pd.DataFrame:
        """Memory by part in GiB."""
        parts = {**vars(self.memory), "probes": self.probe_bytes, "process before": self.idle, "peak": self.peak}
        rows = [[name.replace("_", " "), f"{value / GIB:.2f}"] for name, value in parts.items()]
        return pd.DataFrame(rows, columns=["part", "GiB"])

    def line(self) -> str:
        fits = "fits" if self.peak - self.idle + RESERVE <= self.free else "does NOT fit"
        return (
            f"{self.name} on {self.schedule.name} in {self.precision}, batch {self.batch}: {self.seconds:.0f} s, "
            f"{self.load_seconds:.0f} s to make random weights, peak {self.peak / GIB:.1f} GiB; "
            f"{fits} in the {self.free / GIB:.1f} GiB that are free. Activations and decoding do not come together."
        )


def estimate(
    name: str,
    *,
    precision: str | None = None,
    pixels: str | None = None,
    ratio: float = 1.0,
    device: str = "cpu",
    batch: int = 1,
    probes: bool = True,
) -> Estimate:
    """For random weights; official ones compute as long, but are read from disk and need a text encoder."""
    entry = find(name)
    schedule = entry.schedule(pixels, ratio)
    chosen = precision or default_precision(entry, "random")
    idle, free = resident(), available(device)
    depth = entry.transformer.depth

    def build(blocks: int) -> NextScaleModel:
        return assemble(shallow(entry, blocks), "random", device=device, precision=chosen, pixels=pixels, ratio=ratio)

    loads, passes = [], []
    for blocks in (1, 2):
        start = now(torch.device(device))
        model = build(blocks)
        loads.append(now(torch.device(device)) - start)
        passes.append(_seconds(model, batch, tuple(PROBES) if probes else ()))
    return Estimate(
        name, chosen, schedule, batch,
        load_seconds=_extended(loads, depth),
        seconds=_extended(passes, depth),
        memory=account(entry, schedule, chosen, batch),
        probe_bytes=probe_bytes(entry, schedule, chosen, batch) if probes else 0,
        idle=idle,
        free=free,
    )  # fmt: skip


def shallow(entry: ModelEntry, blocks: int) -> ModelEntry:
    """The same model with fewer blocks, without files."""
    config = entry.transformer
    changes = {"depth": blocks, "chunks": 1} if isinstance(config, InfinityConfig) else {"depth": blocks}
    return replace(entry, transformer=replace(config, **changes), folder=None)  # type: ignore[arg-type]


def _extended(found: list[float], depth: int) -> float:
    one, two = found
    return one + (depth - 1) * max(0.0, two - one)


def _seconds(model: NextScaleModel, batch: int, probes: tuple[str, ...]) -> float:
    """Of one batch; the median of up to five where that is quick."""
    prompts = (
        tuple(str(i) for i in range(batch)) if model.family == "var" else tuple(f"prompt {i}" for i in range(batch))
    )
    job = Job(model, prompts, model.settings, probes=probes)
    found: list[float] = []
    while not found or (len(found) < 5 and sum(found) < ENOUGH):
        start = now(model.device)
        job.run(range(batch))
        found.append(now(model.device) - start)
    return statistics.median(found)


def probe_bytes(entry: ModelEntry, schedule: Schedule, precision: str, batch: int) -> int:
    """What all probes hold at most: token-mse keeps the output of every block for the next stage, conditional rows
    alone, and all keep norms of every token."""
    config = entry.transformer
    kept = schedule.lengths[-2] if len(schedule) > 1 else 0
    outputs = batch * config.depth * kept * config.width * BYTES[precision]
    norms = batch * config.depth * schedule.tokens * 24 * 4
    return outputs + norms


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
