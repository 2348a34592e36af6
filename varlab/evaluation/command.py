"""What ``varlab score`` does: samples, ceilings, a table, and the same as JSON."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from varlab.errors import unknown
from varlab.evaluation.scenes import score_ceiling, score_samples
from varlab.models.infinity_model import Infinity
from varlab.runs import device_name

BENCHMARKS = ("scenes",)


def score_command(
    benchmark: str,
    model: Infinity,
    n: int,
    per_prompt: int,
    seed: int,
    json_path: Path | None,
    progress: Callable[[float, int], None],
) -> pd.DataFrame:
    """Long table: one row a category and source (samples, reconstructions, ground truth)."""
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    ceiling = score_ceiling(model, n)
    drawn, _, chosen = score_samples(model, n, per_prompt, seed, progress=progress)
    parts = {"samples": drawn, "reconstructions": ceiling.rebuilt, "ground truth": ceiling.truth}
    table = pd.concat({name: part.summary for name, part in parts.items()}, names=["source"]).reset_index()
    if json_path is not None:
        record = {
            "benchmark": benchmark,
            "model": model.name,
            "weights": model.weights,
            "prompts": chosen.digest,
            "n": n,
            "images_per_prompt": per_prompt,
            "seed": seed,
            "settings": asdict(model.settings),
            "precision": model.precision,
            "device": device_name(model.device),
            "rows": table.to_dict("records"),
        }
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(record, indent=1))
    return table
