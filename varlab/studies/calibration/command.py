"""What ``varlab calibrate`` does: measure, fit, write tables and, for SkipVAR, the decision models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from varlab.accelerators.decisions import always, save
from varlab.accelerators.skipvar import SkipVAR
from varlab.accelerators.sparsevar import SparseVAR
from varlab.engine.hooks import Accelerator
from varlab.errors import VarlabError, unknown
from varlab.machine import device_name
from varlab.models.base import NextScaleModel
from varlab.outputs import save_json, save_table, with_facts
from varlab.runs import Progress
from varlab.runs.origins import made_with
from varlab.scenes.prompt_sets import prompts
from varlab.studies.calibration import skipvar, sparsevar
from varlab.writing import write_text

METHODS = {  # and what they write
    "skipvar": (*with_facts("skipvar-measured.csv", "skipvar-accuracy.csv"), "skipvar.json"),
    "sparsevar": with_facts("sparsevar-shares.csv", "sparsevar-edges.csv"),
}
HALVES = with_facts("features.csv", "sensitive.txt", "robust.txt")  # what a split writes
SHOWN = 12  # readings of SparseVAR that the terminal shows


def calibrate_command(
    method: str,
    model: NextScaleModel,
    prompt_set: str | None,
    n: int | None,
    held_out: int | None,
    seed: int,
    out: Path | None,
    progress: Progress,
    targets: Sequence[float] | None = None,
) -> tuple[list[pd.DataFrame], str]:
    """Tables to print, and a line on them. None takes the method's own default."""
    check_command(method, held_out, targets)
    chosen = prompts(prompt_set, model=model).name
    about = f"{model.name}, {model.weights}, {model.precision}, {device_name(model.device)}, {chosen}, seed {seed}"
    facts = made_with(model, method=method, prompt_set=chosen, seed=seed)
    if method == "sparsevar":
        found = sparsevar.calibrate(model, chosen, n, seed=seed, progress=progress)
        if out is not None:
            tables = {"sparsevar-shares": found.shares, "sparsevar-edges": found.edges}
            write(out, tables, facts | {"n": found.facts["n"]})
        bounds = [name for name in found.shares if name.endswith((" low", " high"))]  # too wide for a terminal
        closest = found.shares.drop(columns=bounds).sort_values("distance").head(SHOWN)
        return [closest, found.edges], f"{found.verdict()} {about}"
    n, held_out, targets = 300 if n is None else n, 100 if held_out is None else held_out, targets or skipvar.TARGETS
    fitted, table = skipvar.calibrate(model, chosen, n, held_out, seed, progress, targets)
    if out is not None:
        facts |= {"n": n, "held_out": held_out, "targets": list(targets)}
        write(out, {"skipvar-measured": table, "skipvar-accuracy": fitted.accuracy}, facts)
        save(out / "skipvar.json", fitted.models)
    return [_shown(fitted.accuracy)], f"{about}; {len(table)} different texts, none in both parts"


def check_command(method: str, held_out: int | None, targets: Sequence[float] | None) -> list[Accelerator]:
    """Refuses an unknown method, and options that are another method's; what a model must be able to run."""
    if method not in METHODS:
        raise unknown("method to calibrate", method, METHODS)
    for name, given in (("--held-out", held_out), ("--targets", targets)):
        if given is not None and method != "skipvar":
            raise VarlabError(f"{name} belongs to skipvar; {method} fits no decision model. Leave it out.")
    return [SkipVAR(model=always(0, 0)) if method == "skipvar" else SparseVAR()]


def _shown(accuracy: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: the gain over the best fixed answer with its interval in one column."""
    if "gain" not in accuracy:  # nothing to judge by
        return accuracy
    columns = zip(accuracy["gain"], accuracy["gain low"], accuracy["gain high"], strict=True)
    cells = ["" if np.isnan(gain) else f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]" for gain, low, high in columns]
    named = accuracy.assign(gain=cells).drop(columns=["gain low", "gain high"])
    return named.rename(columns={"gain": "less the best always", "verdict": "the decision beats it"})


def split_command(model: NextScaleModel, texts: Sequence[str], seed: int, out: Path, progress: Progress) -> str:
    """Write the two halves as prompt files beside the features they rest on; what to tell the user."""
    if len(texts) < 2:
        raise VarlabError(f"A prompt set of {len(texts)} cannot be halved. Give at least 2.")
    table = skipvar.measure_features(model, texts, seed, progress)
    halves = dict(zip(("sensitive", "robust"), skipvar.split_by_frequency(table), strict=True))
    facts = made_with(model, n=len(texts), seed=seed, prompts=list(texts))
    write(out, {"features": table}, facts)
    for name, half in halves.items():
        write_text(out / f"{name}.txt", "\n".join(half) + "\n")
        save_json(out / f"{name}.json", facts | {"half": name, "n": len(half), "prompts": half})
    ordered, first = table.hf_diff.sort_values(ascending=False), len(halves["sensitive"])
    return (
        f"{first} frequency-sensitive prompts (median HF_Diff {ordered[:first].median():.3f}) and "
        f"{len(texts) - first} robust ones ({ordered[first:].median():.3f}) by {model.name}, {model.weights}, "
        f"seed {seed}, written to {out}"
    )


def write(folder: Path, tables: dict[str, pd.DataFrame], facts: dict[str, Any]) -> None:
    """Each table with its facts beside it: a folder may hold the tables of several methods."""
    for name, table in tables.items():
        save_table(folder / f"{name}.csv", table, digits="%.6g")
        save_json(folder / f"{name}.json", facts)
