"""What a method decided, as tables: tokens computed at each pruned stage, and how good a decision model was."""

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


def pruning_method(log: Log) -> str:
    """The first method of the log that tells which tokens it computed."""
    tree = as_log(log)
    for name, node in tree.children.items():
        if any("kept" in child for child in node.children.values()):
            return str(name)
    raise VarlabError(
        "This log says nothing of tokens left out. It takes a run with sparsevar, fastvar or a token control that "
        "engaged; see log.children."
    )


def accuracy_table(log: Log) -> pd.DataFrame:
    """How good the decision model was on held-out prompts, beside the majority class and one fixed answer.

    One row a decision: "drop" first, then "replace" where nothing is dropped. Empty for a model that does not say.
    """
    return pd.DataFrame(as_log(log)["skipvar"].attrs["decision_model"].get("accuracy", []))
