"""How cost grows with resolution, batch, depth and width, against the engine's own account of operations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from varlab.machine import rates
from varlab.models.infinity_model import Infinity
from varlab.runs import Progress
from varlab.runs.clock import interleaved
from varlab.timing.benchmarks.dense import engine_seconds
from varlab.timing.benchmarks.models import random_infinity

BASE: dict[str, Any] = {"depth": 2, "width": 1024, "pixels": "0.25M", "batch": 1}
AXES: dict[str, tuple[Any, ...]] = {
    "pixels": ("0.06M", "0.25M", "1M"),
    "batch": (1, 2, 4),
    "depth": (1, 2, 4),
    "width": (256, 512, 1024),
}
WITHIN = (0.8, 1.25)  # measured over account, in fp32


@dataclass(frozen=True)
class Growth:
    """One row a point: ``axis`` and its ``value``, ``seconds`` measured, ``account`` in seconds, ``ratio`` of the two,
    and both relative to the smallest of the axis."""

    table: pd.DataFrame
    facts: dict[str, Any]

    @property
    def within(self) -> bool:
        """Whether time follows the account from 0.25M to 1M."""
        rows = self.table[(self.table.axis == "pixels") & (self.table.value.isin(["0.25M", "1M"]))]
        share = rows.seconds / rows.account
        return len(rows) == 2 and bool(share.between(*WITHIN).all())


def growth(precision: str = "fp32", rounds: int = 3, progress: Progress | None = None) -> Growth:
    """All points of all axes, each the best of some rounds in turning order; the rates are measured in every round.

    The account is the ledger's operations over the matrix and attention rates at the point's own width and length.
    """
    points = [BASE | {axis: value} for axis, values in AXES.items() for value in values]
    labels = [(axis, str(value)) for axis, values in AXES.items() for value in values]
    timed = interleaved(
        [str(i) for i in range(len(points))],
        lambda place, turn: _measure(precision, turn == 1, **points[int(place)]),
        rounds, torch.device("cpu"), progress, warm_up=False,
    )  # fmt: skip
    best = [np.min(found, axis=0).tolist() for found in timed.passes.values()]
    rows = [[*label, *figures] for label, figures in zip(labels, best, strict=True)]
    table = pd.DataFrame(rows, columns=["axis", "value", "seconds", "account"])
    for name in ("seconds", "account"):
        table[f"{name}_growth"] = table[name] / table.groupby("axis", sort=False)[name].transform("first")
    table["ratio"] = table.seconds / table.account
    facts = {"precision": precision, "n": rounds, "base": BASE, "weights": "random (seed 0)"}
    return Growth(table, facts)


def _measure(precision: str, cold: bool, depth: int, width: int, pixels: str, batch: int) -> tuple[float, float]:
    """Seconds of the stages, and of their operations at the rates of this moment; ``cold``: after a first pass."""
    model = random_infinity(depth, width, pixels, precision)
    if cold:
        engine_seconds(model, batch)
    return engine_seconds(model, batch), account_seconds(model, batch)


def account_seconds(model: Infinity, batch: int = 1) -> float:
    """The ledger's operations of a run over the rates of this device, at the shapes of the model's last stage."""
    conditioning = model.prepare([f"prompt {i}" for i in range(batch)], True)
    last, keys = model.schedule.lengths[-1], model.kv_capacity
    measured = rates(model.device, model.precision, model.width, tokens=last, rows=2 * batch, keys=keys)
    linear = attention = 0
    for k, tokens in enumerate(model.schedule.lengths):
        costs = [model.sublayer_cost(name, tokens, model.schedule.ends[k], conditioning) for name in model.sublayers]
        rows = 2 * batch * model.depth
        linear += sum(cost.linear for cost in costs) * rows
        linear += model.stage_cost(k, tokens, batch, 2 * batch, model.settings).linear
        attention += sum(cost.attention for cost in costs) * rows
    return measured.seconds(linear, attention)[0]
