"""The blocks of a stage, sublayer by sublayer, with what hooks see and change of them.

Tensors are written over where nobody but the engine holds them: what a sublayer returns becomes the stream where no
probe and no method listens, and layers reuse their own (GELU, gates, rotation, see ``models.layers``). A torch forward
hook of your own that keeps what it is handed must therefore clone it; probes see it before it is written over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from varlab.engine.attend import attend_rows
from varlab.engine.context import Context
from varlab.engine.counting import count
from varlab.engine.equal_prefix import text_sublayer
from varlab.engine.execution import Execution
from varlab.engine.hooks import Accelerator, Probe, overrides
from varlab.engine.rows import key_bias, on_grid, pass_bias
from varlab.engine.stage import Site, Stage
from varlab.engine.state import State
from varlab.errors import VarlabError
from varlab.models.base import EqualPrefix


@dataclass
class Blocks:
    """``store_keys``: of the last stage too, for those who read the store afterwards."""

    context: Context
    execution: Execution
    probes: Sequence[Probe]
    store_keys: bool

    def __post_init__(self) -> None:
        self.sublayer_probes = [p for p in self.probes if overrides(p, "on_sublayer", Probe)]
        self.block_probes = [p for p in self.probes if overrides(p, "on_block", Probe)]

    def run(self, state: State, stage: Stage, x: Tensor, index: Tensor | None) -> Tensor:
        """All blocks that the plan runs: the tokens that enter [R, n, C], at the positions ``index``, to those that
        leave."""
        return self.execution.blocks(
            self.context, state, stage, x, lambda entering: self._eager(state, stage, entering, index)
        )

    def _eager(self, state: State, stage: Stage, x: Tensor, index: Tensor | None) -> Tensor:
        model, plan = self.context.model, stage.plan
        positions = model.positions(stage.index, state.conditioning, index)
        for block in range(model.depth if plan.depth is None else plan.depth):
            site, x_in = Site(stage, block), x
            for name in model.sublayers:
                x = self._add_sublayer(state, Site(stage, block, name), x, index, positions)
            seen = on_grid(model, stage, x_in), on_grid(model, stage, x)
            for probe in self.block_probes:
                probe.on_block(site, *seen)
            if block in plan.watch:
                for accelerator in state.accelerators:
                    accelerator.after_block(site, *seen, plan.selection)
            if block in stage.guidance.blocks and stage.guided:
                cond, uncond = x.chunk(2)
                mixed = stage.guidance.scale * cond + (1 - stage.guidance.scale) * uncond
                x = torch.cat([mixed, mixed])
        return x

    def _add_sublayer(
        self, state: State, site: Site, x: Tensor, index: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """x + sublayer(x), with what an accelerator wraps around it. A stage with a prefix is not wrapped."""

        def compute(tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
            return self._sublayer(state, site, tokens, index, positions, chosen)

        model, plan = self.context.model, site.stage.plan
        wrapper = next((a for a in state.accelerators if overrides(a, "sublayer", Accelerator)), None)
        plain = wrapper is None or model.prefix(site.stage.index) > 0
        y = compute(x) if wrapper is None or plain else wrapper.sublayer(site, x, compute)
        seen = on_grid(model, site.stage, x), on_grid(model, site.stage, y)
        for probe in self.sublayer_probes:
            probe.on_sublayer(site, *seen)
        if site.block in plan.watch:
            for accelerator in state.accelerators:
                accelerator.after_sublayer(site, *seen, plan.selection)
        if self.sublayer_probes or state.accelerators:
            return x + y
        return y.add_(x)  # nobody else holds what a sublayer adds

    def _sublayer(
        self, state: State, site: Site, x: Tensor, index: Tensor | None, positions: Tensor | None, chosen: Tensor | None
    ) -> Tensor:
        """The sublayer itself, on all given tokens or at the places ``chosen`` [R, n] among them."""
        context, model, stage = self.context, self.context.model, site.stage
        if state.guided and model.equal_prefix.spared and model.prefix(stage.index):
            return text_sublayer(context, state, site, x)
        if chosen is not None:
            if stage.plan.selection is not None and stage.plan.selection.valid is not None:
                raise VarlabError(
                    "A per-row token choice cannot follow a selection that differs in size between samples."
                )
            x = x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
            index = chosen if index is None else index.expand(chosen.shape[0], -1).gather(1, chosen)
            if site.sublayer == model.sublayers[0]:  # attention alone reads positions
                positions = model.positions(stage.index, state.conditioning, index)
        keys_seen = [0]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if state.attended.get(site.block) == stage.index:
                raise VarlabError(f"Attention of block {site.block} was computed twice in stage {stage.index + 1}.")
            state.attended[site.block] = stage.index
            bias = None if chosen is not None else key_bias(stage, state.rows)
            store = self.store_keys or stage.from_end > 0
            keys, values, bias = state.kv.append(site.block, k, v, bias, store)
            keys_seen[0] = keys.shape[2]
            bias = pass_bias(stage, index, bias, keys.shape[2], state.rows)
            equal = state.kv.equal_prefix[site.block] if state.guided else EqualPrefix()
            return attend_rows(q, keys, values, bias, model.attention_scale, equal)

        y = self.execution.sublayer(model, site, x, state, positions, attend)
        count(context, state, site, x.shape[1], keys_seen[0])
        return y
