"""How much of the work that a method saves becomes time: dense and pruned runs in turn, the transformer's span."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.comparison import methods_of
from varlab.context import fixed_context
from varlab.engine.hooks import Accelerator, Compute
from varlab.engine.stage import Site
from varlab.machine import now, peak_mib, reset_peak
from varlab.measures.statistics import bootstrap_interval
from varlab.models.base import NextScaleModel
from varlab.runs.clock import interleaved, timed_run
from varlab.runs.inputs import at_least
from varlab.weights.memory import refuse_batch

TARGETS = {"share of the saving": 0.85, "overhead of the method's own verbs": 0.03, "memory": 1.0}
VERBS = ("plan", "after_sublayer", "after_block", "complete", "expand", "end_stage")


def timed(method: Accelerator, device: torch.device) -> Accelerator:
    """The same method; ``spent[0]`` adds up the seconds inside its own verbs, the sublayers that it runs left out."""
    kind, spent = type(method), [0.0]

    def wrapped(verb: str) -> Callable[..., Any]:
        own = getattr(kind, verb)

        def call(self: Accelerator, *given: Any) -> Any:
            start = now(device)
            answer = own(self, *given)
            spent[0] += now(device) - start
            return answer

        return call

    def sublayer(self: Accelerator, site: Site, x: Tensor, compute: Compute) -> Tensor:
        inner = 0.0

        def counted(*given: Any, **named: Any) -> Tensor:
            nonlocal inner
            start = now(device)
            y = compute(*given, **named)
            inner += now(device) - start
            return y

        start = now(device)
        y: Tensor = kind.sublayer(self, site, x, counted)
        spent[0] += now(device) - start - inner
        return y

    changed = {verb: wrapped(verb) for verb in VERBS if getattr(kind, verb) is not getattr(Accelerator, verb)}
    if kind.sublayer is not Accelerator.sublayer:
        changed["sublayer"] = sublayer
    twin = copy.copy(method)
    twin.__class__ = type(kind.__name__, (kind,), changed)  # forks of the method stay timed
    vars(twin)["spent"] = spent
    return twin


@dataclass(frozen=True)
class Savings:
    """``rounds``: one row a round and method. ``table``: the figures of the method, with 95 % intervals over rounds,
    beside their targets. ``stages``: seconds of each stage by method, medians."""

    rounds: pd.DataFrame
    table: pd.DataFrame
    stages: pd.DataFrame


@fixed_context()
def savings(
    model: NextScaleModel,
    spec: str = "sparsevar:keep=0.25,last=3",
    repeats: int = 5,
    batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Savings:
    """Dense and pruned runs in turn, one round more to warm up. Span: the text's end to the last canvas.

    Share of the saving: (1 - time ratio) / (1 - ratio of the work), as the ledger counts it. Overhead of the method's
    own verbs (scores, decisions, fills): over the dense time; what the engine does to gather and scatter tokens is not
    in it, only in the time ratio. Processor time is that of all threads of this process, so that a loaded machine does
    not count; it says nothing on a GPU. Memory: peak of the pruned run over the dense one's.
    """
    at_least(1, repeats=repeats, batch=batch)
    refuse_batch(model, batch)
    timed = interleaved(
        [DENSE, spec], lambda name, turn: _pass(model, name, batch, turn), repeats, model.device, progress
    )
    passes = [made for found in timed.passes.values() for made in found]
    rounds = pd.DataFrame([row for row, _ in passes])
    stages = pd.DataFrame([{"method": row["method"]} | seconds for row, seconds in passes])
    by_stage = stages.groupby("method", sort=False).median().T.rename_axis("stage")
    return Savings(rounds, _table(rounds, spec), by_stage)


def _pass(model: NextScaleModel, name: str, batch: int, turn: int) -> tuple[dict[str, Any], dict[str, float]]:
    methods = [timed(method, model.device) for method in methods_of(name)]
    forgot = reset_peak(model.device)
    _, times = timed_run(model, [f"prompt {i}" for i in range(batch)], range(batch), methods)
    row = {
        "method": name,
        "turn": turn,
        "seconds": times.transformer,
        "processor_seconds": times.processor,
        "overhead_seconds": sum(vars(method)["spent"][0] for method in methods),
        "flops": times.ledger.transformer_flops,
        "peak_mib": peak_mib(model.device, forgot),
    }
    return row, {str(k + 1): seconds for k, seconds in times.stages.items()}


def _table(rounds: pd.DataFrame, spec: str) -> pd.DataFrame:
    """Ratios paired within a round, so that a drift of the machine falls on both."""
    plain, own = (rounds[rounds.method == name].set_index("turn") for name in (DENSE, spec))
    work = own.flops.iloc[0] / plain.flops.iloc[0]
    wall, processor = (own[name] / plain[name] for name in ("seconds", "processor_seconds"))
    saved = 1 - work if work < 1 else np.nan
    measured = {
        "time ratio": wall,
        "processor time ratio": processor,
        "share of the saving": (1 - wall) / saved,
        "share of the saving, processor time": (1 - processor) / saved,
        "overhead of the method's own verbs": own.overhead_seconds / plain.seconds,
        "memory": own.peak_mib / plain.peak_mib,
    }
    rows = [("work ratio", len(own), work, work, work, "")]
    for name, values in measured.items():
        found = bootstrap_interval(values, np.nanmedian)
        target = TARGETS.get(name)
        bound = "" if target is None else f"{'>=' if name == 'share of the saving' else '<='} {target}"
        rows.append((name, len(values), *found, bound))
    return pd.DataFrame(rows, columns=["figure", "n", "median", "low", "high", "target"])
