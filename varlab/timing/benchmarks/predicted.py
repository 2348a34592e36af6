"""What the GPU benchmark would measure on GPUs that are not here, by roofline: a table of its own, and a column beside
what was measured."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from varlab.accelerators import DENSE
from varlab.gpus import DEVICES
from varlab.timing.roofline import predict
from varlab.weights.zoo import load

FILE = "predicted.csv"
ELSEWHERE = ("h200", "a100-80", "4090", "3090")
MODELS = {"infinity-2b": "2b", "hart-0.7b": "hart"}
FACTS = ["device", "model", "weights", "precision", "batch", "assumptions"]
COLUMNS = ["method", "eager_ms", "graphs_ms", "decode_ms", "speed_up_eager", "speed_up_graphs", "work"]


def predicted(specs: Sequence[str], models: Sequence[str] = tuple(MODELS)) -> pd.DataFrame:
    """A row a device, model and method, with what was assumed: milliseconds of the transformer eagerly and in CUDA
    graphs, how many times as fast as dense, and work. Ten seconds a model and method; nothing is measured."""
    devices = [DEVICES[name] for name in ELSEWHERE]
    found = [one for name in models for one in predict(load(name, "empty", precision="bf16"), devices, specs)]
    parts = [one.table.reset_index().assign(**{name: one.facts[name] for name in FACTS}) for one in found]
    table = pd.concat(parts, ignore_index=True).rename(columns={"speed_up": "speed_up_graphs"})
    for span in ("eager", "graph", "decode"):
        table[f"{'graphs' if span == 'graph' else span}_ms"] = 1e3 * table[f"{span}_seconds"]
    return table[FACTS[:2] + COLUMNS + FACTS[2:]]


def figures(folder: Path, device: str) -> dict[str, float]:
    """Of a kept table and a device of torch's name, by the names of ``gpu.TARGETS``; {} where there is none of it."""
    if not (folder / FILE).exists():
        return {}
    table = pd.read_csv(folder / FILE)
    words = {name: name.removeprefix("NVIDIA ").removeprefix("GeForce ").split()[:2] for name in table.device.unique()}
    named = [name for name, parts in words.items() if all(part in device for part in parts if part != "SXM")]
    found: dict[str, float] = {}
    for row in table[table.device.isin(named)].itertuples():
        short = MODELS[str(row.model)]
        if row.method == DENSE:
            found |= {f"{short} transformer": row.eager_ms / 1e3, f"{short} decode": row.decode_ms / 1e3}
        elif short == "2b":
            found[f"speed-up {row.method}"] = row.speed_up_eager
    return found
