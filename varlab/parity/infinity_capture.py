"""Runs a rebuilt golden through the engine and keeps, by a probe, what its arrays hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation, State
from varlab.parity.infinity_setup import Setup


class Capture(Probe):
    """Lists have one entry a stage; of the last stage also what happens in its blocks."""

    name = "parity"

    def __init__(self) -> None:
        self.entering: list[Tensor] = []  # [R, n, C]
        self.cond: list[Tensor] = []  # logits [B, n, 2d] at temperature 1
        self.uncond: list[Tensor | None] = []
        self.final: list[Tensor] = []
        self.labels: list[Tensor] = []  # [B, n, d], as drawn
        self.codes: list[Tensor] = []  # [B, b, h, w]
        self.canvas: list[Tensor] = []  # [B, b, H, W]
        self.statistics: list[tuple[float, ...]] = []  # stage, block, mean, standard deviation
        self.last_branches: dict[str, Tensor] = {}  # of block 0, gates included
        self.last_blocks: list[Tensor] = []

    def on_stage(self, stage: Stage, x: Tensor) -> None:
        self.entering.append(x.clone())

    def on_sublayer(self, site: Site, x: Tensor, y: Tensor) -> None:
        if site.block == 0 and site.stage.from_end == 0:
            self.last_branches[str(site.sublayer)] = y.clone()

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self.statistics.append((site.stage.index, site.block, float(x_out.mean()), float(x_out.std())))
        if site.stage.from_end == 0:
            self.last_blocks.append(x_out.clone())

    def on_logits(self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor) -> None:
        self.cond.append(cond.flatten(-2))
        self.uncond.append(None if uncond is None else uncond.flatten(-2))
        self.final.append(guided.flatten(-2))
        self.labels.append(labels.clone())

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.codes.append(codes.clone())
        self.canvas.append(canvas.clone())


@dataclass(frozen=True)
class Outcome:
    """A finished run with what its probe kept."""

    setup: Setup
    capture: Capture
    generation: Generation = field(repr=False)
    run: Run = field(repr=False)

    @property
    def state(self) -> State:
        """Conditioning and cache: the batch is never split, so there is one."""
        return self.generation.states[0]

    @property
    def image(self) -> Tensor:
        """Bytes [B, H, W, 3], blue first, truncated: the official form."""
        return (self.generation.image.movedim(1, -1) * 255).to(torch.uint8).flip(-1)


def generate(
    setup: Setup,
    forced: Mapping[int, Tensor],
    accelerators: Sequence[Accelerator] = (),
    probes: Sequence[Probe] = (),
) -> Outcome:
    """One run of the engine; ``forced`` are labels [B, n, d] by stage. Argmax, so the noise decides nothing."""
    capture = Capture()
    listening = [capture, *probes]
    run = Run(setup.model, setup.settings, SeededNoise(0), probes=listening, forced=forced, store_keys=True)
    generation = run.generate(setup.text, range(setup.batch), accelerators, negative=setup.negative)
    return Outcome(setup, capture, generation, run)
