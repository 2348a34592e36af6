"""What ``varlab ablate`` does."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from varlab.errors import VarlabError, quoted
from varlab.studies.exits.ablation import Ablation, ablate, summary
from varlab.training.freqexit.command import plan_of, show_freqexit
from varlab.training.freqexit.recipes import BASES, freqexit_recipe


def ablate_command(
    model: str,
    recipes: str | None,
    seeds: str,
    exits: str,
    steps: int | None,
    pool: int | None,
    n: int,
    workers: int,
    device: str,
    folder: Path,
    out: Path,
    overwrite: bool,
    note: Callable[[str], None],
) -> str:
    """All recipes and seeds, then the table. Returns what to tell the user."""
    chosen = tuple(recipes.split()) if recipes else tuple(BASES)
    for recipe in chosen:  # mistakes are told before anything is trained
        freqexit_recipe(recipe)
    try:
        numbers = tuple(int(part) for part in seeds.split(","))
    except ValueError:
        raise VarlabError(f"--seeds takes whole numbers with commas between, not {quoted(seeds)}.") from None
    vectors = tuple(exits.split())
    asked = Ablation(plan_of(model, chosen[0], 0, steps, pool), chosen, numbers, vectors, n)
    if not ablate(asked, folder, out, workers, device, show_freqexit, note, overwrite):
        return f"stopped; the state is in {folder}; the same command goes on"
    table = pd.read_csv(out / "ablation.csv", dtype={"exits": str})
    return "\n".join([*(summary(table, vector) for vector in vectors), f"table: {out / 'ablation.csv'}"])
