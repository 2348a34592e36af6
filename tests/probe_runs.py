"""What test_probes.py and test_probes_partial.py share."""

import numpy as np
import torch

from tests.conftest import features, tiny_infinity
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.state import Generation
from varlab.models.guidance import Settings
from varlab.models.infinity_model import Infinity
from varlab.probes import build
from varlab.probes.log import Group


class Capture(Probe):
    """Copies everything."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.branches: dict[tuple[int, int, str], torch.Tensor] = {}
        self.logits: dict[int, tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]] = {}
        self.canvas: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def on_block(self, site, x_in, x_out) -> None:  # type: ignore[no-untyped-def]
        self.blocks[site.stage.index, site.block] = (x_in.clone(), x_out.clone())

    def on_sublayer(self, site, x, y) -> None:  # type: ignore[no-untyped-def]
        self.branches[site.stage.index, site.block, site.sublayer] = y.clone()

    def on_logits(self, stage, cond, uncond, guided, labels) -> None:  # type: ignore[no-untyped-def]
        self.logits[stage.index] = (cond.clone(), None if uncond is None else uncond.clone(), guided.clone())

    def on_residual(self, stage, codes, before, canvas) -> None:  # type: ignore[no-untyped-def]
        self.canvas[stage.index] = (codes.clone(), before.clone(), canvas.clone())


def run(
    names: tuple[str, ...], accelerators: tuple = (), model: Infinity | None = None, **settings: object
) -> tuple[dict[str, Group], Capture, Generation, Infinity]:
    model = model or tiny_infinity("odd-tall")
    probes, capture = build(names), Capture()
    made = Run(model, Settings(**{"cfg": 2.0, **settings}), SeededNoise(7), [*probes, capture])  # type: ignore[arg-type]
    out = made.generate(features(3, 5), (0, 1), accelerators)
    log = {path: group for probe in probes for path, group in probe.log().items()}
    return log, capture, out, model


def values(group: Group, name: str) -> np.ndarray:
    return group.variables[name][1]
