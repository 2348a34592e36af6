"""What HART's residual diffusion buys: the tokenizer and the samples with it and without it, codes alike."""

import copy
from dataclasses import dataclass, replace

from varlab.evaluation.scenes import Ceiling, SceneScore, score_ceiling, score_samples
from varlab.models.hart_model import Hart
from varlab.runs import Progress


@dataclass(frozen=True)
class Drawn:
    """Samples: their score, and their mean power above 1/8 cycle a pixel over that of the held-out renders."""

    score: SceneScore
    detail: float


@dataclass(frozen=True)
class Side:
    """The tokenizer's ceiling and the samples of one way to decode."""

    ceiling: Ceiling
    samples: Drawn


def without_residual(model: Hart) -> Hart:
    """The same model whose last stage is its codes alone; the one given stays as it is."""
    twin = copy.copy(model)
    twin.settings = replace(model.settings, residual=False)
    return twin


def side(ceiling: Ceiling, score: SceneScore, power: float) -> Side:
    """power: mean of the samples' above 1/8 cycle a pixel."""
    return Side(ceiling, Drawn(score, power / ceiling.power))


def codes_alone(model: Hart, n: int, per_prompt: int, seed: int, progress: Progress | None = None) -> Side:
    """Prompts, seed and noise are those of the samples with the residual, so the codes are the same."""
    plain = without_residual(model)
    score, power, _ = score_samples(plain, n, per_prompt, seed, progress=progress, every=n * per_prompt)
    return side(score_ceiling(plain, n), score, power)
