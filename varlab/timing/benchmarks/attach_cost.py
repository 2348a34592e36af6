"""What ``vl.attach`` costs: processor time of a released sampler's call with and without it, interleaved in one run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from varlab import schedules
from varlab.attached import attach
from varlab.attached.standins import Released, stand_in
from varlab.context import fixed_context
from varlab.machine import device_name
from varlab.models.hart_model import Hart
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR
from varlab.runs import Progress
from varlab.runs.clock import interleaved, paired_ratio
from varlab.runs.inputs import at_least
from varlab.timing.benchmarks.models import random_infinity
from varlab.timing.benchmarks.probe_cost import BARE, PROBED, WHOLE, WITHOUT_PREVIEWS
from varlab.weights.zoo import load

PLAIN, SILENT = "plain", "no probes"
VARIANTS: dict[str, tuple[str, ...] | None] = {PLAIN: None, SILENT: (), BARE: WITHOUT_PREVIEWS, WHOLE: PROBED}
ALLOWED = 1.10  # of a call with all probes, as a multiple of the same call unattached
PROMPTS = {"infinity": "a red star above a blue ring", "hart": "a red star above a blue ring", "var": "3"}
Own = Infinity | Hart | VAR


def _hart() -> Hart:
    """HART-0.7B on its grids up to 192 pixels: a call at 1024 takes minutes on a processor."""
    whole = cast(Hart, load("hart-0.7b", init="random", precision="fp32"))
    sides = tuple(side for side, _ in whole.schedule.grids if side <= 12)
    return whole.with_(schedule=schedules.square(sides, "hart-192"))


def _random(name: str) -> Own:
    return cast(Own, load(name, init="random", precision="fp32"))


MODELS: dict[str, Callable[[], Own]] = {
    "nano-infinity": lambda: cast(Infinity, load("nano-infinity")),
    "mini-infinity": lambda: cast(Infinity, load("mini-infinity")),
}
LONG: dict[str, Callable[[], Own]] = {  # up to minutes a call: where asked for
    "infinity-2b-width": lambda: random_infinity(16, 2048, "0.06M"),  # half as deep: two copies take 9 GiB
    "hart-0.7b-192": _hart,
    "var-d16": lambda: _random("var-d16"),
    "hart-0.7b": lambda: _random("hart-0.7b"),
}


@dataclass(frozen=True)
class AttachCost:
    """``table``: a row a variant: seconds of a call of one image, its ratio to the plain call (median and 95 % interval
    over rounds), what an attachment costs once, and the MiB that the process held at most; ``equal``: images bit for
    bit of all variants."""

    table: pd.DataFrame
    equal: bool

    def ratio(self, variant: str) -> float:
        return float(self.table.set_index("variant").loc[variant, "ratio"])


@fixed_context()
def attach_cost(model: str, rounds: int, progress: Progress | None = None) -> AttachCost:
    """Each round calls the sampler with every set of probes in turning order. Time is the process's own on a processor,
    so that what others do on a shared machine counts little.

    Of a model of ``LONG`` each pass is one call, which is timed, and none is without probes.
    """
    at_least(1, rounds=rounds)
    long = model in LONG
    own = (LONG if long else MODELS)[model]()
    variants = [name for name in VARIANTS if not (long and name == SILENT)]
    theirs, images = stand_in(own), dict[str, Any]()

    def one(variant: str, turn: int) -> tuple[float, float]:
        calls, once, images[variant] = _pass(theirs, VARIANTS[variant], warm=not long)
        return calls, once

    timed = interleaved(variants, one, rounds, own.device, progress)
    figures = {name: np.array(found) for name, found in timed.passes.items()}
    equal = all(torch.equal(images[PLAIN], image) for image in images.values())
    rows = []
    for name, found in figures.items():
        ratio = paired_ratio(found[:, 0], figures[PLAIN][:, 0])
        spent = np.median(found, axis=0)
        rows.append([name, rounds, spent[0], *ratio, spent[1], timed.peaks[name], equal])
    columns = ["variant", "n", "median_s", "ratio", "low", "high", "once_s", "peak_mib", "bit_equal"]
    facts = {"model": model, "weights": own.weights, "precision": own.precision, "seed": 0, "width": own.width,
             "blocks": own.depth, "latents": own.schedule.final[0], "device": device_name(own.device),
             "threads": torch.get_num_threads()}  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).assign(**facts)
    return AttachCost(table[[*facts, *columns]], equal)


def _pass(theirs: Released, probes: tuple[str, ...] | None, warm: bool) -> tuple[float, float, torch.Tensor]:
    """Seconds of a call, after one that warms up; what attaching takes once: entering, and what the first call takes
    more, where there are two; the picture."""
    given = theirs.arguments([PROMPTS[theirs.own.family]])

    def call() -> tuple[float, Any]:
        torch.manual_seed(0)  # HART's sampler and VAR's draw from the global generator
        start = time.process_time()
        out = theirs.model.autoregressive_infer_cfg(**given)  # type: ignore[operator]
        return time.process_time() - start, out[2] if isinstance(out, tuple) else out

    with torch.inference_mode():
        if probes is None:
            seconds, image = [call() for _ in range(1 + warm)][-1]
            return seconds, float("nan"), image
        start = time.process_time()
        with attach(theirs.model, theirs.vae, probes=probes):
            entered = time.process_time() - start
            made = [call() for _ in range(1 + warm)]
    (first, _), (later, image) = made[0], made[-1]
    return later, entered + first - later, image
