"""CUDA graphs for the early stages, whose kernels are shorter than their launches: an option for dense runs on a GPU.

A stage of few tokens is recorded once, all its blocks in one graph, and replayed for every further batch of the same
size. What the graph reads must stay where it was: the run copies the text's tensors into the recorded ones and keeps
one KV store. The kernels and their order are the eager ones, so results are equal bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from varlab.engine.context import Context
from varlab.engine.counting import count
from varlab.engine.execution import Execution
from varlab.engine.hooks import Accelerator, Probe, overrides
from varlab.engine.images import Images
from varlab.engine.kv import KVStore
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.models.base import Attend, NextScaleModel
from varlab.models.guidance import Settings

MOST_TOKENS = 1024  # of the stages that are recorded: the first ten of a 1M schedule


@dataclass
class Recorded:
    """What replays a stage, with the tensors it reads and writes [R, n, C]."""

    replay: Callable[[], None]
    entering: Tensor
    leaving: Tensor


@dataclass
class Graphs(Execution):
    """Records the early stages of one batch size of one model, and replays them in every further run that is given the
    same object. Refuses what it cannot replay. ``sublayers``: how those are executed that are recorded.
    """

    sublayers: Execution = field(default_factory=Execution)
    stages: dict[int, Recorded] = field(default_factory=dict)
    recorded_for: tuple[int, Settings] | None = None  # the model, by identity, and what is baked into its stages
    conditioning: Any = None
    kv: KVStore | None = None
    rows: int = 0

    def describe(self, model: NextScaleModel) -> str:
        return f"{self.sublayers.describe(model)}, CUDA graphs"

    def check(self, context: Context, probes: Sequence[Probe], accelerators: Sequence[Accelerator]) -> None:
        refuse_graphs(context.model, probes)
        if accelerators:
            raise VarlabError("CUDA graphs replay dense stages alone: leave graphs or the methods out.")

    def begin(self, context: Context, images: Images) -> None:
        """The tensors of the run go where the graphs know them."""
        asked = (id(context.model), context.settings)
        if self.kv is None:
            self.recorded_for = asked
            self.conditioning, self.kv, self.rows = images.conditioning, images.kv, images.rows
            return
        if self.recorded_for != asked:
            raise VarlabError("These graphs were recorded for another model or other settings: use new ones.")
        if self.rows != images.rows:
            raise VarlabError(f"These graphs were recorded for {self.rows} rows, not {images.rows}: use new ones.")
        own, new = tensors(self.conditioning), tensors(images.conditioning)
        if [part.shape for part in own] != [part.shape for part in new]:  # or with a mask, or without one
            raise VarlabError("These graphs were recorded for texts of another length: use new ones.")
        for here, now in zip(own, new, strict=True):
            here.copy_(now)
        self.kv.clear()
        images.conditioning, images.kv = self.conditioning, self.kv

    def sublayer(
        self, model: NextScaleModel, site: Site, x: Tensor, images: Images, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        return self.sublayers.sublayer(model, site, x, images, positions, attend)

    def blocks(
        self, context: Context, images: Images, stage: Stage, x: Tensor, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        model = context.model
        if model.schedule.lengths[stage.index] > MOST_TOKENS or stage.from_end == 0:
            return compute(x)
        recorded = self.stages.get(stage.index)
        if recorded is None:
            return self._record(context, images, stage, x, compute)
        recorded.entering.copy_(x)
        recorded.replay()
        for block in range(model.depth):
            images.kv.skip(block, x.shape[1])
            for name in model.sublayers:
                keys = images.kv.lengths[block] if name == model.sublayers[0] else 0
                count(context, images, Site(stage, block, name), x.shape[1], keys)
        return recorded.leaving

    def _record(
        self, context: Context, images: Images, stage: Stage, x: Tensor, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The first time a stage runs eagerly, for buffers and libraries to be ready; then it is recorded."""
        work, held = context.ledger.stages[stage.index], list(images.kv.held)
        counted = vars(work).copy()
        out = compute(x)
        vars(work).update(counted)
        images.kv.rewind(held)
        images.attended.clear()
        entering = x.clone()
        replay, leaving = capture(lambda: compute(entering))
        self.stages[stage.index] = Recorded(replay, entering, leaving)
        return out

    def release(self, groups: Sequence[Images]) -> None:
        """Nothing: the graphs write into these buffers again."""


def capture(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What repeats the kernels of a call, which are recorded and not run, and the tensor that they write."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        leaving = call()
    return graph.replay, leaving


def refuse_graphs(model: NextScaleModel, probes: Sequence[Probe] = ()) -> None:
    """Raises VarlabError where graphs cannot be recorded."""
    require_gpu(model.device)
    if any(map(model.prefix, range(len(model.schedule)))):
        raise VarlabError(f"CUDA graphs replay no stage that carries the text of {model.name}: leave graphs out.")
    if any(overrides(probe, verb, Probe) for probe in probes for verb in ("on_block", "on_sublayer")):
        raise VarlabError("Probes of blocks cannot listen inside a CUDA graph: leave graphs or the probes out.")


def require_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        raise VarlabError(f"CUDA graphs need a GPU, and the model is on {device}: leave graphs out.")


def tensors(conditioning: Any) -> list[Tensor]:
    """Every tensor of a conditioning, in order."""
    if isinstance(conditioning, Tensor):
        return [conditioning]
    parts = conditioning if isinstance(conditioning, list | tuple) else vars(conditioning).values()
    return [tensor for part in parts if part is not None for tensor in tensors(part)]
