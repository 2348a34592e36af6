"""What a run refuses: plans that would be misread in silence, and methods that cannot run together."""

from collections.abc import Sequence

from varlab.engine.hooks import Accelerator, overrides
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Guidance


def refuse_clashes(accelerators: Sequence[Accelerator]) -> None:
    """Pairs that make no sense, with the reason."""
    for verb, reason in (("sublayer", "wrap the sub-layers"), ("complete", "fill the tokens left out")):
        users = [method.name for method in accelerators if overrides(method, verb, Accelerator)]
        if len(users) > 1:
            raise VarlabError(f"{users[0]} and {users[1]} cannot run together: both {reason}.")
    selecting = [method.name for method in accelerators if overrides(method, "complete", Accelerator)]
    if selecting and (whole := [method.name for method in accelerators if method.whole]):
        raise VarlabError(
            f"{whole[0]} and {selecting[0]} cannot run together: {whole[0]} restores from whole grids, and "
            f"{selecting[0]} leaves tokens out before block 0."
        )


def refuse_misread(model: NextScaleModel, stage: Stage) -> None:
    """Plans that would be misread in silence."""
    plan, tokens = stage.plan, model.schedule.lengths[stage.index]
    if plan.selection is not None and plan.selection.length != tokens:
        raise VarlabError(
            f"A selection over {plan.selection.length} tokens cannot serve stage {stage.index + 1} of {tokens}."
        )
    if stage.guided and plan.depth is not None:
        refuse_shallow(plan.depth, stage.guidance)


def refuse_shallow(depth: int, guidance: Guidance) -> None:
    """Guidance after a block that does not run."""
    if any(block >= depth for block in guidance.blocks):
        raise VarlabError(
            f"Guidance mixes the branches after block {max(guidance.blocks)}, "
            f"but only {depth} blocks run. Guide the logits (cfg_layers=0) or an earlier block."
        )
