"""What a run refuses: plans that would be misread in silence, and methods that cannot run together."""

from collections.abc import Sequence

from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator, overrides
from varlab.engine.plan import StagePlan, merge, stays_guided
from varlab.engine.stage import Stage
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel


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


def refuse_unfit(context: Context, accelerators: Sequence[Accelerator]) -> None:
    """Methods, started, that cannot run together with a model and settings, as far as no image is needed to tell."""
    model, guided = context.model, context.model.guided(context.settings)
    outline: list[StagePlan] = []
    for k in range(len(model.schedule)):
        stage = context.stage(k, (0,), guided)
        plan = merge([method.outline(stage) for method in accelerators], model.depth)
        refuse_cut_text(model, k, plan)
        outline.append(plan)
        if plan.action == "stop":
            break
        if plan.action == "run":
            guided = stays_guided(plan, k, guided)
            refuse_misread(model, context.stage(k, (0,), guided, plan))
    for method in accelerators:
        method.check(outline)


def refuse_cut_text(model: NextScaleModel, k: int, plan: StagePlan) -> None:
    if model.prefix(k) and (plan.action != "run" or plan.selection is not None):
        raise VarlabError(f"Stage {k + 1} carries the text of {model.name} and runs whole: skip or prune later stages.")


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
