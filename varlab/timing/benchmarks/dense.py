"""The dense engine beside the eager reference, in turning order, and beside what the same threads can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.machine import has_bf16_units, multiplies_bf16, now, rates
from varlab.models.infinity_model import Infinity
from varlab.models.packed import pack
from varlab.runs import Progress
from varlab.runs.clock import interleaved, timed_run
from varlab.timing.benchmarks.models import random_infinity
from varlab.timing.benchmarks.reference import reference

# What the engine must reach: figure -> (numerator, denominator, at most).
TARGETS = {
    "fp32 / reference": ("engine fp32", "reference fp32", 0.88),
    "bf16 / reference": ("engine bf16", "reference bf16", 0.85),
    "bf16 / fp32": ("engine bf16", "engine fp32", 0.40),
    "packed / bf16": ("engine packed", "engine bf16", 0.95),
}
NEEDS_UNITS = ("bf16 / fp32", "packed / bf16")  # judged only where the processor multiplies bf16 on matrix units (AMX)
# How much less time the reference took than the official Infinity code, measured beside it once on the same weights
# (depth 4, width 1024, one thread): what the engine gains on that code is more than the ratio says.
LEAD = {"fp32": 0.04, "bf16": 0.02}
LEAST_LINEAR = 0.95  # of the matrix rate on the same threads
PRODUCTS = ("aten::addmm", "aten::mm")
KERNELS = (*PRODUCTS, "aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu")  # torch's, of both sides


@dataclass(frozen=True)
class DenseBench:
    """``seconds``: a column a variant, a row a round, decode left out. ``table``: figures beside their targets."""

    seconds: pd.DataFrame
    table: pd.DataFrame
    facts: dict[str, Any]


def dense_bench(
    depth: int = 8, width: int = 1024, pixels: str = "1M", rounds: int = 3, progress: Progress | None = None
) -> DenseBench:
    """Engine and reference in fp32 and bf16, and the engine with packed weights, random ones, batch 1 with guidance.

    A short pass warms up. Time grows with depth, rounds and the square of the width. The reference runs in bf16 under
    autocast, as the official code does. A processor without instructions for bf16, where it takes up to 60 times as
    long and nobody would, runs fp32 alone.
    """
    device = torch.device("cpu")
    precisions = ("fp32", "bf16") if multiplies_bf16(device) else ("fp32",)
    for warm in _variants(1, width, "0.06M", precisions).values():
        warm()
    variants = _variants(depth, width, pixels, precisions)
    timed = interleaved(list(variants), lambda name, _: variants[name](), rounds, device, progress, warm_up=False)
    seconds = pd.DataFrame(timed.passes).rename_axis("round")
    shares = {precision: linear_share(width, precision) for precision in precisions}
    kernels = {precision: kernel_share(width, precision, pixels) for precision in precisions}
    facts = {"depth": depth, "width": width, "pixels": pixels, "n": rounds, "weights": "random (seed 0)"}
    units = has_bf16_units(device)
    facts |= {"precision": list(precisions), "bf16 matrix units": units}
    return DenseBench(seconds, _table(seconds, shares, kernels, units), facts)


def _variants(depth: int, width: int, pixels: str, precisions: Sequence[str]) -> dict[str, Callable[[], float]]:
    """What each variant runs -> seconds of the transformer and its sampling."""
    found: dict[str, Callable[[], float]] = {}
    for precision in precisions:
        model = random_infinity(depth, width, pixels, precision)
        found[f"engine {precision}"] = lambda model=model: engine_seconds(model)  # type: ignore[misc]
        found[f"reference {precision}"] = lambda model=model: reference_seconds(model)  # type: ignore[misc]
    if "bf16" not in precisions:
        return found
    packed = random_infinity(depth, width, pixels, "bf16")
    pack(packed.transformer)
    return found | {"engine packed": lambda: engine_seconds(packed)}


def engine_seconds(model: Infinity, batch: int = 1) -> float:
    """Of a run from the text to the last stage's canvas."""
    text = model.read_prompts([f"prompt {i}" for i in range(batch)])
    _, times = timed_run(model, text, range(batch))
    return times.spans["text", 0] + times.transformer


def reference_seconds(model: Infinity) -> float:
    text = model.read_prompts(["prompt 0"])
    start = now(model.device)
    reference(model, text, [0], SeededNoise(0), autocast=model.precision == "bf16")
    return now(model.device) - start


def linear_share(width: int, precision: str, depth: int = 2, pixels: str = "0.25M") -> float:
    """FLOP/s of the linear layers within a run of the engine, by the profiler, over the matrix rate just before it."""
    model = random_infinity(depth, width, pixels, precision)
    limit = rates(model.device, precision, width, keys=256).matmul
    run = Run(model, model.settings, SeededNoise(0))
    with torch.profiler.profile() as profile:
        run.generate(["prompt 0"], range(1))
    work = sum(work.linear_flops for work in run.ledger.stages)
    return work / _spent(profile, PRODUCTS) / limit


def kernel_share(width: int, precision: str, pixels: str, depth: int = 2) -> float:
    """Share of the reference's time within torch's products and attention. All else an engine may save, and of these
    the text's keys and values, which the reference computes anew in every stage: about half a percent of the products
    at full length. A first pass warms up: new pages take as long as many operations."""
    model = random_infinity(depth, width, pixels, precision)
    reference_seconds(model)
    with torch.profiler.profile() as profile:
        reference_seconds(model)
    return _spent(profile, KERNELS) / _spent(profile)


def _spent(profile: torch.profiler.profile, kernels: tuple[str, ...] | None = None) -> float:
    """Seconds within these operators, or within all."""
    events = [event for event in profile.key_averages() if kernels is None or event.key in kernels]
    return sum(event.self_cpu_time_total for event in events) / 1e6


def _table(seconds: pd.DataFrame, shares: dict[str, float], kernels: dict[str, float], units: bool) -> pd.DataFrame:
    """``met`` is None where there is nothing to meet: a target that asks for matrix units where there are none, one
    that was not run (n = 0), and a share that explains another figure."""
    rows: list[list[Any]] = []
    for figure, (above, below, target) in TARGETS.items():
        if above not in seconds or below not in seconds:
            asked = f"<= {target} with instructions for bf16; there are none"
            rows.append([figure, np.nan, np.nan, np.nan, 0, asked, None])
            continue
        low, median, high = np.quantile(seconds[above] / seconds[below], [0.25, 0.5, 0.75])
        applies = units or figure not in NEEDS_UNITS
        asked = f"<= {target}" if applies else f"<= {target} with bf16 matrix units; there are none"
        rows.append([figure, median, low, high, len(seconds), asked, bool(median <= target) if applies else None])
    for precision, share in shares.items():
        name = f"linear {precision} / matmul"
        rows.append([name, share, share, share, 1, f">= {LEAST_LINEAR}", bool(share >= LEAST_LINEAR)])
    for precision, share in kernels.items():
        asked = "none: the rest is what an engine of the same kernels can save"
        rows.append([f"kernels / reference {precision}", share, share, share, 1, asked, None])
    return pd.DataFrame(rows, columns=["figure", "median", "q25", "q75", "n", "target", "met"])
