"""From the hidden states of a stage to its codes: read-out, labels, and what fills the tokens that did not run."""

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from varlab.engine.hooks import Accelerator, overrides
from varlab.engine.memory import upload
from varlab.engine.rows import take
from varlab.engine.stage import Stage
from varlab.engine.state import State
from varlab.errors import VarlabError
from varlab.models.base import Distribution, Draw, Reading

if TYPE_CHECKING:
    from varlab.engine.loop import Run


def codes_of(run: "Run", state: State, stage: Stage, x: Tensor) -> Tensor:
    """Codes of the whole grid [B, h*w, d] from the hidden states of the computed tokens."""
    selection = stage.plan.selection
    if selection is None:
        return _read(run, state, stage, x)
    for accelerator in state.accelerators:
        if overrides(accelerator, "expand", Accelerator):
            whole = replace(stage, plan=replace(stage.plan, selection=None))
            return _read(run, state, whole, accelerator.expand(stage, x, selection))
    codes = _read(run, state, stage, x)
    for accelerator in state.accelerators:
        if overrides(accelerator, "complete", Accelerator):
            return accelerator.complete(stage, codes, selection)
    raise VarlabError(
        f"Stage {stage.index + 1} computes {codes.shape[1]} of {selection.length} tokens; nothing fills the rest."
    )


def _read(run: "Run", state: State, stage: Stage, x: Tensor) -> Tensor:
    """Codes of the computed tokens [B, n, d]."""
    selection, k = stage.plan.selection, stage.index
    noise = noise_of(run, stage, None if selection is None else selection.index)
    out = run.model.readout(x, state.conditioning, stage.guided, stage.guidance)
    run.on_span("transformer", k)
    labels = run.model.draw(k, out.guided, run.settings, noise) if run.choose is None else run.choose(out.guided)
    for probe in run.probes:
        probe.on_logits(stage, out.cond, out.uncond, out.guided, labels)
    head_rows = state.batch * (1 if out.uncond is None else 2)
    cost = run.model.stage_cost(k, x.shape[1], state.batch, head_rows, run.settings)
    run.ledger.stages[k].linear_flops += cost.linear
    forced = run.forced.get(k)
    if forced is not None:
        labels = forced[list(stage.samples)].to(x.device)
        labels = labels if selection is None else take(labels, selection.index)
    return run.model.realise(k, labels, Reading(x, out.guided, stage.guidance, run.settings, noise))


def noise_of(run: "Run", stage: Stage, index: Tensor | None) -> Draw:
    """Numbers for the whole grid of a stage, gathered at the computed positions."""

    def draw(kind: str, width: int, distribution: Distribution = "uniform") -> Tensor:
        shape = (run.model.schedule.lengths[stage.index], width)
        full = upload(getattr(run.noise, distribution)(kind, stage.index, stage.samples, shape), run.model.device)
        return full if index is None else take(full, index)

    return draw
