"""Speed against quality: models at exits, each judged against the same held-out scenes."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from varlab.accelerators.exit_account import account
from varlab.accelerators.freqexit import ROWS, read_exits, row_exits
from varlab.analysis.measured import Measured
from varlab.errors import VarlabError, quoted
from varlab.evaluation.classes import as_row, described, labels, measures, reference, space_of
from varlab.evaluation.scenes import drawn
from varlab.models.var_model import VAR
from varlab.runs import Progress
from varlab.studies.exits import facts_of
from varlab.studies.exits.speed import exit_specs


def scaled_rows(model: VAR, rows: Sequence[str] = ("full", "a", "b", "c", "d", "8")) -> dict[str, str]:
    """Published rows as exit vectors of this model, each once: vector -> row."""
    found: dict[str, str] = {}
    for row in rows:
        if row not in ROWS:
            raise VarlabError(f"{quoted(row)} is no published row. Known: {', '.join(ROWS)}.")
        found.setdefault(shorthand(row_exits(row, model.depth, len(model.schedule))), row)
    return found


def shorthand(exits: Sequence[int]) -> str:
    """10/10/10/6 -> "10x3/6": what ``freqexit`` reads."""
    parts = [(count, len(list(run))) for count, run in groupby(exits)]
    if len(parts) == 1:
        return str(parts[0][0])
    return "/".join(str(count) if times == 1 else f"{count}x{times}" for count, times in parts)


def exit_quality(
    models: Mapping[str, VAR],
    exits: Sequence[str],
    n: int = 128,
    seed: int = 0,
    resamples: int = 200,
    progress: Progress | None = None,
) -> Measured:
    """One row a model (by a name for its weights) and exit vector: account and measures with 95 % intervals.

    n images each, the same classes and seeds; n must exceed the 87 features, and distances of different n do not
    compare. Errors: models of different schedules, and exits that a model does not have.
    """
    first = next(iter(models.values()))
    if any(model.schedule.grids != first.schedule.grids or model.depth != first.depth for model in models.values()):
        raise VarlabError("Models at exits need one schedule and one depth to share a table.")
    specs = exit_specs(first, exits)
    space, texts, rows = space_of(reference(first, n), resamples), labels(first, n), []
    for weights, model in models.items():
        for text, spec in zip(exits, specs, strict=True):
            found = described(drawn(model, texts, seed, [spec]), texts)
            costs = account(model, read_exits(text, len(model.schedule)), model.settings)
            about = {"weights": weights, "exits": text, "n": n}
            about |= {name: getattr(costs, name) for name in ("block_calls", "weighted_depth")}
            rows.append(about | {"gflops": costs.transformer_gflops} | as_row(measures(found, space)))
            if progress is not None:
                progress(len(rows), len(models) * len(exits))
    facts = facts_of(first, texts, seed) | {"weights": "; ".join(m.weights for m in models.values())}
    return Measured(pd.DataFrame(rows), facts)


def exit_pictures(models: Mapping[str, VAR], found: Measured, n: int = 6, seed: int = 0) -> Measured:
    """Account of each row of ``exit_quality`` of these models, with a picture of each of ``spread_classes`` at the same
    noise."""
    texts = spread_classes(next(iter(models.values())), n)
    pictures = [
        np.stack(list(drawn(models[row.weights], texts, seed, exit_specs(models[row.weights], [row.exits]))))
        for row in found.table.itertuples()
    ]
    account = found.table[["weights", "exits", "block_calls", "gflops"]]
    return Measured(account, found.facts | {"pictures": texts}, np.stack(pictures))


def spread_classes(model: VAR, n: int) -> list[str]:
    """``n`` classes spread over all: neighbours are alike."""
    known = model.text.texts
    return [known[int((i + 0.5) * len(known) / n) % len(known)] for i in range(n)]
