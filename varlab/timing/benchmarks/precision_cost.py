"""What storage and arithmetic cost Infinity-2B: processor time and memory of each precision, interleaved."""

from dataclasses import dataclass

import pandas as pd
import torch

from varlab.context import fixed_context
from varlab.machine import device_name, peak_mib, reset_peak
from varlab.runs import Progress
from varlab.runs.clock import interleaved, paired_ratio, timed_run
from varlab.runs.inputs import at_least
from varlab.schedules import infinity
from varlab.timing.benchmarks.models import random_infinity
from varlab.weights.memory import account
from varlab.weights.precision import AUTO, chosen
from varlab.weights.registry import find

FULL, WIDTH = "infinity-2b", 2048
PART, ALL = 2, 32  # blocks
OTHER = "bf16"  # that the others are held against
PRECISIONS = (OTHER, "bf16-weights", "fp32")
MODELS = {"infinity-2b-width-0.06M": ("0.06M", PART), "infinity-2b-width-0.25M": ("0.25M", PART)}  # pixels, blocks
# Where asked for: a round is 12 minutes and more without instructions for bf16.
LONG = {"infinity-2b-0.06M": ("0.06M", ALL), "infinity-2b-width-1M": ("1M", PART)}
ALLOWED = {"time": 0.60, "memory": 1.10}  # of what ``AUTO`` takes, as multiples of bf16's, where bf16 is slow


@dataclass(frozen=True)
class PrecisionCost:
    """``table``: a row a precision: processor seconds of the stages of one image, their ratio to bf16's (median and
    95 % interval over rounds), the MiB that the process held at most, and the GiB of a run of the whole model by the
    account; ``auto``: what is taken here unasked, and ``why``."""

    table: pd.DataFrame
    auto: str
    why: str

    def of_auto(self) -> dict[str, float]:
        """Time and memory as multiples of bf16's: measured of two blocks, and by the account of the whole."""
        rows = self.table.set_index("precision")
        return {"time": rows.ratio[self.auto], "memory": rows.whole_gib[self.auto] / rows.whole_gib[OTHER]}


@fixed_context()
def precision_cost(model: str, rounds: int, progress: Progress | None = None) -> PrecisionCost:
    """Each pass builds the model, so that memory is that of one precision. Weights in bf16 are not packed. Of a model
    of ``LONG`` nothing warms up: the runs whose memory is measured are timed.
    """
    at_least(1, rounds=rounds)
    (pixels, blocks), device = (MODELS | LONG)[model], torch.device("cpu")
    peaks: dict[str, float] = {}

    def one(precision: str, turn: int) -> float:
        forgot = turn == 1 and model in LONG and reset_peak(device)
        built = random_infinity(blocks, WIDTH, pixels, precision)
        made = timed_run(built, built.read_prompts(["a red star above a blue ring"]), [0])[1].processor
        if forgot:
            peaks[precision] = peak_mib(device, forgot)
        return made

    timed = interleaved(PRECISIONS, one, rounds, device, progress, warm_up=model not in LONG)
    peaks |= timed.peaks
    entry = find(FULL)
    rows = []
    for precision, seconds in timed.passes.items():
        whole = account(entry, infinity(pixels), precision).total / 2**30
        ratio = paired_ratio(seconds, timed.passes[OTHER])
        peak = peaks.get(precision, float("nan"))
        rows.append([precision, rounds, pd.Series(seconds).median(), *ratio, peak, whole])
    columns = ["precision", "n", "median_s", "ratio", "low", "high", "peak_mib", "whole_gib"]
    facts = {"model": model, "weights": "random (seed 0)", "seed": 0, "width": WIDTH, "blocks": blocks,
             "device": device_name(device), "threads": torch.get_num_threads()}  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).assign(**facts)
    auto, why = chosen(entry, AUTO, "random", device.type)
    return PrecisionCost(table[[*facts, *columns]], auto, why)
