"""Everything that is promised for one CUDA device, in under ten minutes: Infinity-2B and HART at 1024 x 1024, random
weights in bf16."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from varlab.engine.compiled import Compiled
from varlab.engine.graphs import Graphs
from varlab.errors import VarlabError
from varlab.machine import device_facts
from varlab.models.base import NextScaleModel
from varlab.outputs import save_json, save_table
from varlab.resources import git_state
from varlab.runs import Progress
from varlab.runs.inputs import at_least
from varlab.timing.benchmarks.execution import logits_difference
from varlab.timing.benchmarks.probe_cost import PROBED, paired_cost
from varlab.timing.latency import TABLES, Latency, latency
from varlab.weights.zoo import load

BUDGET = 540.0  # seconds after which what is left is skipped, and said to be
COMPILING = 240.0  # seconds that the part with the compiler may take, about
EARLY = 10
TEXTS = [f"prompt {i}" for i in range(4)]
# figure -> at most, in seconds, GB or as a ratio. For an H200, bf16, batch 1.
TARGETS = {
    "2b transformer": 0.30,
    "2b decode": 0.06,
    "2b first ten stages, graphs": 0.06,
    "2b peak memory": 14.0,
    "hart transformer": 0.16,
    "2b probes, time": 1.10,
    "2b probes, memory": 1.05,
    "2b probes, MB of log an image": 5.0,
    "2b probes, images that differ": 0.0,
    "2b graphs, logits apart": 0.0,
    "2b compiled, logits apart": 0.02,
}
# method -> how many times as fast as the dense run it is at least, in all spans of Infinity-2B but the text encoder and
# decoding, so that what the method itself costs counts
SPEED_UPS = {
    "sparsevar:keep=0.87,last=3": 1.05,
    "sparsevar:keep=0.49,last=3": 1.45,
    "sparsevar:keep=0.27,last=3": 1.80,
    "sparsevar:keep=0.21,last=3": 2.00,
    "truncate:last=1": 1.6,
    "truncate:last=2": 2.4,
    "truncate:last=3": 3.4,
    "cfg-off:last=3": 1.45,
    "fastvar": 2.5,
}


# The part of the benchmark that measures a figure; all speed-ups come from one.
PART_OF = {
    "2b transformer": "dense",
    "2b decode": "dense",
    "2b peak memory": "dense",
    "2b first ten stages, graphs": "graphs",
    "hart transformer": "hart",
    "2b probes, time": "probes",
    "2b probes, memory": "probes",
    "2b probes, MB of log an image": "probes",
    "2b probes, images that differ": "probes",
    "2b graphs, logits apart": "graphs",
    "2b compiled, logits apart": "compiled",
}
AUTOREGRESSIVE = ("text", "plan", "transformer", "sampling")


@dataclass
class GpuBench:
    """``figures`` by name; ``details``: the latency tables by run; ``skipped``: the parts that gave none, and why;
    ``predicted``: what the roofline said before of some figures."""

    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """Each figure beside its target; a figure that was not measured says why."""
        rows = []
        targets = [(name, "at most", most) for name, most in TARGETS.items()]
        targets += [(f"speed-up {spec}", "at least", least) for spec, least in SPEED_UPS.items()]
        for name, side, bound in targets:
            found = self.figures.get(name, math.nan)
            known, met = not math.isnan(found), found <= bound if side == "at most" else found >= bound
            why = self.skipped.get(PART_OF.get(name, "speed-up"), "not measured")
            verdict = why if not known else "met" if met else "NOT met"
            rows.append([name, _number(found), self._said(name), f"{side} {bound:g}", verdict])
        others = [name for name in self.figures if name not in {name for name, *_ in targets}]
        rows += [[name, _number(self.figures[name]), self._said(name), "-", "no target"] for name in others]
        return pd.DataFrame(rows, columns=["figure", "measured", "predicted", "target", "verdict"])

    def _said(self, name: str) -> str:
        return _number(self.predicted.get(name, math.nan))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


class Models:
    """The models under test, one at a time in the device's memory."""

    def __init__(self, make: Callable[[str], NextScaleModel]) -> None:
        self.make, self.held = make, dict[str, NextScaleModel]()

    def __getitem__(self, name: str) -> NextScaleModel:
        if name not in self.held:
            self.held.clear()
            torch.cuda.empty_cache()
            self.held[name] = self.make(name)
        return self.held[name]


def on_gpu(name: str) -> NextScaleModel:
    """An official model on random weights. Raises VarlabError without a CUDA device."""
    return load(name, "random", device="cuda", precision="bf16")


def gpu_bench(
    rounds: int = 10,
    progress: Progress | None = None,
    after_part: Callable[[GpuBench], object] = lambda made: None,
    device: str = "cuda",
    make: Callable[[str], NextScaleModel] = on_gpu,
) -> GpuBench:
    """All of it on the current CUDA device. Raises VarlabError without one.

    ``after_part`` is told of what there is after each part, so that a device that vanishes does not take it along.
    ``device`` and ``make`` (a model from "infinity-2b" or "hart-0.7b") serve a rehearsal elsewhere.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise VarlabError("The GPU benchmark needs a CUDA device, and torch sees none here.")
    at_least(1, rounds=rounds)
    made, models, start = GpuBench(), Models(make), time.perf_counter()
    made.facts = device_facts(torch.device(device)) | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "git": git_state(), "torch": torch.__version__,
        "weights": "random (seed 0)", "precision": "bf16", "n": rounds, "seconds_by_part": {},
    }  # fmt: skip
    for i, part in enumerate(PARTS):
        name, begun = part.__name__.removeprefix("_").replace("_", "-"), time.perf_counter()
        spent, allowed = begun - start, BUDGET - (COMPILING if part is _compiled else 0.0)
        if spent > allowed:
            made.skipped[name] = f"skipped: {spent:.0f} s were spent"
            continue
        try:
            part(made, models, rounds)
        except Exception as error:  # one part that fails, however, must not cost the others
            reason = (str(error).splitlines() or [""])[0]
            made.skipped[name] = f"failed: {reason}" if reason else f"failed: {type(error).__name__}"
        made.facts["seconds_by_part"][name] = round(time.perf_counter() - begun, 1)
        made.facts["seconds"] = round(time.perf_counter() - start)
        after_part(made)
        if progress is not None:
            progress(i + 1, len(PARTS))
    return made


def _span(found: Latency, span: str, stages: int | None = None, method: str = "none") -> float:
    """Median seconds of a span, whole or of its first stages."""
    rows = found.spans[(found.spans.span == span) & (found.spans.method == method)]
    rows = rows[rows.stage == 0] if stages is None else rows[rows.stage.between(1, stages)]
    return float(rows["median"].sum())


def _note(made: GpuBench, name: str, found: Latency) -> None:
    tables = {table: json.loads(getattr(found, table).to_json(orient="records")) for table in TABLES}
    made.details[name] = {"facts": found.facts, **tables}


def _dense(made: GpuBench, models: Models, rounds: int) -> None:
    found = latency(models["infinity-2b"], TEXTS[:1], ["truncate:last=1", "cfg-off:last=2"], rounds=rounds)
    _note(made, "2b batch 1", found)
    made.figures |= {"2b transformer": _span(found, "transformer"), "2b decode": _span(found, "decode")}
    peak = found.memory[found.memory.method == "none"].peak.iloc[0]
    made.figures["2b peak memory"] = float(peak) * 2**20 / 1e9


def _speed_up(made: GpuBench, models: Models, rounds: int) -> None:
    found = latency(models["infinity-2b"], TEXTS[:1], list(SPEED_UPS), rounds=rounds)
    _note(made, "2b batch 1, methods", found)
    own = {spec: sum(_span(found, span, method=spec) for span in AUTOREGRESSIVE) for spec in ("none", *SPEED_UPS)}
    for spec in SPEED_UPS:
        made.figures[f"speed-up {spec}"] = own["none"] / own[spec]
        made.figures[f"speed-up {spec}, end to end"] = _span(found, "all") / _span(found, "all", method=spec)


def _graphs(made: GpuBench, models: Models, rounds: int) -> None:
    model = models["infinity-2b"]
    found = latency(model, TEXTS[:1], rounds=rounds, graphs=True)
    _note(made, "2b batch 1, graphs", found)
    made.figures["2b graphs, logits apart"] = logits_difference(model, Graphs(), TEXTS[:1], passes=2)
    made.figures["2b first ten stages, graphs"] = _span(found, "transformer", EARLY)


def _probes(made: GpuBench, models: Models, rounds: int) -> None:
    """All probes with previews at an eighth of the side, against plain runs in turning order."""
    found = paired_cost(models["infinity-2b"], {"plain": (), "probes": PROBED}, rounds, 1)
    made.figures["2b probes, time"] = float((found.seconds["probes"] / found.seconds["plain"]).median())
    made.figures["2b probes, memory"] = found.peaks["probes"] / found.peaks["plain"]
    made.figures["2b probes, MB of log an image"] = found.log_mb["probes"]
    made.figures["2b probes, images that differ"] = float(not found.equal)
    made.details["probes"] = {"equal": found.equal, "seconds": found.seconds.to_dict("list"), "MiB": found.peaks}


def _batch(made: GpuBench, models: Models, rounds: int) -> None:
    _note(made, "2b batch 4", latency(models["infinity-2b"], TEXTS, rounds=max(2, rounds // 2)))


def _compiled(made: GpuBench, models: Models, rounds: int) -> None:
    model = models["infinity-2b"]
    found = latency(model, TEXTS[:1], rounds=rounds, compile=True)
    _note(made, "2b batch 1, compiled", found)
    made.figures["2b compiled, logits apart"] = logits_difference(model, Compiled(model), TEXTS[:1])
    made.figures["2b transformer, compiled"] = _span(found, "transformer")


def _hart(made: GpuBench, models: Models, rounds: int) -> None:
    found = latency(models["hart-0.7b"], TEXTS[:1], rounds=rounds)
    _note(made, "hart batch 1", found)
    made.figures["hart transformer"] = _span(found, "transformer")
    made.figures["hart all but text encoder and decode"] = sum(_span(found, span) for span in AUTOREGRESSIVE)
    made.figures["hart end to end"] = _span(found, "all")


# HART comes first, since the 2B then stays loaded; last come those that may fail, or take minutes, on a new device.
PARTS = (_hart, _dense, _speed_up, _probes, _batch, _graphs, _compiled)


def save(made: GpuBench, folder: Path) -> Path:
    """``DEVICE-TIME.json`` with all tables and ``DEVICE-TIME.csv`` with the figures; the time is that of its start, so
    that each run has files of its own."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in f"{made.facts['device']}-{made.facts['date']}")
    path = save_json(folder / f"{stem.strip('-')}.json", vars(made))
    save_table(path.with_suffix(".csv"), made.table())
    return path
