"""Samplers under the released names that hold our weights: to try ``vl.attach`` and to time it without these codes.

Written from the facts on them (names, signatures, call order), with our own layers: what they compute is what our
engine computes, by another loop. No code of theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from varlab.attached.standins import hart, infinity, var
from varlab.attached.starts import keywords
from varlab.errors import VarlabError
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity_model import Infinity
from varlab.models.var_model import VAR


@dataclass(frozen=True)
class Released:
    """``model``: the transformer with its sampler; ``vae``: Infinity's tokenizer, None of the others, which hold their
    own; ``own``: the model of ours whose weights both have."""

    model: nn.Module
    vae: nn.Module | None
    own: Infinity | Hart | VAR

    def arguments(self, prompts: Sequence[str], **more: Any) -> dict[str, Any]:
        """Keywords of its sampler for prompts or class numbers, at the model's own guidance; ``more`` over them.

        Labels are drawn from all values: these samplers know no top-k but 1, and no top-p.
        """
        own, settings = self.own, self.own.settings
        reader = getattr(own, "read_prompts", None)
        text = list(prompts) if reader is None else reader(list(prompts))
        given = keywords(own.family, self.vae, text, own, {"cfg": settings.cfg, "tau": settings.tau})
        given |= {"top_k": 0, "top_p": 0.0}
        if isinstance(settings, HartSettings):
            given |= {"more_smooth": settings.smooth, "num_maskgit_iters": settings.passes}
        return given | more

    def draw(self, prompts: Sequence[str], **more: Any) -> Any:
        """What one call of its sampler returns."""
        return self.model.autoregressive_infer_cfg(**self.arguments(prompts, **more))  # type: ignore[operator]


def stand_in(own: Infinity | Hart | VAR) -> Released:
    """A sampler under the released names of the model's family, with a copy of its weights.

    Raises
    ------
    VarlabError
        For what is no model of varlab.

    Examples
    --------
    >>> theirs = stand_in(vl.load("nano-infinity"))
    >>> with vl.attach(theirs.model, vae=theirs.vae) as hooked:
    ...     theirs.draw(["a red star above a blue ring"])
    """
    if isinstance(own, Infinity):
        return Released(infinity.StandIn(own), infinity.StandInVAE(own.tokenizer), own)
    if isinstance(own, Hart):
        return Released(hart.StandIn(own), None, own)
    if isinstance(own, VAR):
        return Released(var.StandIn(own), None, own)
    raise VarlabError(f"stand_in takes a model of varlab, as vl.load returns it, not {type(own).__name__}.")
