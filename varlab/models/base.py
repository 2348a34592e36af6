"""What a family of next-scale models offers the engine. Infinity, HART and VAR differ only behind this face."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Literal, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from varlab.markup import Shown, count, summary
from varlab.models.guidance import Guidance, Settings
from varlab.models.layers import Attend
from varlab.models.widened import BF16_WEIGHTS
from varlab.schedules import Grid, Schedule


class Rows(Protocol):
    """A conditioning: of all guidance rows, from which some can be taken."""

    def rows(self, index: Tensor) -> Self: ...


SettingsT = TypeVar("SettingsT", bound=Settings)
ConditioningT = TypeVar("ConditioningT", bound=Rows)
GuidanceT = TypeVar("GuidanceT", bound=Guidance)
Distribution = Literal["uniform", "normal", "exponential"]


class Draw(Protocol):
    """Random numbers [B, n, width] for the computed tokens of a stage; ``kind`` separates uses."""

    def __call__(self, kind: str, width: int, distribution: Distribution = "uniform") -> Tensor: ...


@dataclass(frozen=True)
class Readout:
    """Logits at temperature 1 [B, n, d, v] (``uncond`` None where it was not run), and the guided ones.

    A token has d labels of v values each: the bits of Infinity, or one index of a codebook.
    """

    cond: Tensor
    uncond: Tensor | None
    guided: Tensor


@dataclass(frozen=True)
class Reading(Generic[SettingsT, GuidanceT]):
    """What codes may depend on besides their labels: hidden states [R, n, C], guided logits [B, n, d, v], noise."""

    hidden: Tensor
    logits: Tensor
    guidance: GuidanceT
    settings: SettingsT
    noise: Draw


@dataclass(frozen=True)
class Cost:
    """Floating-point operations (two a multiply-add) of one call: matrix products and the attention proper.

    ``halved``: of the products beside the blocks, those that a model in half precision does not compute in fp32.
    """

    linear: int
    attention: int = 0
    halved: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.attention


class EqualPrefix(NamedTuple):
    """Equal first tokens of the unconditional rows, computed once, and how many of their keys attention looks at."""

    equal: int = 0
    seen: int = 0

    @property
    def spared(self) -> int:
        """Keys that nobody looks at."""
        return self.equal - self.seen

    @classmethod
    @cache  # asked for by every sublayer
    def of(cls, equal: int, dtype: torch.dtype) -> "EqualPrefix":
        """So few of ``equal`` keys that the share of each is at most 0.1 % off when its logarithm is of this type.

        One key is enough in fp32. In bf16, which rounds every number by up to 0.4 %, one of 300 would be 1.5 % off;
        five are 0.06 %.
        """
        seen = next(m for m in range(1, equal + 1) if _rounding(math.log(equal / m), dtype) < 1e-3)
        return cls(equal, seen)


def _rounding(value: float, dtype: torch.dtype) -> float:
    return abs(float(torch.tensor(value, dtype=dtype)) - value)


class NextScaleModel(Shown, ABC, Generic[SettingsT, ConditioningT, GuidanceT]):
    """A transformer, its tokenizer and its text path, on one schedule.

    R rows are [B conditional, B unconditional] with guidance, else the B conditional ones. ``index`` is
    None for the whole grid, [n] shared, or [R, n] per row.
    """

    family: str
    name: str
    weights: str
    schedule: Schedule
    depth: int
    width: int
    sublayers: tuple[str, ...]
    attention_scale: float
    settings: SettingsT
    scene_version: str = "1"  # of the procedural scenes that a mini was trained on; of others without a meaning
    execution: str = "eager"  # or "compiled", and what else differs from it by rounding alone

    def __repr__(self) -> str:
        grids = self.schedule.grids
        transformer = vars(self)["transformer"]  # each family declares its own
        (h, w), parameters = grids[-1], sum(p.numel() for p in transformer.parameters())
        stages = f"{count(len(grids), 'stage')} to {h} x {w}, {count(self.schedule.tokens, 'token')}"
        return summary(
            f"{self.name} ({self.family}), {count(parameters, 'parameter')}",
            weights=self.weights,
            schedule=stages,
            runs_as=f"{self.precision} on {self.device}, {self.execution}",
        )

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def precision(self) -> str:
        """Of the blocks: fp32, bf16, fp16, bf16-weights or int8; with "-diffusion" also of HART's diffusion head."""

    @property
    def kept_type(self) -> torch.dtype | None:
        """What keys and values of earlier stages are kept in; None for what they are computed in."""
        return torch.bfloat16 if self.precision == BF16_WEIGHTS else None

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """What the constructor takes."""

    def with_(self, kind: type[Self] | None = None, **changes: Any) -> Self:
        """The same weights with other parts: a schedule, settings, savings. ``kind``: a subclass in place of this."""
        made = (kind or type(self))(**self.parts() | changes)
        made.execution, made.scene_version = self.execution, self.scene_version
        return made

    def check_text(self, text: Any) -> None:
        """Raises VarlabError for prompts or features that ``prepare`` would refuse; costs next to nothing."""

    @abstractmethod
    def prepare(self, text: Any, guided: bool, negative: Any = None) -> ConditioningT:
        """Prompts or features -> conditioning of all rows, constant over the stages."""

    def guided(self, settings: SettingsT) -> bool:
        """Whether the unconditional rows run; a family may count its guidance in other units."""
        return bool(settings.guided)

    @abstractmethod
    def guidance(self, k: int, settings: SettingsT, guided: bool, scale: float | None = None) -> GuidanceT:
        """Guidance of stage k; ``scale`` overrides the settings. Ramps and quirks of a family live here.

        ``scale`` is always s in s conditional + (1 - s) unconditional, whatever the settings count in.
        """

    @abstractmethod
    def new_canvas(self, batch: int) -> Tensor:
        """Zero canvas [B, b, H, W]."""

    def prefix(self, k: int) -> int:
        """Tokens of stage k that come before those of its grid and predict nothing, such as a text."""
        return 0

    @property
    def equal_prefix(self) -> EqualPrefix:
        """Prefix tokens of the unconditional rows that are one and the same; none where all are computed."""
        return EqualPrefix()

    def foreseen(self, k: int, settings: SettingsT) -> Sequence[tuple[str, int, Distribution]]:
        """Kind, width and distribution of the noise that stage k asks for, where drawing it takes long."""
        return ()

    def passes(self, k: int, settings: SettingsT, noise: Draw) -> Tensor | None:
        """In which pass each token of the grid is computed [B, h*w]: it sees no later pass. None for one pass."""
        return None

    @abstractmethod
    def embed(self, k: int, canvas: Tensor, conditioning: ConditioningT, index: Tensor | None) -> Tensor:
        """The tokens that enter block 0 of stage k, the prefix first: [R, prefix + n, C] fp32."""

    @abstractmethod
    def positions(self, k: int, conditioning: ConditioningT, index: Tensor | None) -> Tensor | None:
        """Rotary table of the tokens, [n, ...] or [R, n, ...]; where a stage has a prefix, ``index`` counts it."""

    @abstractmethod
    def sublayer(
        self, block: int, name: str, x: Tensor, conditioning: ConditioningT, positions: Tensor | None, attend: Attend
    ) -> Tensor:
        """A sublayer, gate included: x [R, n, C] -> [R, n, C] fp32."""

    @abstractmethod
    def readout(self, x: Tensor, conditioning: ConditioningT, guided: bool, guidance: GuidanceT) -> Readout:
        """Hidden states [R, n, C] -> logits. ``guided``: both guidance rows are there."""

    @abstractmethod
    def draw(self, k: int, guided: Tensor, settings: SettingsT, noise: Draw) -> Tensor:
        """Labels [B, n, d] from guided logits of stage k."""

    @property
    def kv_capacity(self) -> int:
        """Keys of one image that a query of the last stage sees."""
        return self.schedule.tokens + sum(map(self.prefix, range(len(self.schedule))))

    @property
    def stored_keys(self) -> int:
        """Keys of one image that a block must keep: those of all stages but the last, to which nobody looks back."""
        last = len(self.schedule) - 1
        return self.kv_capacity - self.schedule.lengths[last] - self.prefix(last)

    def latent_grid(self, grid: Grid) -> Grid:
        """Latents under a stage's grid of tokens."""
        return grid

    @abstractmethod
    def codes(self, k: int, labels: Tensor) -> Tensor:
        """Labels [B, n, d] -> continuous codes [B, n, c] in token order."""

    def realise(self, k: int, labels: Tensor, reading: Reading[SettingsT, GuidanceT]) -> Tensor:
        """As ``codes``, where a family adds to them what only the run knows."""
        return self.codes(k, labels)

    @abstractmethod
    def code_map(self, k: int, codes: Tensor) -> Tensor:
        """Codes of the whole grid [B, h*w, c] -> the stage's residual map [B, b, h', w']."""

    @abstractmethod
    def accumulate(self, k: int, canvas: Tensor, residual: Tensor) -> Tensor:
        """Canvas after adding the stage's residual map."""

    @abstractmethod
    def resize(self, canvas: Tensor, grid: Grid) -> Tensor:
        """The canvas on another latent grid, by the family's own interpolation."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] -> the canvas of a run that predicts every code right [B, b, h, w]."""

    @abstractmethod
    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas [B, b, h, w] -> images [B, 3, H, W] in [0, 1], fp32."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Pixels on a side of a latent."""

    @abstractmethod
    def sublayer_cost(self, name: str, tokens: int, keys: int, conditioning: ConditioningT) -> Cost:
        """One row of a sublayer on ``tokens`` tokens that see ``keys`` keys."""

    @abstractmethod
    def text_cost(self, conditioning: ConditioningT) -> Cost:
        """Everything computed once per image from the text features, all rows."""

    @abstractmethod
    def stage_cost(self, k: int, tokens: int, batch: int, head_rows: int, settings: SettingsT) -> Cost:
        """Embedding and read-out of a stage under the settings of a run."""

    @abstractmethod
    def decode_cost(self, grid: Grid) -> Cost:
        """Decoding one latent grid."""
