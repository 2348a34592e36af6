"""Sampling settings and guidance: what the user sets, and what a stage is handed."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from torch import Tensor

from varlab.errors import VarlabError, quoted


@dataclass(frozen=True)
class Settings:
    """How a run samples. Lists give one value per stage.

    cfg: guidance scale (1 is none; higher follows the text more and varies less). tau: temperature
    before guidance (lower is safer and flatter). top_k, top_p: of the label distribution, 0 is off.
    cfg_layers: 0 guides the logits; -m mixes the branches after block depth - m.
    """

    cfg: float | tuple[float, ...] = 3.0
    tau: float | tuple[float, ...] = 1.0
    top_k: int = 900
    top_p: float = 0.97
    cfg_layers: tuple[int, ...] = (0,)

    def check(self, stages: int, depth: int) -> None:
        """Refuse what a model of so many stages and blocks cannot sample with, before it begins."""
        for name in ("cfg", "tau"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) < stages:
                raise VarlabError(f"{name} has {len(values)} values; the schedule has {stages} stages.")
            if not all(map(_finite, values if isinstance(values, tuple) else (values,))):
                raise VarlabError(f"{name} must be a finite number, or one a stage, not {quoted(values)}.")
        if min(self.tau if isinstance(self.tau, tuple) else (self.tau,)) <= 0:
            raise VarlabError("tau must be above 0. For the most likely bits use top_k=1.")
        if not (_finite(self.top_p) and _finite(self.top_k)) or not 0 <= self.top_p <= 1 or self.top_k < 0:
            raise VarlabError("top_p must lie in [0, 1] and top_k must not be negative.")
        if not isinstance(self.cfg_layers, tuple) or not all(isinstance(layer, Integral) for layer in self.cfg_layers):
            raise VarlabError(f"cfg_layers is a list of whole numbers such as [0], not {quoted(self.cfg_layers)}.")
        for layer in self.cfg_layers:
            if layer > 0 or -layer >= depth:
                raise VarlabError(f"cfg_layers: {layer} is neither 0 (logits) nor a block from -1 to -{depth - 1}.")

    @property
    def guided(self) -> bool:
        """Whether the unconditional row runs: decided by the whole list, also entries that no stage uses."""
        return any(value != 1 for value in (self.cfg if isinstance(self.cfg, tuple) else (self.cfg,)))


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def at(values: float | tuple[float, ...], stage: int) -> float:
    return values[stage] if isinstance(values, tuple) else values


@dataclass(frozen=True)
class Guidance:
    """scale * conditional + (1 - scale) * unconditional, on logits and/or after some blocks."""

    scale: float
    tau: float
    on_logits: bool
    blocks: tuple[int, ...] = ()

    def mix(self, cond: Tensor, uncond: Tensor | None) -> Tensor:
        """Guided logits from those of both rows at temperature 1; ``uncond`` None where guidance does not act here."""
        mixed = cond / self.tau
        return mixed if uncond is None else self.scale * mixed + (1 - self.scale) * (uncond / self.tau)
