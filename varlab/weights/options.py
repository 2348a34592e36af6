"""What can be asked of a model when it is loaded, and what of it contradicts the model or the machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from varlab.errors import VarlabError, quoted, unknown
from varlab.machine import DIFFUSION, DTYPES, half, usable
from varlab.models.hart_model import HartEncoder
from varlab.models.hart_settings import Savings
from varlab.models.quantised import INT8, require_torchao
from varlab.models.text import TextEncoder
from varlab.models.tokenizers.strips import check_strips
from varlab.models.widened import BF16_WEIGHTS
from varlab.weights.memory import refuse_what_cannot_fit
from varlab.weights.official import ModelEntry
from varlab.weights.precision import PRECISIONS

INITS = ("checkpoint", "random", "empty")


def check_precision(precision: str, entry: ModelEntry) -> None:
    """Raises VarlabError for one that is not known, and for that of a part that the model lacks."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision.endswith(DIFFUSION) and entry.family != "hart":
        plain = precision.removesuffix(DIFFUSION)
        raise VarlabError(f"{entry.name} has no diffusion head, only HART has: take precision {plain}.")


@dataclass(frozen=True)
class LoadOptions:
    """The options of ``zoo.load``, which explains them."""

    init: str = "checkpoint"
    device: str = "cpu"
    precision: str = "fp32"
    pixels: str | None = None
    ratio: float = 1.0
    checkpoint: str | Path | None = None
    tokenizer: str | Path | None = None
    text: str | TextEncoder | HartEncoder | None = None
    seed: int = 0
    savings: Savings | Mapping[str, bool] | None = None
    strips: int | None = None

    def check(self, entry: ModelEntry) -> None:
        """Raises VarlabError for what the model does not take; looks at no file."""
        if self.init not in INITS:
            raise unknown("init", self.init, INITS)
        check_precision(self.precision, entry)
        if self.precision == INT8:
            require_torchao()
        if self.init != "checkpoint" and (self.checkpoint or self.tokenizer):
            raise VarlabError(f"init={quoted(self.init)} reads no files: leave checkpoint and tokenizer out, or init.")
        if entry.folder is not None and self.tokenizer:
            raise VarlabError(f"{entry.name} brings its own tokenizer: leave tokenizer out.")
        if self.savings is not None and entry.family != "hart":
            raise VarlabError(f"{entry.name} has no such switches, only HART has: leave savings out.")
        self._check_text(entry)
        self._check_device()
        check_strips(self.strips)

    def _check_text(self, entry: ModelEntry) -> None:
        text = self.text
        if entry.text == "classes" and text is not None:
            raise VarlabError(f"{entry.name} reads class labels, such as 207, and no text: leave text out.")
        if entry.family == "hart" and entry.folder is not None and text not in (None, "captions"):
            raise VarlabError(
                f"{entry.name} reads the captions of its card with its own encoder: leave text={quoted(text)} out."
            )
        if isinstance(text, str) and text not in ("random", entry.text) and "captions" in (text, entry.text):
            raise VarlabError(f"{entry.name} reads {entry.text}, not text={quoted(text)}: leave text out.")

    def _check_device(self) -> None:
        kind = usable(self.device).type
        if DTYPES[self.precision] == torch.bfloat16 and kind == "cuda" and half(torch.device(self.device)) != "bf16":
            raise VarlabError(f"{torch.cuda.get_device_name(self.device)} has no bf16: take precision fp16 or fp32.")
        if self.precision == BF16_WEIGHTS and kind != "cpu":
            halved = half(torch.device(self.device))
            raise VarlabError(f"precision {BF16_WEIGHTS} is for slow bf16 on processors: take {halved} or fp32.")
        if kind == "meta":
            raise VarlabError("For shapes without weights use init='empty', not device='meta'.")

    def check_memory(self, entry: ModelEntry) -> None:
        """Refuse a model that cannot be held and draw one image."""
        if self.init == "empty":
            return
        random = self.text is None and self.init == "random"
        without_encoder = random or self.text in ("random", "features") or callable(self.text)
        refuse_what_cannot_fit(
            entry, entry.schedule(self.pixels, self.ratio), self.precision, self.device, ratio=self.ratio,
            without_encoder=without_encoder, strips=self.strips,
        )  # fmt: skip

    def switches(self) -> Savings | None:
        """HART's switches asked for; None for the model's own."""
        return None if self.savings is None else Savings.of(self.savings)
