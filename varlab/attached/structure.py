"""What a module is, by its structure and its call signatures: family, blocks and sublayers.

Names are those of the released code of Infinity, HART and VAR, which forks keep; packages and class names are not
looked at, except for wrappers that hide a module.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from varlab.errors import VarlabError
from varlab.models.base import NextScaleModel

FAMILIES = {  # the first that fits; a HART has all that a VAR has
    "hart": ("blocks", "patch_nums", "vae_quant_proxy", "vae_proxy", "diffloss", "decoder_norm", "get_logits"),
    "var": ("blocks", "patch_nums", "vae_quant_proxy", "vae_proxy", "get_logits"),
    "infinity": ("block_chunks or unregistered_blocks", "word_embed", "get_logits"),
}
SUBLAYERS = {  # our name of a sublayer -> the released one, in order of the call
    "infinity": {"attention": "sa", "cross": "ca", "ffn": "ffn"},
    "hart": {"attention": "attn", "ffn": "ffn"},
    "var": {"attention": "attn", "ffn": "ffn"},
}
ENTRY = "autoregressive_infer_cfg"


@dataclass(frozen=True)
class Structure:
    """``module`` without its wrappers; ``missing``: sublayers that the blocks do not have under the released name."""

    family: str
    module: nn.Module
    blocks: tuple[nn.Module, ...]
    missing: tuple[str, ...] = ()

    @property
    def sublayers(self) -> dict[str, str]:
        return {ours: theirs for ours, theirs in SUBLAYERS[self.family].items() if ours not in self.missing}


def structure_of(model: Any) -> Structure:
    """Recognise a module.

    Raises
    ------
    VarlabError
        For what is no module, one of no known structure (with what was looked for and found), and one that is
        compiled, sharded, empty or in training mode.
    """
    if isinstance(model, NextScaleModel):
        raise VarlabError(f"{model.name} is varlab's own model. Use vl.log or vl.sample, which have the same probes.")
    if not isinstance(model, nn.Module):
        raise VarlabError(f"vl.attach takes the model itself, a torch module, not {type(model).__name__}.")
    module = unwrapped(model)
    family = next((name for name, parts in FAMILIES.items() if not _absent(module, parts)), None)
    if family is None:
        raise VarlabError(_unknown(module))
    blocks = tuple(_infinity_blocks(module) if family == "infinity" else module.blocks)  # type: ignore[arg-type]
    if not blocks or not all(isinstance(block, nn.Module) for block in blocks):
        raise VarlabError(f"{type(module).__name__} has the names of {family}, but its blocks are no modules.")
    _refuse_state(module)
    _refuse_signature(blocks[0], family)
    names = SUBLAYERS[family]
    missing = tuple(
        ours
        for ours, theirs in names.items()
        if not all(isinstance(getattr(block, theirs, None), nn.Module) for block in blocks)
    )
    return Structure(family, module, blocks, missing)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel. Raises VarlabError for FSDP."""
    for name, part in (("the model", model), *model.named_modules()):
        kind = type(part).__name__
        if "FullyShardedDataParallel" in kind or kind.startswith("FSDP"):
            raise VarlabError(
                f"{name or 'the model'} is wrapped in {kind}: its weights lie in shards. Load the plain model for "
                "sampling (the official scripts gather the state dict first), and attach to that."
            )
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _absent(module: nn.Module, parts: tuple[str, ...]) -> list[str]:
    return [part for part in parts if not any(hasattr(module, name) for name in part.split(" or "))]


def _unknown(module: nn.Module) -> str:
    wanted = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in FAMILIES.items())
    lacks = "; ".join(f"{name} lacks {', '.join(_absent(module, parts))}" for name, parts in FAMILIES.items())
    held = ", ".join(name for name, _ in module.named_children()) or "no submodules"
    return (
        f"{type(module).__name__} has no structure that is known. Looked for: {wanted}. Found: {held} ({lacks}). "
        "Give the transformer itself, not a pipeline around it."
    )


def _infinity_blocks(module: Any) -> Iterator[nn.Module]:
    """In the order of their calls. ``unregistered_blocks`` lists what lies in ``block_chunks[i].module``."""
    listed = list(getattr(module, "unregistered_blocks", ()))
    chunks = [getattr(chunk, "module", chunk) for chunk in getattr(module, "block_chunks", ())]
    nested = [block for chunk in chunks for block in (chunk if hasattr(chunk, "__iter__") else (chunk,))]
    if listed and nested and [id(block) for block in listed] != [id(block) for block in nested]:
        raise VarlabError(
            f"unregistered_blocks lists {len(listed)} blocks and block_chunks holds {len(nested)} others: which of "
            "them run cannot be told. Let both name the same modules."
        )
    yield from nested or listed


def _refuse_state(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if getattr(part, "_orig_mod", None) is not None or getattr(part, "_compiled_call_impl", None) is not None:
            raise VarlabError(
                f"{name or 'The model'} is compiled by torch.compile, inside which nothing can be seen. Attach to the "
                "model before it is compiled."
            )
    if (name := _compiled(module)) is not None:
        raise VarlabError(f"{name} is compiled by torch.compile. Attach to the model before it is compiled.")
    if empty := next((name for name, p in module.named_parameters() if p.is_meta), None):
        raise VarlabError(f"{type(module).__name__} has no weights ({empty} is on the meta device). Load them first.")
    if module.training:
        raise VarlabError(
            f"{type(module).__name__} is in training mode, where dropout and stochastic depth act. Call model.eval()."
        )


def _compiled(module: nn.Module) -> str | None:
    """A compiled method of the sampler or a compiled ``forward`` below it. The read-out may be: it is heard from
    outside."""
    own = {"get_logits"}
    for kind in (module, *(kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch."))):
        for name, value in vars(kind).items():
            if name not in own and hasattr(value, "_torchdynamo_orig_callable"):
                return name
            own.add(name)  # an object's own method stands in front of its class's
    parts = module.named_modules()
    return next((f"{n}.forward" for n, p in parts if hasattr(p.forward, "_torchdynamo_orig_callable")), None)


def _refuse_signature(block: nn.Module, family: str) -> None:
    taken = inspect.signature(block.forward).parameters
    if "x" not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        raise VarlabError(
            f"A block of {family} is called with x, its tokens [rows, tokens, width]; {type(block).__name__}.forward "
            f"takes {', '.join(taken)}."
        )
