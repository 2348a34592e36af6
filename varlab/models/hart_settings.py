"""What a run of HART is given: settings, guidance of a stage, conditioning by the text, work that is saved."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from varlab.errors import VarlabError, quoted, unknown
from varlab.models.guidance import Guidance, Settings
from varlab.models.hart import ContextState
from varlab.models.rotary import grid_rotary, text_rotary
from varlab.schedules import Schedule


@dataclass(frozen=True)
class HartSettings(Settings):
    """How HART samples.

    cfg: what guidance adds at the end of the schedule (0 is none); a stage adds its share of it. top_k: labels that
    stay at the first seven stages, half as many later; 0 keeps all. smooth: stages read a softened mixture of codes
    in place of the drawn one, smoother and less varied. passes: of the last stage, each on its own tokens. residual:
    whether the diffusion head refines the last stage.
    """

    cfg: float | tuple[float, ...] = 4.5
    top_k: int = 600
    top_p: float = 0.0
    smooth: bool = True
    passes: int = 1
    residual: bool = True

    def check(self, stages: int, depth: int) -> None:
        super().check(stages, depth)
        if self.cfg_layers != (0,):
            raise VarlabError(f"HART guides the logits alone: cfg_layers is (0,), not {self.cfg_layers}.")
        if self.passes < 1:
            raise VarlabError(f"passes of the last stage must be at least 1, not {self.passes}.")

    @property
    def guided(self) -> bool:
        return any(value != 0 for value in (self.cfg if isinstance(self.cfg, tuple) else (self.cfg,)))


@dataclass(frozen=True)
class Savings:
    """Work and memory that a run can do without; no number changes beyond rounding.

    one_null: the equal tokens of the empty text are computed once, and attention looks at as few of them as its type
    can count (``EqualPrefix``): one of 300 in fp32, five in bf16; the store still holds all. Less work, but a second
    attention call, which on a CPU takes as long or longer. constants:
    level and time embeddings are computed with the model, not in every run. That the last stage writes no keys is the
    engine's (``Run.store_keys``).
    """

    one_null: bool = False
    constants: bool = True

    @classmethod
    def of(cls, given: "Savings | Mapping[str, bool] | None") -> "Savings":
        """As given, or the default with the switches named there; raises VarlabError for one that is not known."""
        if isinstance(given, Savings):
            return given
        known = [option.name for option in fields(cls)]
        for name, value in (given or {}).items():
            if name not in known:
                raise unknown("saving", name, known)
            if not isinstance(value, bool):
                raise VarlabError(f"The saving {name} is True or False, not {quoted(value)}.")
        return cls(**(given or {}))


@dataclass(frozen=True)
class HartGuidance(Guidance):
    """``ratio``: how far along the schedule the stage is, as far as guidance and smoothing go."""

    ratio: float = 0.0

    @property
    def extra(self) -> float:
        """Of (1 + extra) conditional - extra unconditional."""
        return self.scale - 1

    def mix(self, cond: Tensor, uncond: Tensor | None) -> Tensor:
        return (cond if uncond is None else (1 + self.extra) * cond - self.extra * uncond) / self.tau


@dataclass
class HartConditioning:
    """The text, and the rotary tables that start where it ends: those of one stage are kept until another asks."""

    text: ContextState
    head_width: int
    _stage: int = -1
    _table: Tensor = field(default_factory=lambda: torch.empty(0))

    def rows(self, index: Tensor) -> "HartConditioning":
        return HartConditioning(self.text.rows(index), self.head_width)

    def table(self, k: int, schedule: Schedule) -> Tensor:
        """[R, n, 2, c] of stage k."""
        if self._stage != k:
            positions, width = self.text.positions, self.head_width
            grid = lambda: grid_rotary(schedule.grids[k], schedule.final, positions[:, -1], width)  # noqa: E731
            self._stage, self._table = k, text_rotary(positions, width) if k == 0 else grid()
        return self._table
