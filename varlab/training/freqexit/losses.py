"""FreqExit's losses: early-exit cross-entropy, distillation, high-frequency consistency, and their sum.

Logits are [B, L, V] by layer; ``kept`` [B] says which samples ran a layer and count there.
Source: FreqExit (NeurIPS 2025), equations of its method section, and the released code where they differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError, unknown
from varlab.training.freqexit.curriculum import shares
from varlab.training.freqexit.fgsr import Gate, Predictor, Reconstruction
from varlab.training.freqexit.wavelets import Gradient, haar

Layers = Mapping[int, Tensor]
Kept = Mapping[int, Tensor]
Layout = Literal["raw", "transposed"]


@dataclass(frozen=True)
class LossConfig:
    """The switches between the released code (first value) and the paper (second), and the loss weights.

    hf_layout: how token maps reach the wavelet; "raw" reinterprets [p*p, c] as [c, p, p] and mixes channels with
    places. hf_window: "code" switches the term on for the second quarter only, "paper" ramps it up over that quarter
    and keeps it. dwt_grad: "library" loses the gradient of mirrored samples. fgsr: "zero_ll" penalises all detail,
    "predictor" is the same once its modules are trained, "gated" is the paper's. fgsr_trainable: whether the optimiser
    gets the modules. kd_shared_label_drop: teacher and student lose the same labels. kd_last: the layer of temperature
    1; 19 whatever the depth, or None for the last.
    """

    hf_layout: Layout = "raw"
    hf_window: Literal["code", "paper"] = "code"
    dwt_grad: Gradient = "library"
    fgsr: Literal["off", "zero_ll", "predictor", "gated"] = "zero_ll"
    fgsr_trainable: bool = False
    kd_shared_label_drop: bool = False
    kd_last: int | None = 19
    main: float = 0.1
    early: float = 0.5
    distillation: float = 2.0
    frequency: float = 0.3
    reconstruction: float = 5.0

    @property
    def needs_teacher(self) -> bool:
        return self.distillation > 0 or self.frequency > 0


OFFICIAL = LossConfig()
CORRECTED = LossConfig("transposed", "paper", "exact", "gated", True, True, None)
RECIPES = {"official": OFFICIAL, "corrected": CORRECTED}


def recipe(name: str) -> LossConfig:
    if name not in RECIPES:
        raise unknown("FreqExit recipe", name, RECIPES)
    return RECIPES[name]


def rows(values: Tensor, kept: Tensor | None) -> Tensor:
    """The samples that count, [B', ...]."""
    return values if kept is None or bool(kept.all()) else values[kept.to(values.device)]


# Cross-entropy and distillation


def cross_entropy(logits: Tensor, ids: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean over samples and tokens; ids [B, L]."""
    return F.cross_entropy(rows(logits, kept).flatten(0, 1), rows(ids, kept).flatten())


def early_exit(logits: Layers, ids: Tensor, kept: Kept) -> Tensor:
    """Cross-entropy of the supervised layers, deeper ones counting more."""
    return _weighted({layer: cross_entropy(z, ids, kept.get(layer)) for layer, z in logits.items()})


def temperature(layer: int, last: int) -> float:
    """From 4 at the first layer to 1 at the last."""
    return 4 - 3 * layer / last


def divergence(student: Tensor, teacher: Tensor, heat: float) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, mean over samples and tokens."""
    p, q = (teacher.detach() / heat).log_softmax(-1), (student / heat).log_softmax(-1)
    return heat**2 * (p.exp() * (p - q)).sum(-1).mean()


def distillation(logits: Layers, teacher: Tensor, kept: Kept, last: int) -> Tensor:
    """The supervised layers against the teacher's final logits [B, L, V]."""
    return _weighted(
        {
            layer: divergence(rows(z, kept.get(layer)), rows(teacher, kept.get(layer)), temperature(layer, last))
            for layer, z in logits.items()
        }
    )


def _weighted(terms: Layers) -> Tensor:
    share = shares(terms)
    return torch.stack([share[layer] * term for layer, term in terms.items()]).sum()


# High-frequency consistency


def soft_map(logits: Tensor, table: Tensor) -> Tensor:
    """Expected code vectors [B, L, c] under logits [B, L, V]; table [V, c]."""
    return logits.softmax(-1) @ table


def grids(maps: Tensor, side: int, layout: Layout = "transposed") -> Tensor:
    """Tokens of one stage [B, p*p, c] -> maps [B, c, p, p]; "raw" only reinterprets the memory, as released."""
    if layout == "raw":
        return maps.reshape(maps.shape[0], maps.shape[2], side, side)
    return maps.mT.unflatten(-1, (side, side))


@dataclass(frozen=True)
class FrequencyLoss:
    """Mean square error of the Haar details of soft maps against the teacher's, over the fine stages of ``sides``."""

    sides: tuple[int, ...]
    layout: Layout = "raw"
    gradient: Gradient = "library"
    stages: tuple[int, ...] = (5, 6, 7, 8, 9)

    def __post_init__(self) -> None:
        if max(self.stages) >= len(self.sides):
            raise VarlabError(
                f"The high-frequency loss reads stages {min(self.stages) + 1} to {max(self.stages) + 1}; this schedule "
                f"has {len(self.sides)}. Give stages=fine_stages(sides)."
            )

    def stage(self, student: Tensor, teacher: Tensor, k: int) -> Tensor:
        """Of one stage; maps of all tokens [B', L, c]."""
        start, side = sum(p * p for p in self.sides[:k]), self.sides[k]
        parts = [m[:, start : start + side * side] for m in (student, teacher.detach())]
        ours, theirs = (haar(grids(part, side, self.layout), self.gradient)[1] for part in parts)
        return F.mse_loss(ours, theirs)

    def layer(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of one layer: stages count by (p / last p) ** 1.5."""
        weights = [(self.sides[k] / self.sides[-1]) ** 1.5 for k in self.stages]
        errors = [w * self.stage(student, teacher, k) for w, k in zip(weights, self.stages, strict=True)]
        return torch.stack(errors).sum() / sum(weights)

    def __call__(self, maps: Layers, teacher: Tensor, kept: Kept, weighted: bool = True) -> Tensor:
        """Soft maps of the supervised layers [B, L, c] against the teacher's."""
        terms = {
            layer: self.layer(rows(m, kept.get(layer)), rows(teacher, kept.get(layer))) for layer, m in maps.items()
        }
        return _weighted(terms) if weighted else torch.stack(list(terms.values())).mean()


def fine_stages(sides: Sequence[int]) -> tuple[int, ...]:
    """The finer half of a schedule, without stages of one token, for schedules other than the official ten."""
    return tuple(k for k in range(len(sides) // 2, len(sides)) if sides[k] > 1)


def frequency_weight(progress: float, window: str, full: float = 0.3) -> float:
    """Of the term at a share of training. "code": full in [1/4, 1/2) alone; "paper": 0, a ramp over it, then full."""
    if window == "code":
        return full if 0.25 <= progress < 0.5 else 0.0
    return full * min(max((progress - 0.25) / 0.25, 0.0), 1.0)


TERMS = ("main", "early", "distillation", "frequency")


class Balance(nn.Module):
    """Running means that keep the frequency term at a set share of the other losses; the same on all workers."""

    means: Tensor

    def __init__(self, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        # In checkpoints, as the released tracker is not: a resumed run would else not be the uninterrupted one.
        self.register_buffer("means", torch.full((len(TERMS),), torch.nan, dtype=torch.float64))

    @torch.no_grad()
    def scale(self, values: Mapping[str, float], target: float = 0.3) -> float:
        """Take in main, early, distillation and frequency, then say by what to multiply the last."""
        new = torch.tensor([values[name] for name in TERMS]).to(self.means)
        if dist.is_initialized():
            dist.all_reduce(new)
            new /= dist.get_world_size()
        old = torch.where(self.means.isnan(), new, self.means)
        self.means.copy_(self.momentum * old + (1 - self.momentum) * new)
        main, early, distillation, frequency = self.means.tolist()
        return target * (main + early + distillation) / 3 / (frequency + 1e-6)


# The sum


@dataclass
class Losses:
    """One update's terms; ``total`` carries the gradient. ``frequency`` is None while its window is shut."""

    total: Tensor
    main: float
    early: float
    distillation: float
    frequency: float | None
    scale: float | None
    reconstruction: float | None


class Objective(nn.Module):
    """All terms for one model. Its parameters are the reconstruction modules, trained if the config says so."""

    def __init__(
        self, config: LossConfig, depth: int, sides: Sequence[int], width: int, stages: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.config, self.depth = config, depth
        chosen = FrequencyLoss.stages if stages is None else stages
        self.frequency = FrequencyLoss(tuple(sides), config.hf_layout, config.dwt_grad, chosen)
        kind = Gate if config.fgsr == "gated" else Predictor
        self.reconstruction = None if config.fgsr == "off" else Reconstruction(kind, width, sides)
        self.balance = Balance()
        if not config.fgsr_trainable:
            self.requires_grad_(False)

    def forward(
        self, logits: Layers, teacher: Tensor | None, ids: Tensor, table: Tensor, kept: Kept, progress: float
    ) -> Losses:
        """logits by layer and the teacher's [B, L, V], None where no term needs them; ids [B, L]; table [V, c];
        progress in [0, 1]. A term of weight 0 is not computed."""
        config, last = self.config, self.depth - 1
        main = cross_entropy(logits[last], ids)
        early = early_exit(logits, ids, kept) if config.early else torch.zeros_like(main)
        heat = last if config.kd_last is None else config.kd_last
        taught = torch.zeros_like(main)
        if teacher is not None and config.distillation:
            taught = distillation(logits, teacher, kept, heat)
        total = config.main * main + config.early * early + config.distillation * taught
        out = Losses(total, float(main.detach()), float(early.detach()), float(taught.detach()), None, None, None)
        weight = frequency_weight(progress, config.hf_window, config.frequency)
        rebuild = self.reconstruction if config.reconstruction > 0 else None
        maps = {layer: soft_map(z, table) for layer, z in logits.items()} if weight > 0 or rebuild else {}
        if teacher is not None and weight > 0:
            loss = self.frequency(maps, soft_map(teacher, table), kept)
            out.frequency = float(loss.detach())
            out.scale = self.balance.scale({name: getattr(out, name) for name in TERMS})
            total = total + weight * out.scale * loss
        if rebuild is not None:
            rebuilt = rebuild({layer: rows(m, kept.get(layer)) for layer, m in maps.items()})
            out.reconstruction = float(rebuilt.detach())
            total = total + config.reconstruction * rebuilt
        out.total = total
        return out
