"""From the hidden states of a stage to its codes: read-out, labels, and what fills the tokens that did not run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator, Probe, overrides
from varlab.engine.memory import upload
from varlab.engine.rows import take
from varlab.engine.stage import Stage
from varlab.engine.state import State
from varlab.errors import VarlabError
from varlab.models.base import Distribution, Draw, Reading


@dataclass
class Sampler:
    """``forced``: labels [all images, h*w, d] by stage in place of the drawn ones; ``choose``: guided logits -> labels
    in place of the model's draw; ``on_span`` hears when the transformer is done."""

    context: Context
    probes: Sequence[Probe]
    forced: Mapping[int, Tensor]
    choose: Callable[[Tensor], Tensor] | None
    on_span: Callable[[str, int], None]

    def codes(self, state: State, stage: Stage, x: Tensor) -> Tensor:
        """Codes of the whole grid [B, h*w, d] from the hidden states of the computed tokens."""
        selection = stage.plan.selection
        if selection is None:
            return self._read(state, stage, x)
        for accelerator in state.accelerators:
            if overrides(accelerator, "expand", Accelerator):
                whole = replace(stage, plan=replace(stage.plan, selection=None))
                return self._read(state, whole, accelerator.expand(stage, x, selection))
        codes = self._read(state, stage, x)
        for accelerator in state.accelerators:
            if overrides(accelerator, "complete", Accelerator):
                return accelerator.complete(stage, codes, selection)
        raise VarlabError(
            f"Stage {stage.index + 1} computes {codes.shape[1]} of {selection.length} tokens; nothing fills the rest."
        )

    def _read(self, state: State, stage: Stage, x: Tensor) -> Tensor:
        """Codes of the computed tokens [B, n, d]."""
        model, settings, selection, k = self.context.model, self.context.settings, stage.plan.selection, stage.index
        noise = noise_of(self.context, stage, None if selection is None else selection.index)
        out = model.readout(x, state.conditioning, stage.guided, stage.guidance)
        self.on_span("transformer", k)
        labels = model.draw(k, out.guided, settings, noise) if self.choose is None else self.choose(out.guided)
        for probe in self.probes:
            probe.on_logits(stage, out.cond, out.uncond, out.guided, labels)
        head_rows = state.batch * (1 if out.uncond is None else 2)
        cost = model.stage_cost(k, x.shape[1], state.batch, head_rows, settings)
        self.context.ledger.stages[k].read_out(cost)
        forced = self.forced.get(k)
        if forced is not None:
            labels = upload(forced[list(stage.samples)], x.device)
            labels = labels if selection is None else take(labels, selection.index)
        return model.realise(k, labels, Reading(x, out.guided, stage.guidance, settings, noise))


def noise_of(context: Context, stage: Stage, index: Tensor | None) -> Draw:
    """Numbers for the whole grid of a stage, gathered at the computed positions."""

    def draw(kind: str, width: int, distribution: Distribution = "uniform") -> Tensor:
        shape = (context.model.schedule.lengths[stage.index], width)
        full = upload(
            getattr(context.noise, distribution)(kind, stage.index, stage.samples, shape), context.model.device
        )
        return full if index is None else take(full, index)

    return draw
