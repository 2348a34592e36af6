"""What an exit saves: wall time of the transformer, interleaved with full depth, beside block calls and FLOPs."""

from collections.abc import Sequence

import pandas as pd

from varlab.accelerators import DENSE
from varlab.accelerators.exit_account import account
from varlab.accelerators.freqexit import check_exits, read_exits
from varlab.analysis.measured import Measured
from varlab.comparison import compare
from varlab.errors import VarlabError
from varlab.evaluation.classes import labels
from varlab.models.base import NextScaleModel
from varlab.models.var_model import VAR
from varlab.runs import Progress
from varlab.runs.clock import paired_ratio
from varlab.scenes.prompt_sets import PromptSet


def exit_specs(model: NextScaleModel, exits: Sequence[str]) -> list[str]:
    """Specs of exit vectors, each checked against the model."""
    if not isinstance(model, VAR):
        raise VarlabError(f"Exits are measured on VAR, whose account is known; {model.name} is of another family.")
    for text in exits:
        check_exits(read_exits(text, len(model.schedule)), model.depth, model.name)
    return [f"freqexit:exits={text}" for text in exits]


def exit_speed(
    model: NextScaleModel,
    exits: Sequence[str] | None = None,
    batch: int = 8,
    rounds: int = 7,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """One row an exit vector (default: half the depth), full depth first. Every round times all of them once.

    ``transformer_ratio``: time from the text's end to the last canvas over full depth's, median and 95 %
    bootstrap interval over rounds; ``ms_image``: median, decode included; GFLOPs are one guided image's.
    """
    chosen = exits or [str(max(1, model.depth // 2))]
    specs = exit_specs(model, chosen)
    assert isinstance(model, VAR)
    prompts = PromptSet.from_texts(labels(model, batch), "classes")
    found = compare(
        model, prompts, specs, n=batch, batch=batch, timed=rounds, seed=seed, frontier=False, progress=progress
    )
    by_turn = {name: part.sort_values("turn") for name, part in found.timings.groupby("method")}
    dense, rows = by_turn[DENSE].transformer_seconds, []
    for text, name in zip([str(model.depth), *chosen], [DENSE, *specs], strict=True):
        vector = read_exits(text, len(model.schedule))
        own, costs = by_turn[name], account(model, vector, model.settings)
        ratio = paired_ratio(own.transformer_seconds, dense)
        rows.append(
            {
                "exits": text,
                "block_calls": costs.block_calls,
                "weighted_depth": costs.weighted_depth,
                "gflops": costs.transformer_gflops,
                "paper_gflops": costs.paper_gflops,
                "transformer_ratio": ratio.estimate,
                "low": ratio.low,
                "high": ratio.high,
                "ms_image": 1000 * own.seconds.median(),
                "rounds": rounds,
                "batch": batch,
            }
        )
    return Measured(pd.DataFrame(rows), found.facts)
