"""What test_sparsevar.py and test_sparsevar_readings.py share."""

import torch

from tests.conftest import features, tiny_infinity
from varlab.accelerators import build
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation
from varlab.models.guidance import Settings
from varlab.models.infinity import TextBatch


class Spy(Probe):
    """What a run did: selections, code maps, and the squared change inside every block."""

    name = "spy"

    def __init__(self) -> None:
        self.masks: dict[tuple[int, int], torch.Tensor] = {}
        self.codes: dict[int, torch.Tensor] = {}
        self.changes: dict[tuple[int, int], torch.Tensor] = {}
        self.branches: dict[tuple[int, int, str], torch.Tensor] = {}

    def on_sublayer(self, site: Site, x: torch.Tensor, y: torch.Tensor) -> None:
        self.branches[site.stage.index, site.block, str(site.sublayer)] = y.square().mean(-1)

    def on_block(self, site: Site, x_in: torch.Tensor, x_out: torch.Tensor) -> None:
        self.changes[site.stage.index, site.block] = (x_out - x_in).square().mean(-1)

    def on_residual(self, stage: Stage, codes: torch.Tensor, before: torch.Tensor, canvas: torch.Tensor) -> None:
        self.codes[stage.index] = codes.flatten(2)
        selection = stage.plan.selection
        tokens = stage.grid[0] * stage.grid[1]
        mask = torch.ones(1, tokens, dtype=torch.bool) if selection is None else selection.mask
        for row, image in enumerate(stage.samples):
            self.masks[stage.index, image] = mask if mask.ndim == 1 else mask[min(row, len(mask) - 1)]


def run(spec: str, images: tuple[int, ...] = (0,), schedule: str = "square", **settings) -> tuple[Generation, Spy]:
    spy = Spy()
    model = tiny_infinity(schedule)
    chosen = Settings(**{"cfg": 2.0, **settings})
    rows = features(3, 3, 3).features.split(3)
    text = TextBatch(torch.cat([rows[image] for image in images]), (3,) * len(images))
    return Run(model, chosen, SeededNoise(7), [spy]).generate(text, images, build((spec,))), spy
