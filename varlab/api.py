"""The four-line face of the package: what ``import varlab as vl`` offers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from varlab import comparison, runs
from varlab.comparison import Comparison
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.registry import find
from varlab.models.zoo import load
from varlab.probes import PROBES
from varlab.prompt_sets import PromptSet, prompts
from varlab.runs import RunResult, at_least, open_log


def sample(model: NextScaleModel | str, texts: Sequence[str] | str, **options: Any) -> RunResult:
    """Images of prompts, with probes if asked: see ``varlab.runs.sample``. A model may be given by name."""
    return runs.sample(load(model) if isinstance(model, str) else model, texts, **options)


def log(
    model: NextScaleModel | str,
    prompt_set: str | PromptSet = "scenes",
    *,
    n: int | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    probes: Sequence[str] = tuple(PROBES),
    **options: Any,
) -> xr.DataTree:
    """The log of a run: opened if the folder holds it, finished if it was interrupted, else made.

    ``folder`` defaults to one under ``runs/`` that is named after the run and its key, so that other weights or
    settings get another one. ``options`` are those of ``varlab.runs.log_run`` (batch, cfg, tau, top_k, top_p).
    More prompts cost time and disk in proportion.
    """
    at_least(1, n=n)
    chosen = prompts(prompt_set, n=n) if isinstance(prompt_set, str) else prompt_set[:n]
    loaded = load(model) if isinstance(model, str) else model
    return runs.log_run(
        loaded,
        list(chosen),
        Path(folder) if folder else None,
        probes=probes,
        prompt_set=chosen.name,
        seed=seed,
        **options,
    )


def compare(
    model: NextScaleModel | str, prompt_set: str | PromptSet = "scenes", specs: Sequence[str] = (), **options: Any
) -> Comparison:
    """Methods against the dense run in one table: see ``varlab.comparison.compare``. A model may be given by name."""
    return comparison.compare(load(model) if isinstance(model, str) else model, prompt_set, specs, **options)


def check_inputs(values: Mapping[str, Any]) -> None:
    """Refuse what a notebook with these parameters would fail on after its kernel has started.

    Looked at are the names that the shipped notebooks share: model, prompt_set, n, seed, cfg and control_n.
    """
    n = values.get("n")
    at_least(1, n=n)
    at_least(0, seed=values.get("seed"), control_n=values.get("control_n"))
    if isinstance(cfg := values.get("cfg"), float) and not math.isfinite(cfg):
        raise VarlabError(f"cfg must be a finite number, not {cfg}.")
    if model := values.get("model"):
        find(model)
    if prompt_set := values.get("prompt_set"):
        prompts(prompt_set, n=n)


__all__ = ["compare", "load", "log", "open_log", "prompts", "sample"]
