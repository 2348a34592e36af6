"""The three families: which configs, modules, settings and kinds of prompt belong together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from varlab.models.guidance import Settings
from varlab.models.hart import HartConfig, HartTransformer
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer

TransformerConfig = InfinityConfig | HartConfig | VARConfig
TokenizerConfig = BSQConfig | HybridConfig | VQConfig


@dataclass(frozen=True)
class Family:
    """``reads``: what a mini of the family is prompted with."""

    transformer: type[TransformerConfig]
    tokenizer: type[TokenizerConfig]
    settings: type[Settings]
    reads: Literal["captions", "classes"]


FAMILIES = {
    "infinity": Family(InfinityConfig, BSQConfig, Settings, "captions"),
    "hart": Family(HartConfig, HybridConfig, HartSettings, "captions"),
    "var": Family(VARConfig, VQConfig, Settings, "classes"),
}

MODULES: dict[type, Callable[[Any], nn.Module]] = {
    InfinityConfig: InfinityTransformer,
    BSQConfig: BSQTokenizer,
    HartConfig: HartTransformer,
    HybridConfig: HybridTokenizer,
    VARConfig: VARTransformer,
    VQConfig: VQTokenizer,
}


def build(config: TransformerConfig | TokenizerConfig) -> nn.Module:
    """The module that a config describes."""
    return MODULES[type(config)](config)


def family_of(config: TransformerConfig) -> str:
    return next(name for name, family in FAMILIES.items() if family.transformer is type(config))
