"""What a method decided, as tables: tokens computed at each pruned stage, and how good a decision model was."""

from typing import Any

import numpy as np
import pandas as pd

from varlab.analysis.logs import Log, as_log, dataset, summary
from varlab.errors import VarlabError


def kept_share_table(log: Log) -> pd.DataFrame:
    """Share of the tokens computed at each pruned stage: stage, mean, low, high (95 % over prompts), n.

    all_blocks: the mean share over all blocks. Less than that is computed in the blocks that prune, where some do not.
    """
    rows = []
    for k in pruned_stages(log):
        data = dataset(log, f"{pruning_method(log)}/stage-{k:02d}")
        kept = data["kept"].mean(("y", "x"))
        everywhere = data.get("share_all", kept)  # most methods prune in every block
        rows.append(summary(kept).assign(stage=k, all_blocks=float(everywhere.mean())))
    return pd.concat(rows, ignore_index=True)[["stage", "mean", "low", "high", "n", "all_blocks"]]


def pruned_stages(log: Log) -> list[int]:
    """Stages, counted from 1, of which the method tells the tokens it computed."""
    node = as_log(log)[pruning_method(log)]
    return sorted(int(name.removeprefix("stage-")) for name in node.children if "kept" in node[name])


def tells_tokens(log: Log) -> bool:
    """Whether a log says which tokens were computed."""
    return _pruning(log) is not None


def _pruning(log: Log) -> str | None:
    found = [name for name, node in as_log(log).children.items() if any("kept" in c for c in node.children.values())]
    return str(found[0]) if found else None


def pruning_method(log: Log) -> str:
    """The first method of the log that tells which tokens it computed."""
    if (name := _pruning(log)) is not None:
        return name
    raise VarlabError(
        "This log says nothing of tokens left out. It takes a run with sparsevar, fastvar or a token control that "
        "engaged; see log.children."
    )


def accuracy_table(log: Log) -> pd.DataFrame:
    """How good the decision model was on held-out prompts, beside the majority class and one fixed answer.

    One row a decision: "drop" first, then "replace" where nothing is dropped. Empty for a model that does not say. No
    verdict, which is for ``claims`` to give: files keep that of the version that fitted them.
    """
    rows = as_log(log)["skipvar"].attrs["decision_model"].get("accuracy", [])
    return pd.DataFrame(rows).drop(columns="verdict", errors="ignore")


def decision_regions(log: Log, side: int = 120) -> pd.DataFrame | None:
    """What SkipVAR's two models decide on a grid of features around those of the log: hf_diff, hf_ratio, decision.

    None for a log that does not hold the models.
    """
    data = dataset(log, "skipvar")
    models = data.attrs["decision_model"]
    if "skip" not in models:
        return None
    axes = []
    for name in ("hf_diff", "hf_ratio"):
        low, high = float(data[name].min()), float(data[name].max())
        room = 0.15 * (high - low) or 0.1
        axes.append(np.linspace(low - room, high + room, side))
    points = np.stack([grid.ravel() for grid in np.meshgrid(*axes)], 1)
    dropped, replaced = (_decided(models[part], points) for part in ("skip", "uncond"))
    names = [f"drop {n}" if n else f"replace {m}" if m else "dense" for n, m in zip(dropped, replaced, strict=True)]
    return pd.DataFrame({"hf_diff": points[:, 0], "hf_ratio": points[:, 1], "decision": names})


def _decided(model: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """The class of each row of features by a standardised logistic regression."""
    classes = np.array(model["classes"])
    if len(classes) == 1:
        return np.repeat(classes, len(points))
    scores = (points - model["mean"]) / model["scale"] @ np.array(model["coef"]).T + model["intercept"]
    return classes[(scores[:, 0] > 0).astype(int) if len(classes) == 2 else scores.argmax(1)]
