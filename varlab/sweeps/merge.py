"""All shards as tables that are the same to the last byte however often the sweep was stopped: no date, no time."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from varlab.accelerators import DENSE
from varlab.comparison.bench import FIDELITY
from varlab.errors import VarlabError
from varlab.measures.statistics import bootstrap_interval, wilson_interval
from varlab.runs.store import Store, unsealed
from varlab.sweeps.shards import Shard
from varlab.sweeps.work import SHARDS

GROUP = ["model", "settings", "prompt_set", "seed", "method"]
DIGITS = 6


def prompt_rows(store: Store, shards: Sequence[Shard]) -> tuple[pd.DataFrame, list[Shard]]:
    """One row a model, setting, prompt set, seed, method and prompt, in the plan's order, and the shards that lack.

    Raises VarlabError where a model had other weights in some shards than in others.
    """
    held, lacking = store.child(SHARDS), list[Shard]()
    parts = []
    for shard in shards:
        text = unsealed(held.read(shard.name))
        if text is None:
            lacking.append(shard)
            continue
        part = as_rows(text)
        images = shard.images
        settings = " ".join(f"{name}={value}" for name, value in images.settings) or "own"
        part.insert(0, "method", shard.spec)
        for name, value in (
            ("seed", images.seed),
            ("prompt_set", shard.prompt_set),
            ("settings", settings),
            ("model", images.model),
        ):
            part.insert(0, name, value)
        parts.append(part.assign(precision=dict(images.loading)["precision"], threads=images.threads))
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    for model, own in rows.groupby("model") if len(rows) else ():
        if len(found := sorted(own.weights.unique())) > 1:
            raise VarlabError(
                f"The workers had different weights of {model}: {', '.join(found)}. Give them the same files."
            )
    return rows, lacking


def as_rows(text: str) -> pd.DataFrame:
    """Rows from a CSV, to the last bit: pandas' own way of reading numbers is not so by default everywhere."""
    rows = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    for name in (*FIDELITY, "correct"):
        rows[name] = [float(value or "nan") for value in rows[name]]
    return rows.astype({"prompt": int, "flops": int})


def method_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a method on each model, setting, prompt set and seed: work by the ledger, fidelity and scene score with
    95 % intervals over prompts. Not a word on latency, which is measured alone on a quiet machine."""
    if not len(rows):
        return pd.DataFrame()
    dense = rows[rows.method == DENSE].set_index([*GROUP[:4], "prompt"]).flops
    found = []
    for group, own in rows.groupby(GROUP, sort=False):
        same = dense.reindex(pd.MultiIndex.from_frame(own[[*GROUP[:4], "prompt"]])).to_numpy(float)
        row: dict[str, Any] = dict(zip(GROUP, group if isinstance(group, tuple) else (group,), strict=True))
        row |= {"n": len(own), "work_ratio": own.flops.sum() / np.nansum(same) if np.isfinite(same).all() else np.nan}
        for measure in FIDELITY:
            values = own[measure].to_numpy(float)
            interval = bootstrap_interval(values, np.nanmedian if measure == "psnr" else np.nanmean)
            low, high = (interval.estimate if np.isinf(interval.estimate) else bound for bound in interval[1:])
            row |= {measure: interval.estimate, f"{measure}_low": low, f"{measure}_high": high}
        share = wilson_interval(own.correct.astype(bool)) if own.correct.notna().all() else (np.nan,) * 3
        row |= dict(zip(("score", "score_low", "score_high"), share, strict=True))
        found.append(
            row
            | {
                name: " and ".join(sorted(map(str, own[name].unique())))
                for name in ("weights", "precision", "device", "threads")
            }
        )
    return pd.DataFrame(found)


def as_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g" if "n" in table else None).encode()
