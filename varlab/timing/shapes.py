"""A run by shapes alone: networks, keys, noise and pictures on torch's meta device, which computes nothing.

The engine goes its usual way, so the ledger is that of a real run, at full size and on any machine. What must see a
value (a threshold on scores, a decision) cannot run this way and is refused by name.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from varlab.comparison import methods_of
from varlab.engine.hooks import Probe
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel
from varlab.models.hart import HartText
from varlab.models.infinity import TextBatch

META = torch.device("meta")
WORDS = 32  # text tokens of a prompt where the family takes any number


class ShapeNoise:
    """Noise without numbers: the shapes of ``engine.randomness.Noise``."""

    def uniform(self, kind: str, stage: int, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return torch.empty((len(samples), *shape), device=META)

    normal = exponential = uniform


def prompts_of(model: NextScaleModel, batch: int) -> Any:
    """Text features, or classes, of a batch that is read by shapes."""
    config: Any = model.transformer.config  # type: ignore[attr-defined]
    if model.family == "infinity":
        return TextBatch(torch.empty(batch * WORDS, config.text_width, device=META), (WORDS,) * batch)
    if model.family == "hart":
        features = torch.empty(batch, config.text_length, config.text_width, device=META)
        return HartText(features, torch.ones(batch, config.text_length, dtype=torch.bool, device=META))
    return [0] * batch


def shape_run(model: NextScaleModel, spec: str = "none", batch: int = 1, probes: Sequence[Probe] = ()) -> Ledger:
    """The ledger of a batch by a method.

    model: loaded with ``init="empty"``. Raises VarlabError for a method whose work depends on values.
    """
    if model.device != META:
        raise VarlabError(f"{model.name} lies on {model.device}: load it with init='empty' for a run by shapes.")
    methods = methods_of(spec)
    try:
        run = Run(model, model.settings, ShapeNoise(), probes)
        return run.generate(prompts_of(model, batch), range(batch), methods).ledger
    except (NotImplementedError, RuntimeError) as error:
        raise VarlabError(
            f"{spec} decides by values, which a run by shapes does not have ({str(error).splitlines()[0]}). Give it a "
            "fixed share or count, such as sparsevar:keep=0.49 in place of a threshold."
        ) from error
