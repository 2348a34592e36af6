"""What test_engine.py and test_engine_plans.py share."""

import torch

from tests.conftest import features, tiny_infinity
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.loop import Run
from varlab.engine.plan import RUN, Selection, StagePlan, select
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.models.guidance import Settings


class Keep(Accelerator):
    """Computes only the positions of a mask in the last stage; the rest takes a zero code."""

    name = "keep"

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask

    def plan(self, stage: Stage) -> StagePlan:
        return StagePlan(selection=select(self.mask)) if stage.from_end == 0 else RUN

    def complete(self, stage: Stage, codes: torch.Tensor, selection: Selection) -> torch.Tensor:
        full = codes.new_zeros(stage.batch, selection.length, codes.shape[-1])
        index = selection.index.expand(stage.batch, -1)
        if selection.valid is not None:
            codes = codes * selection.valid[..., None]
            return full.scatter_add(1, index[..., None].expand_as(codes), codes)
        return full.scatter(1, index[..., None].expand_as(codes), codes)


class Logits(Probe):
    def __init__(self) -> None:
        self.seen: dict[int, torch.Tensor] = {}

    def on_logits(self, stage, cond, uncond, guided, labels) -> None:  # type: ignore[no-untyped-def]
        self.seen[stage.index] = guided.clone()


def run(accelerators=(), lengths=(3, 5), probes=(), model=None, **settings):  # type: ignore[no-untyped-def]
    model = model or tiny_infinity()
    made = Run(model, Settings(**{"cfg": 2.0, **settings}), SeededNoise(7), probes)
    return made.generate(features(*lengths), range(len(lengths)), accelerators)


class Split(Accelerator):
    """Image 0 stops after two stages; image 1 loses its unconditional row in the last one."""

    name = "split"

    def plan(self, stage: Stage) -> StagePlan | list[StagePlan]:
        plans = {0: StagePlan("stop"), 1: StagePlan(rows="cond") if stage.from_end == 0 else RUN}
        return [plans[i] for i in stage.samples] if stage.index >= 2 else RUN
