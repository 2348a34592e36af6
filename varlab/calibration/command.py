"""What ``varlab calibrate`` does: measure, fit, write tables and, for SkipVAR, the decision models."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from varlab.accelerators.decisions import save
from varlab.calibration import skipvar, sparsevar
from varlab.errors import VarlabError
from varlab.machine import device_name
from varlab.models.base import NextScaleModel

METHODS = ("skipvar", "sparsevar")
SHOWN = 12  # readings of SparseVAR that the terminal shows


def calibrate_command(
    method: str,
    model: NextScaleModel,
    prompt_set: str,
    n: int | None,
    held_out: int,
    seed: int,
    out: Path | None,
    progress: Callable[[int, int], None],
    targets: Sequence[float] = skipvar.TARGETS,
) -> tuple[list[pd.DataFrame], str]:
    """Tables to print, and a line on them."""
    about = f"{model.name}, {model.weights}, {model.precision}, {device_name(model.device)}, {prompt_set}, seed {seed}"
    if method == "sparsevar":
        found = sparsevar.calibrate(model, prompt_set, 50 if n is None else n, seed=seed, progress=progress)
        if out is not None:
            write(out, {"sparsevar-shares": found.shares, "sparsevar-edges": found.edges})
        bounds = [name for name in found.shares if name.endswith((" low", " high"))]  # too wide for a terminal
        closest = found.shares.drop(columns=bounds).sort_values("distance").head(SHOWN)
        return [closest, found.edges], f"{found.verdict()} {about}"
    fitted, table = skipvar.calibrate(model, prompt_set, 300 if n is None else n, held_out, seed, progress, targets)
    if out is not None:
        write(out, {"skipvar-measured": table, "skipvar-accuracy": fitted.accuracy})
        save(out / "skipvar.json", fitted.models)
    return [fitted.accuracy], about


def split_command(
    model: NextScaleModel, texts: Sequence[str], seed: int, out: Path, progress: Callable[[int, int], None]
) -> str:
    """Write the two halves as prompt files beside the features they rest on; what to tell the user."""
    if len(texts) < 2:
        raise VarlabError(f"A prompt set of {len(texts)} cannot be halved. Give at least 2.")
    table = skipvar.measure_features(model, texts, seed, progress)
    halves = dict(zip(("sensitive", "robust"), skipvar.split_by_frequency(table), strict=True))
    write(out, {"features": table})
    for name, half in halves.items():
        (out / f"{name}.txt").write_text("\n".join(half) + "\n", encoding="utf-8")
    ordered, first = table.hf_diff.sort_values(ascending=False), len(halves["sensitive"])
    return (
        f"{first} frequency-sensitive prompts (median HF_Diff {ordered[:first].median():.3f}) and "
        f"{len(texts) - first} robust ones ({ordered[first:].median():.3f}) by {model.name}, {model.weights}, "
        f"seed {seed}, written to {out}"
    )


def write(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
