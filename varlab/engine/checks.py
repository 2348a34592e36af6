"""What a run refuses: plans that would be misread in silence, and methods that cannot run together."""

from collections.abc import Sequence

from varlab.engine.hooks import Accelerator, overrides
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel


def refuse_clashes(accelerators: Sequence[Accelerator]) -> None:
    for verb in ("sublayer", "complete"):
        users = [a.name for a in accelerators if overrides(a, verb, Accelerator)]
        if len(users) > 1:
            raise VarlabError(f"{' and '.join(users)} both define {verb!r}; they cannot run together.")


def refuse_misread(model: NextScaleModel, stage: Stage) -> None:
    """Plans that would be misread in silence."""
    plan, tokens = stage.plan, model.schedule.lengths[stage.index]
    if plan.selection is not None and plan.selection.length != tokens:
        raise VarlabError(
            f"A selection over {plan.selection.length} tokens cannot serve stage {stage.index + 1} of {tokens}."
        )
    if stage.guided and plan.depth is not None and any(block >= plan.depth for block in stage.guidance.blocks):
        raise VarlabError(
            f"Guidance mixes the branches after block {max(stage.guidance.blocks)}, "
            f"but only {plan.depth} blocks run. Guide the logits (cfg_layers=0) or an earlier block."
        )
