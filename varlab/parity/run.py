"""What the families share: a rebuilt run, a probe that keeps what a golden's arrays hold, near ties of their labels."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.images import Images
from varlab.engine.loop import Run
from varlab.engine.randomness import Noise, SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.engine.state import Generation, State
from varlab.models.base import NextScaleModel
from varlab.parity.comparison import Arrays
from varlab.parity.golden import Golden

M = TypeVar("M", bound=NextScaleModel)
S = TypeVar("S", bound="Setup[Any]")


@dataclass(frozen=True, kw_only=True)
class Setup(Generic[M]):
    """What a golden's config and weights rebuild. By default the noise decides nothing: argmax."""

    model: M
    settings: Any
    text: Any
    batch: int
    negative: Any = None
    noise: Noise = field(default_factory=lambda: SeededNoise(0))
    choose: Callable[[Tensor], Tensor] | None = None
    store_keys: bool = False

    @property
    def stages(self) -> range:
        return range(len(self.model.schedule))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each stage."""
        return self.model.schedule.lengths

    def path(self, golden: Golden, k: int) -> Tensor | None:
        """The labels [B, n] or [B, n, d] that the golden run went on with at a stage; None where it does not say."""
        raise NotImplementedError

    def forced(self, golden: Golden) -> dict[int, Tensor]:
        """The golden's path, by stage: our run is forced along it, so that one flipped label stays one."""
        return {k: labels for k in self.stages if (labels := self.path(golden, k)) is not None}


class Capture(Probe):
    """Lists have one entry a stage. ``blocks`` and ``sublayers`` are empty for stages beyond those asked for."""

    name = "parity"

    def __init__(self, stages: Collection[int] | None = None) -> None:
        self.stages = stages  # None: all
        self.entering: list[Tensor] = []  # [R, n, C]
        self.blocks: list[list[Tensor]] = []  # outputs of the blocks that ran [R, n, C]
        self.sublayers: list[dict[str, Tensor]] = []  # outputs of block 0's [R, n, C], gates included
        self.statistics: list[tuple[float, ...]] = []  # stage, block, mean, standard deviation
        self.cond: list[Tensor] = []  # logits [B, n, V or 2d] at temperature 1
        self.uncond: list[Tensor | None] = []
        self.final: list[Tensor] = []  # guided
        self.labels: list[Tensor] = []  # [B, n] or [B, n, d], as drawn
        self.codes: list[Tensor] = []  # [B, c, h, w]
        self.canvas: list[Tensor] = []  # [B, c, H, W]
        self.scale: list[Any] = []  # of the guidance

    def on_stage(self, stage: Stage, x: Tensor) -> None:
        self.entering.append(x.clone())
        self.scale.append(stage.guidance.scale)
        self.blocks.append([])
        self.sublayers.append({})

    def _asked(self, site: Site) -> bool:
        return self.stages is None or site.stage.index in self.stages

    def on_sublayer(self, site: Site, x: Tensor, y: Tensor) -> None:
        if site.block == 0 and self._asked(site):
            self.sublayers[-1][str(site.sublayer)] = y.clone()

    def on_block(self, site: Site, x_in: Tensor, x_out: Tensor) -> None:
        self.statistics.append((site.stage.index, site.block, float(x_out.mean()), float(x_out.std())))
        if self._asked(site):
            self.blocks[-1].append(x_out.clone())

    def on_logits(
        self, stage: Stage, cond: Tensor, uncond: Tensor | None, guided: Tensor, labels: Tensor | None
    ) -> None:
        assert labels is not None
        self.cond.append(cond.flatten(-2).clone())
        self.uncond.append(None if uncond is None else uncond.flatten(-2).clone())
        self.final.append(guided.flatten(-2).clone())
        self.labels.append((labels.squeeze(2) if labels.ndim == 3 else labels).clone())

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.codes.append(codes.clone())
        self.canvas.append(canvas.clone())

    def logits(self, k: int, names: Sequence[str], stride: int = 1) -> Arrays:
        """Raw logits of both guidance rows and the guided ones under these names, of every ``stride``-th token."""
        rows = (self.cond[k], self.uncond[k], self.final[k])
        return {name: None if z is None else z[:, ::stride] for name, z in zip(names, rows, strict=True)}


class CacheWatch(Accelerator):
    """Notes, after every stage, what each block's cache holds: [stages][blocks] of (rows, heads, tokens, width)."""

    name = "cache-watch"

    def __init__(self) -> None:
        self.shapes: list[list[tuple[int, ...]]] = []

    def end_stage(self, stage: Stage, images: Images) -> None:
        kv = images.kv
        self.shapes.append(
            [
                (0, 0, length, 0) if keys is None else (keys.shape[0], keys.shape[1], length, keys.shape[3])
                for keys, length in zip(kv.keys, kv.lengths, strict=True)
            ]
        )

    @property
    def tokens(self) -> Tensor:
        """Keys by stage and block."""
        return torch.tensor([[tokens for _, _, tokens, _ in blocks] for blocks in self.shapes])


@dataclass(frozen=True)
class Outcome(Generic[S]):
    """A finished run with what its probe kept."""

    setup: S
    capture: Capture
    generation: Generation = field(repr=False)

    @property
    def state(self) -> State:
        """Conditioning and cache: the batch is never split, so there is one."""
        return self.generation.states[0]

    @property
    def image(self) -> Tensor:
        """Bytes [B, H, W, 3], blue first, truncated: Infinity's official form."""
        return (self.generation.image.movedim(1, -1) * 255).to(torch.uint8).flip(-1)


def generate(
    setup: S,
    forced: Mapping[int, Tensor],
    methods: Sequence[Accelerator] = (),
    probes: Sequence[Probe] = (),
    stages: Collection[int] | None = None,
) -> Outcome[S]:
    """One run of the engine; ``forced`` are labels [B, n] or [B, n, d] by stage, ``stages`` those whose blocks are
    kept."""
    capture = Capture(stages)
    run = Run(
        setup.model,
        setup.settings,
        setup.noise,
        probes=[capture, *probes],
        forced={k: labels[..., None] if labels.ndim == 2 else labels for k, labels in forced.items()},
        choose=setup.choose,
        store_keys=setup.store_keys,
    )
    generation = run.generate(setup.text, range(setup.batch), methods, negative=setup.negative)
    return Outcome(setup, capture, generation)


def unforced(word: str, free: Outcome[Any], forced: Mapping[int, Tensor]) -> str:
    """The note on a run that nothing holds to the golden's path."""
    differ = [k for k, path in forced.items() if not torch.equal(free.capture.labels[k], path)]
    labels = f"{word} first differ at stage {differ[0]} (counted from 0)" if differ else f"all {word} reproduced"
    return f"unforced run: {labels}"


def gap(logits: Tensor) -> Tensor:
    """Between the two largest of logits [..., V]."""
    top = logits.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def margin_of(
    logits: Tensor,
    stored: Tensor | None,
    least: float | None = None,
    at: slice = slice(None),
    sure: Callable[[Tensor], Tensor] = gap,
) -> Tensor:
    """How ``sure`` the labels of logits [B, n, ...] are: by the golden's logits ``stored`` of the tokens ``at``.

    Elsewhere our own say where a near tie lies that ``least``, the golden's smallest margin, admits; without it
    nothing is excused there.
    """
    ours = sure(logits)
    margin = torch.full_like(ours, torch.inf) if least is None else ours.clamp(min=least)
    if stored is not None:
        margin[:, at] = sure(stored)
    return margin
