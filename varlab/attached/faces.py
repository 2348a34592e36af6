"""The face that probes know, of a module of others: sizes and costs from its shapes, pictures from its own decoder.

The networks behind it are on the meta device: they hold no weights and compute nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from varlab.attached import configs
from varlab.attached.structure import Structure
from varlab.context import shapes_only
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.hart import HartTransformer
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings
from varlab.models.infinity import InfinityTransformer
from varlab.models.infinity_model import Infinity
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARTransformer
from varlab.models.var_model import VAR
from varlab.schedules import Schedule, square

Decode = Callable[[Tensor], Tensor]  # canvas [B, b, h, w] -> images in [-1, 1]


class Seen:
    """What a face has in place of its family's: the device, type and decoder of the module. Mixed in before a family.

    Attributes
    ----------
    seen : the module's structure
    picture : canvas [B, b, h, w] -> images [B, 3, H, W] in [-1, 1], by the module's own decoder
    """

    seen: Structure
    picture: Decode

    @property
    def device(self) -> torch.device:
        return next(self.seen.module.parameters()).device

    @property
    def precision(self) -> str:
        """Of the weights of the blocks."""
        types = {p.dtype for p in self.seen.blocks[0].parameters() if p.ndim > 1}
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return " and ".join(sorted(names.get(kind, str(kind)) for kind in types))

    def decode(self, canvas: Tensor) -> Tensor:
        return to_image(self.picture(canvas))

    @property
    def stride(self) -> int:
        """Pixels on a side of a latent, told by the decoder itself."""
        if not hasattr(self, "_stride"):
            small = self.new_canvas(1)[..., :2, :2]  # type: ignore[attr-defined]
            self._stride = int(self.decode(small).shape[-1]) // int(small.shape[-1])
        return self._stride


def to_image(decoded: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], fp32; a new tensor, since the released samplers write over theirs."""
    return (decoded.clamp(-1, 1).float() + 1) / 2


class SeenInfinity(Seen, Infinity):
    pass


class SeenVAR(Seen, VAR):
    pass


class SeenHart(Seen, Hart):
    pass


def face_of(
    structure: Structure, vae: nn.Module | None, schedule: Schedule | None, text_length: int, picture: Decode
) -> SeenInfinity | SeenVAR | SeenHart:
    """``vae`` and ``schedule`` of an Infinity, ``text_length`` of a HART; the others know these themselves.

    Raises VarlabError for shapes that are none of the family's.
    """
    build = {"infinity": _infinity, "var": _var, "hart": _hart}[structure.family]
    kind = {"infinity": SeenInfinity, "var": SeenVAR, "hart": SeenHart}[structure.family]
    hollow = type(kind.__name__, (kind,), {"seen": structure, "picture": staticmethod(picture)})
    with shapes_only():
        parts = build(structure, vae, schedule, text_length)
    made = hollow(**parts, name=type(structure.module).__name__, weights="attached")
    made.execution = "attached"
    return made  # type: ignore[no-any-return]


def _infinity(structure: Structure, vae: nn.Module | None, schedule: Schedule | None, _: int) -> dict[str, Any]:
    assert vae is not None and schedule is not None
    config = configs.infinity_config(structure.module, len(structure.blocks), vae)
    return {
        "transformer": InfinityTransformer(config),
        "tokenizer": BSQTokenizer(BSQConfig(configs.latent_bits(vae), channels=32, multipliers=(1,), blocks=1)),
        "schedule": schedule,
        "settings": Settings(),
    }


def _var(structure: Structure, *_: Any) -> dict[str, Any]:
    config = configs.var_config(structure.module, len(structure.blocks))
    image = VQConfig(config.codes, config.code_width, channels=32, multipliers=(1,), blocks=1, stages=len(config.sides))
    tokenizer = VQTokenizer(image)
    tokenizer.quantize.embedding = structure.module.vae_quant_proxy[0].embedding  # type: ignore[index,union-attr]
    return {"transformer": VARTransformer(config), "tokenizer": tokenizer, "settings": Settings(cfg=1.5)}


def _hart(structure: Structure, _: Any, __: Any, text_length: int) -> dict[str, Any]:
    config = configs.hart_config(structure.module, text_length)
    image = HybridConfig(config.vocabulary, config.latents, channels=32, multipliers=(1,), blocks=1)
    tokenizer = HybridTokenizer(image)
    tokenizer.quantize.embedding = structure.module.vae_quant_proxy[0].embedding  # type: ignore[index,union-attr]
    sides = configs.sides_of(structure.module)
    if config.depth != len(structure.blocks):
        raise VarlabError(f"{len(structure.blocks)} blocks run, but the weights hold {config.depth}.")
    return {
        "transformer": HartTransformer(config),
        "tokenizer": tokenizer,
        "schedule": square(sides, f"hart-{sides[-1]}"),
        "settings": HartSettings(),
    }
