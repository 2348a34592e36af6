"""FreqExit's recipes, its baselines and its ablation, by name: ``corrected``, ``official:hf_layout=transposed``, ..."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from varlab.errors import unknown
from varlab.specs import options_of, read_options
from varlab.training.freqexit.losses import CORRECTED, OFFICIAL, LossConfig
from varlab.training.loop import LoopConfig


@dataclass(frozen=True)
class FreqExitRecipe:
    """``exits``: earlier blocks are supervised in turn and samples skip blocks; without, it is plain fine-tuning."""

    losses: LossConfig
    exits: bool = True
    weight_decay: float = 0.0


CROSS_ENTROPY = replace(CORRECTED, distillation=0.0, frequency=0.0, reconstruction=0.0, fgsr="off")
ALONE = replace(CROSS_ENTROPY, early=0.0)

BASES = {
    "corrected": FreqExitRecipe(CORRECTED),
    "official": FreqExitRecipe(OFFICIAL),
    "layerskip": FreqExitRecipe(CROSS_ENTROPY, weight_decay=0.01),  # early-exit cross-entropy alone
    "plain": FreqExitRecipe(replace(ALONE, main=1.0), exits=False),
    # One more term beside the last block's cross-entropy, everything else as in "corrected".
    "only-distillation": FreqExitRecipe(replace(ALONE, distillation=CORRECTED.distillation)),
    "only-frequency": FreqExitRecipe(replace(ALONE, frequency=CORRECTED.frequency)),
    "only-reconstruction": FreqExitRecipe(replace(ALONE, fgsr=CORRECTED.fgsr, reconstruction=CORRECTED.reconstruction)),
}


def freqexit_recipe(spec: str) -> FreqExitRecipe:
    """A recipe from its name and switches, such as ``corrected:fgsr=off,early=1.0``; else near names."""
    name = spec.partition(":")[0]
    if name not in BASES:
        raise unknown("FreqExit recipe", name, BASES)
    base = BASES[name]
    return replace(base, losses=replace(base.losses, **read_options(spec, options_of(LossConfig))))


@dataclass(frozen=True)
class FineTuning(LoopConfig):
    """AdamW alone; the rate warms up, stays for a twentieth of the rest, then falls linearly to a hundredth.

    Source: FreqExit's released code ("lin0"), whose peak of 4e-5 belongs to 100 000 updates of 1024 images.
    """

    warmup: int = 10
    weight_decay: float = 0.0
    clip: float = 2.0
    average: float = 0.9999
    log_every: int = 10

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        fall = min(1.0, max(0.0, (done - 0.05) / 0.95))
        return self.learning_rate * (1 - 0.99 * fall)

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        trained = [p for p in module.parameters() if p.requires_grad]
        decay = {"lr": self.learning_rate, "betas": (0.9, 0.95), "weight_decay": self.weight_decay}
        return [torch.optim.AdamW(trained, **decay)]  # type: ignore[arg-type]
