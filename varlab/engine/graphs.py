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

from varlab.engine.counting import count
from varlab.engine.hooks import Accelerator
from varlab.engine.kv import KVStore
from varlab.engine.loop import Run
from varlab.engine.plan import StagePlan
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation, State
from varlab.errors import VarlabError
from varlab.models.guidance import Settings

MOST_TOKENS = 1024  # of the stages that are recorded: the first ten of a 1M schedule


@dataclass
class Recorded:
    """What replays a stage, with the tensors it reads and writes [R, n, C]."""

    replay: Callable[[], None]
    entering: Tensor
    leaving: Tensor


@dataclass
class Graphs:
    """What is recorded for one batch size of one model; give the same object to further runs."""

    stages: dict[int, Recorded] = field(default_factory=dict)
    made_for: tuple[int, Settings] | None = None  # the model, by identity, and what is baked into its stages
    conditioning: Any = None
    kv: KVStore | None = None
    rows: int = 0


@dataclass
class GraphedRun(Run):
    """A run that records its early stages in ``graphs`` and replays them. Refuses what it cannot replay."""

    graphs: Graphs = field(default_factory=Graphs)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_graphs(self)

    def generate(
        self,
        text: Any,
        samples: Sequence[int],
        accelerators: Sequence[Accelerator] = (),
        negative: Any = None,
        dense: Any = None,
    ) -> Generation:
        if accelerators:
            raise VarlabError("CUDA graphs replay dense stages alone: leave graphs or the accelerators out.")
        return super().generate(text, samples, (), negative, dense)

    def _advance(self, state: State, k: int, finished: list[State], given: StagePlan | None = None) -> None:
        """As the run's own, on tensors that stay where the graphs know them."""
        kept, asked = self.graphs, (id(self.model), self.settings)
        if kept.kv is None:
            kept.made_for = asked
            kept.conditioning, kept.kv, kept.rows = state.conditioning, state.kv, state.rows
        elif kept.made_for != asked:
            raise VarlabError("These graphs were recorded for another model or other settings: use new ones.")
        elif kept.rows != state.rows:
            raise VarlabError(f"These graphs were recorded for {kept.rows} rows, not {state.rows}: use new ones.")
        else:
            own, new = tensors(kept.conditioning), tensors(state.conditioning)
            if [part.shape for part in own] != [part.shape for part in new]:  # or with a mask, or without one
                raise VarlabError("These graphs were recorded for texts of another length: use new ones.")
            for here, given_now in zip(own, new, strict=True):
                here.copy_(given_now)
            kept.kv.clear()
            state.conditioning, state.kv = kept.conditioning, kept.kv
        super()._advance(state, k, finished, given)

    def _let_go(self, finished: list[State]) -> None:
        """Nothing: the graphs write into these buffers again."""

    def _blocks(self, state: State, stage: Stage, x: Tensor, index: Tensor | None) -> Tensor:
        if self.model.schedule.lengths[stage.index] > MOST_TOKENS or stage.from_end == 0:
            return super()._blocks(state, stage, x, index)
        recorded = self.graphs.stages.get(stage.index)
        if recorded is None:
            return self._record(state, stage, x)
        recorded.entering.copy_(x)
        recorded.replay()
        for block in range(self.model.depth):
            state.kv.skip(block, x.shape[1])
            for branch in self.model.sublayers:
                keys = state.kv.lengths[block] if branch == self.model.sublayers[0] else 0
                count(self, state, Site(stage, block, branch), x.shape[1], keys)
        return recorded.leaving

    def _record(self, state: State, stage: Stage, x: Tensor) -> Tensor:
        """The first time a stage runs eagerly, for buffers and libraries to be ready; then it is recorded."""
        held = list(state.kv.held)
        counted = vars(self.ledger.stages[stage.index]).copy()
        out = super()._blocks(state, stage, x, None)
        vars(self.ledger.stages[stage.index]).update(counted)
        state.kv.rewind(held)
        state.attended.clear()
        entering, eager = x.clone(), super()._blocks
        replay, leaving = capture(lambda: eager(state, stage, entering, None))
        self.graphs.stages[stage.index] = Recorded(replay, entering, leaving)
        return out


def capture(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What repeats the kernels of a call, which are recorded and not run, and the tensor that they write."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        leaving = call()
    return graph.replay, leaving


def refuse_graphs(run: Run) -> None:
    """Raises VarlabError where graphs cannot be recorded."""
    require_gpu(run.model.device)
    if any(map(run.model.prefix, range(len(run.model.schedule)))):
        raise VarlabError(f"CUDA graphs replay no stage that carries the text of {run.model.name}: leave graphs out.")
    if run.block_probes or run.sublayer_probes:
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
