"""What a run would take on a GPU that is not here: the larger of the time for its operations and for its bytes.

The work is the ledger of a run by shapes (``shapes``), the rates are published peaks (``devices``), and the shares of
them that are reached are assumptions, printed with every table. A prediction, not a measurement: it says what a
speed-up can at most be, which device holds a model, and where a stage waits for the host.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from varlab.accelerators import DENSE
from varlab.engine.ledger import Ledger, StageWork
from varlab.gpus import Device, rate_of
from varlab.machine import DIFFUSION, Rates
from varlab.models.base import NextScaleModel
from varlab.timing.shapes import shape_run
from varlab.weights.memory import BYTES, ENCODERS, GIB, RESERVE, account, largest
from varlab.weights.registry import find


@dataclass(frozen=True)
class Efficiency:
    """Assumed shares of the published peaks, and the host's time for one block in eager mode."""

    matmul: float = 0.6
    attention: float = 0.4
    bandwidth: float = 0.75
    block_seconds: float = 150e-6  # some 30 kernels of 5 microseconds

    def line(self) -> str:
        return (
            f"assumed: {self.matmul:.0%} of the peak in products (of TF32 for what a model in half precision keeps in "
            f"fp32), {self.attention:.0%} in attention, {self.bandwidth:.0%} of the bandwidth, "
            f"{self.block_seconds * 1e6:.0f} microseconds of the host a block"
        )


def moved_bytes(model: NextScaleModel, work: StageWork, weights: int, element: int) -> float:
    """Of a stage: the blocks' weights once a call, keys and values once, the fp32 stream through every sublayer."""
    stream = 2 * 4 * work.token_blocks * len(model.sublayers) * model.width
    new_keys = element * 2 * work.token_blocks * model.width
    return work.block_calls / model.depth * weights + work.kv_bytes + new_keys + stream


def block_bytes(model: NextScaleModel) -> int:
    """Of the weights of all blocks."""
    blocks: Any = model.transformer.blocks  # type: ignore[attr-defined]
    return sum(p.numel() * p.element_size() for block in blocks for p in block.parameters())


def fit(
    name: str, memory: float, precision: str, pixels: str | None, ratio: float, batch: int, strips: int | None
) -> str:
    """Whether a run with its text encoder fits in so many bytes, in one sentence, and what fits where it does not."""
    entry = find(name)
    schedule = entry.schedule(pixels, ratio)
    encoder = entry.folder is None
    needed = account(entry, schedule, precision, batch, not encoder, strips).total + RESERVE
    said = (
        f"{name} on {schedule.name} in {precision}, batch {batch}, needs {needed / GIB:.1f} GiB"
        f"{' with its text encoder' if encoder and entry.text in ENCODERS else ''}, of {memory / GIB:.1f} GiB: "
    )
    if needed <= memory:
        return f"{said}fits."
    return f"{said}does NOT fit. {largest(entry, schedule, precision, int(memory), batch, not encoder, ratio, strips)}"


@dataclass(frozen=True)
class Prediction:
    """``stages``: one row a stage and method, seconds of its operations, bytes and host; ``table``: one row a method.

    ``facts`` say what was assumed and which weights (none: shapes) were used.
    """

    stages: pd.DataFrame
    table: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)


def predict(
    model: NextScaleModel,
    devices: Sequence[Device],
    specs: Sequence[str] = (DENSE,),
    batch: int = 1,
    assumed: Efficiency = Efficiency(),
) -> list[Prediction]:
    """Of a model loaded with ``init="empty"``, in its precision, on each device; beside the dense run.

    Raises VarlabError for a method that decides by values, and a precision that a device has no units for.
    """
    peaks = [rate_of(device, model.precision.removesuffix(DIFFUSION)) for device in devices]
    ledgers = {spec: shape_run(model, spec, batch) for spec in dict.fromkeys((DENSE, *specs))}
    return [_on(model, device, peak, ledgers, batch, assumed) for device, peak in zip(devices, peaks, strict=True)]


def _on(
    model: NextScaleModel,
    device: Device,
    peak: float,
    ledgers: Mapping[str, Ledger],
    batch: int,
    assumed: Efficiency,
) -> Prediction:
    precision = model.precision
    limits = Rates(peak * assumed.matmul, peak * assumed.attention, device.bandwidth * assumed.bandwidth)
    whole = (peak if precision == "fp32" else device.tf32) * assumed.matmul
    weights, parts, rows = block_bytes(model), [], []
    for spec, ledger in ledgers.items():
        stages = _stages(model, ledger, weights, BYTES[precision], limits, whole, assumed)
        parts.append(stages.assign(method=spec))
        rows.append({"method": spec, **_sums(stages, ledger, limits)})
    table = pd.DataFrame(rows).set_index("method")
    first = table.loc[DENSE]
    table["speed_up"] = first.graph_seconds / table.graph_seconds
    table["speed_up_eager"] = first.eager_seconds / table.eager_seconds
    table["work"] = table.flops / first.flops
    facts = {
        "model": model.name, "weights": "none: shapes alone", "device": device.name, "precision": precision,
        "batch": batch, "schedule": model.schedule.name, "measured": False, "assumptions": assumed.line(),
    }  # fmt: skip
    return Prediction(pd.concat(parts).set_index(["method", "stage"]), table, facts)


def _stages(
    model: NextScaleModel, ledger: Ledger, weights: int, element: int, limits: Rates, whole: float, assumed: Efficiency
) -> pd.DataFrame:
    """``whole``: FLOP/s in fp32, of what is beside the blocks."""
    rows = []
    for k, work in enumerate(ledger.stages, start=1):
        halved = work.linear_flops - work.fp32_flops + work.overhead_flops
        moved = moved_bytes(model, work, weights, element)
        products, memory = limits.seconds(halved, work.attention_flops, moved)
        products += work.fp32_flops / whole
        host = work.block_calls * assumed.block_seconds
        bound = max(("operations", products), ("bytes", memory), ("host", host), key=lambda pair: pair[1])[0]
        rows.append([k, products, memory, host, max(products, memory), bound if work.block_calls else ""])
    return pd.DataFrame(rows, columns=["stage", "operations", "bytes", "host", "seconds", "bound"])


def _sums(stages: pd.DataFrame, ledger: Ledger, limits: Rates) -> dict[str, float]:
    """Of the transformer; decoding beside it. In graphs nobody waits for the host, eager the slower of both counts."""
    return {
        "graph_seconds": stages.seconds.sum(),
        "eager_seconds": stages[["seconds", "host"]].max(axis=1).sum(),
        "decode_seconds": ledger.decode_flops / limits.matmul,
        "flops": float(sum(work.flops for work in ledger.stages)),
    }
