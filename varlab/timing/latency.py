"""Where the time of an image goes: spans, methods in turning order, and what the device could do at best."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from varlab.accelerators import DENSE
from varlab.comparison import methods_of
from varlab.context import fixed_context
from varlab.engine.compiled import Compiled
from varlab.engine.execution import Execution
from varlab.engine.graphs import Graphs, refuse_graphs
from varlab.errors import VarlabError
from varlab.machine import Rates, clocks, device_name, rates
from varlab.models.base import NextScaleModel
from varlab.outputs import save_json
from varlab.runs import Progress
from varlab.runs.clock import SPANS, Times, interleaved, paired_ratio, timed_run
from varlab.runs.inputs import at_least
from varlab.timing.roofline import block_bytes, moved_bytes
from varlab.weights.memory import BYTES, refuse_batch

LAUNCH_BOUND = 0.9  # a span is launch-bound where issuing it takes so much of its time on the device
TABLES = ("spans", "stages", "memory")
RATIO = ["ratio", "ratio_low", "ratio_high"]


def one_pass(
    model: NextScaleModel, texts: Sequence[Any], spec: str, seed: int, execution: Execution | None = None
) -> Times:
    """A batch by one method (``none``, or several joined by ``+``), timed span by span; eager by default."""
    return timed_run(model, texts, range(len(texts)), methods_of(spec), seed=seed, execution=execution)[1]


@dataclass(frozen=True)
class Latency:
    """``spans``: one row a method, span and stage (0: the whole of a span; span ``all``: end to end), in seconds a
    batch; ``ratio`` to the dense run of the same round, with its interval. ``stages``: the roofline of each.
    ``memory``: MiB by part. ``facts``: what was measured, where and how."""

    spans: pd.DataFrame
    stages: pd.DataFrame
    memory: pd.DataFrame
    facts: dict[str, Any]

    def shown(self) -> pd.DataFrame:
        """Milliseconds a batch by span and method, median and half the interquartile range; ratio to the dense run
        of the same round: median and 95 % bootstrap interval over rounds."""
        whole = self.spans[self.spans.stage == 0]
        figures = zip(whole["median"], whole.iqr, strict=True)
        texts = [f"{1e3 * m:.1f}" if np.isnan(iqr) else f"{1e3 * m:.1f} ± {5e2 * iqr:.1f}" for m, iqr in figures]
        cells = whole.assign(ms=texts)
        names = list(dict.fromkeys(whole.method))
        table = cells.pivot(index="span", columns="method", values="ms").loc[[*SPANS, "all"], names]
        table.loc["ratio"] = [_ratio(*row) for row in whole[whole.span == "all"][RATIO].to_numpy()]
        return table.rename_axis(None, axis=1).reset_index()


@fixed_context()
def latency(
    model: NextScaleModel,
    texts: Sequence[Any],
    specs: Sequence[str] = (),
    *,
    rounds: int = 10,
    seed: int = 0,
    compile: bool = False,
    graphs: bool = False,
    progress: Progress | None = None,
) -> Latency:
    """The dense run and each method, in turning order, on one batch of all ``texts``; one round more warms up.

    More rounds narrow the medians and cost time in proportion. compile: all through torch.compile; graphs: the early
    stages of the dense run, alone, through CUDA graphs. Both are refused where they do not apply, and so is a batch
    that does not fit.
    """
    at_least(1, rounds=rounds)
    if graphs and any(name != DENSE for name in specs):
        raise VarlabError("CUDA graphs replay the dense run alone: leave graphs or the methods out.")
    refuse_batch(model, len(texts))
    if graphs:
        refuse_graphs(model)
    execution = Compiled(model) if compile else Execution()
    execution = Graphs(execution) if graphs else execution
    names = list(dict.fromkeys([DENSE, *specs]))
    measured = rates(model.device, model.precision, model.width, head_width(model))
    before = clocks(model.device)
    timed = interleaved(
        names, lambda name, _: one_pass(model, texts, name, seed, execution), rounds, model.device, progress
    )
    passes = timed.passes
    facts = {
        "model": model.name, "weights": model.weights, "precision": model.precision,
        "device": device_name(model.device), "threads": torch.get_num_threads(), "batch": len(texts), "seed": seed,
        "n": rounds, "execution": execution.describe(model),
        "rates": vars(measured),
        "clocks_before": before, "clocks_after": clocks(model.device),
    }  # fmt: skip
    spans = pd.concat([_spans(name, passes[name], passes[DENSE]) for name in names], ignore_index=True)
    stages = pd.concat([_stages(model, name, passes[name], measured) for name in names], ignore_index=True)
    return Latency(spans, stages, _memory(model, passes, timed.peaks), facts)


def _ratio(median: float, low: float, high: float) -> str:
    return f"{median:.3f}" if np.isnan(low) or low == high else f"{median:.3f} [{low:.3f}, {high:.3f}]"


def head_width(model: NextScaleModel) -> int:
    """Channels of a head of attention."""
    return model.width // model.transformer.config.heads  # type: ignore[attr-defined]


def _spans(name: str, passes: list[Times], dense: list[Times]) -> pd.DataFrame:
    keys = dict.fromkeys(key for made in passes for key in made.spans)
    rows = [(*key, [made.spans.get(key, 0.0) for made in passes]) for key in keys if key[0] in SPANS]
    rows = [(span, stage + 1, values) for span, stage, values in rows]
    for span in SPANS:
        totals = [sum(t for (s, _), t in made.spans.items() if s == span) for made in passes]
        rows.append((span, 0, totals))
    rows.append(("all", 0, [made.seconds for made in passes]))
    ratio = paired_ratio([own.seconds for own in passes], [other.seconds for other in dense])
    found = []
    for span, stage, values in rows:
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        whole = ratio if span == "all" else (np.nan,) * 3
        spread = high - low if len(values) > 1 else np.nan
        found.append([name, span, stage, median, spread, len(values), *whole])
    return pd.DataFrame(found, columns=["method", "span", "stage", "median", "iqr", "n", *RATIO])


def _stages(model: NextScaleModel, name: str, passes: list[Times], limits: Rates) -> pd.DataFrame:
    """Median seconds of the transformer beside the least time for its operations and for its bytes."""
    element, weights = BYTES[model.precision], block_bytes(model)
    rows = []
    for k, work in enumerate(passes[0].ledger.stages):
        key = ("transformer", k)
        seconds = float(np.median([made.spans.get(key, np.nan) for made in passes]))
        issued = float(np.median([made.issued.get(key, np.nan) for made in passes]))
        moved = moved_bytes(model, work, weights, element)
        flop_limit, byte_limit = limits.seconds(work.linear_flops, work.attention_flops, moved)
        bound = issued >= LAUNCH_BOUND * seconds if model.device.type == "cuda" else None
        rows.append([name, k + 1, seconds, flop_limit, byte_limit, max(flop_limit, byte_limit) / seconds, bound])
    columns = ["method", "stage", "seconds", "flop_limit", "byte_limit", "share_of_limit", "launch_bound"]
    return pd.DataFrame(rows, columns=columns)


def launch_bound_share(stages: pd.DataFrame) -> float:
    """Of the transformer's time, the share of stages that wait for the host; NaN on a CPU."""
    if stages.launch_bound.isna().any():
        return float("nan")
    return float(stages.seconds[stages.launch_bound.astype(bool)].sum() / stages.seconds.sum())


def _memory(model: NextScaleModel, passes: dict[str, list[Times]], peaks: dict[str, float]) -> pd.DataFrame:
    """MiB of the weights by part, of keys and values at the end, and at the peak of the first pass with what the
    process holds."""
    parts = {
        part: sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())) / 2**20
        for part in ("transformer", "tokenizer")
        if (module := getattr(model, part, None)) is not None
    }
    rows = []
    for name, made in passes.items():
        held = max(work.kv_bytes for work in made[0].ledger.stages) / 2**20
        rows.append({"method": name, **parts, "keys and values": held, "peak": peaks[name]})
    return pd.DataFrame(rows)


def save(found: Sequence[Latency], path: Path) -> None:
    """All tables of some measurements as JSON."""
    entries = [
        {"facts": one.facts} | {name: json.loads(getattr(one, name).to_json(orient="records")) for name in TABLES}
        for one in found
    ]
    save_json(path, entries)
