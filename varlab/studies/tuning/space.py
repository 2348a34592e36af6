"""What is searched: tokens pruned by share and stage, alone and with guidance or stages left out, beside baselines."""

from varlab.comparison.baselines import baseline_specs
from varlab.models.base import NextScaleModel

KEEPS = (0.15, 0.3, 0.49, 0.7, 0.85)
PRUNED = 3  # final stages whose tokens are pruned, at most
UNGUIDED = 4  # final stages without guidance, at most
METHOD = "sparsevar"


def space_of(model: NextScaleModel) -> tuple[list[str], list[str]]:
    """(candidates, baselines) as specs; the dense run is among the baselines."""
    most = len(model.schedule) - 1
    singles = [f"{METHOD}:keep={keep:g},last={last}" for keep in KEEPS for last in range(1, min(PRUNED, most) + 1)]
    off = [f"cfg-off:last={last}" for last in range(1, min(UNGUIDED, most) + 1)] if model.guided(model.settings) else []
    dropped = [f"{single}+truncate:last=1" for single in singles if not single.endswith("last=1")]
    return [*singles, *(f"{single}+{end}" for single in singles for end in off), *dropped], baseline_specs(
        model, model.settings
    )
