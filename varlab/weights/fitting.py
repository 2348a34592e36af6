"""Tensors into the native modules, strictly: every name and every shape, or one error that says why.

Source: the file layouts of the released Infinity, HART and VAR models.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.machine import DIFFUSION, DTYPES
from varlab.models.widened import BF16_WEIGHTS
from varlab.weights.choosing import short
from varlab.weights.official import likely_cause

DISCARDED = {"lvl_1L", "attn_bias_for_masking", "Infinity_visible_kvlen", "Infinity_invisible_qlen"}


def constants(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module that files may hold but no model learns, with the values that we compute with."""
    own: dict[str, Tensor] = module.constants() if hasattr(module, "constants") else {}  # type: ignore[operator]
    known = {name: constant(name, tensor.shape) for name, tensor in module.state_dict().items()}
    return {name: value for name, value in known.items() if value is not None} | own


def learnt(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module without the constants."""
    known = constants(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name not in known}


def constant(name: str, shape: torch.Size) -> Tensor | None:
    """The value of a tensor that files hold but no model learns, else None."""
    if name.endswith("zero_k_bias"):
        return torch.zeros(shape)
    if name.endswith("lfq.mask"):
        return torch.ones(shape, dtype=torch.int64) << torch.arange(shape[0] - 1, -1, -1)
    return None


def dtype_of(name: str, stored: torch.dtype, precision: str) -> torch.dtype:
    """fp32, and under "bf16" or "fp16" that type for the transformer's blocks, the convolutions of Infinity's tokenizer
    and those of the decoders of VAR's and HART's, whose official runs compute them in half precision; under
    "bf16-diffusion" and "fp16-diffusion" also for HART's diffusion head. With "bf16-weights" it is the matrices of the
    blocks alone, which are widened before use (``models.widened``).

    Text projections, level table, word embedding, shared modulation, head, quantiser and norms of the tokenizer stay
    fp32, as the official run holds them. Integer tensors keep their type.
    """
    if not stored.is_floating_point:
        return stored
    blocks = name.startswith(("block_chunks.", "blocks."))
    if precision == BF16_WEIGHTS:
        return torch.bfloat16 if blocks and name.endswith(".weight") and "norm" not in name else torch.float32
    wrapped = re.search(r"(?<!sample)\.conv\.", name) is not None  # Infinity's
    decoder = name.startswith(("decoder.", "post_quant_conv.")) and "norm" not in name
    diffusion = name.startswith("diffloss.") and precision.endswith(DIFFUSION)
    return DTYPES[precision] if blocks or wrapped or decoder or diffusion else torch.float32


def retype(module: nn.Module, precision: str) -> None:
    """Give a module without values the types that those of its weights would have."""
    typed = {name: tensor.to(dtype_of(name, tensor.dtype, precision)) for name, tensor in module.state_dict().items()}
    module.load_state_dict(typed, assign=True)


def adapt(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], label: str, fixed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The file's tensors under the module's names; ``fixed`` are its constants.

    Dead keys are dropped, convolutions and norms of a VAE may lack their wrapper's name, constants may be
    absent but not other than we compute with, and the null text is cut to the model's length. A longer one
    cannot be made: the official code pads it with values of a constructor that no file holds.
    """
    spelling = {short(name): name for name in wanted}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name not in DISCARDED or name in wanted:
            proper = name if name in wanted else spelling.get(name, name)
            found[name if proper in tensors else proper] = tensor
    for name, value in fixed.items():
        if found.setdefault(name, value).shape != value.shape:
            continue
        if not torch.equal(found[name].to(value.dtype), value):
            stages = _stages(name, found[name], value)
            raise VarlabError(
                f"{label}: {name} is not the constant that this model computes with.{stages} Is the file "
                "edited, or of another schedule (patch_nums)?"
            )
    rows, null = wanted.get("cfg_uncond"), found.get("cfg_uncond")
    if rows is not None and null is not None and rows.ndim == null.ndim == 2 and rows.shape[1] == null.shape[1]:
        if null.shape[0] < rows.shape[0]:
            raise VarlabError(
                f"{label}: its null text has {null.shape[0]} rows, the model reads {rows.shape[0]}. The missing rows "
                f"are nowhere stored; it is of a model with text_length={null.shape[0]}: give the file of this one."
            )
        found["cfg_uncond"] = null[: rows.shape[0]]
    return found


def _stages(name: str, found: Tensor, wanted: Tensor) -> str:
    """The tokens of each stage where a file counts them."""
    if name != "lvl_1L" or found.is_floating_point() or int(found.min()) < 0:
        return ""
    own, ours = (torch.bincount(level.flatten().long()).tolist() for level in (found, wanted))
    return f" It was made for stages of {own} tokens, this model has {ours}."


def differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, in words; empty when all names, shapes and kinds of number agree."""
    words = []
    missing, unexpected = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing:
        words.append(f"{len(missing)} missing ({grouped(missing)})")
    if unexpected:
        words.append(f"{len(unexpected)} unexpected ({grouped(unexpected)}{_near(unexpected, missing)})")
    other = [
        f"{name} {_shape(found[name])} for {_shape(tensor)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if other:
        words.append(f"{len(other)} of another shape ({grouped(other)})")
    kinds = [
        f"{name} {found[name].dtype} for {tensor.dtype}".replace("torch.", "")
        for name, tensor in wanted.items()
        if name in found and found[name].is_floating_point() != tensor.is_floating_point()
    ]
    return [*words, f"{len(kinds)} of another kind of number ({grouped(kinds)})"] if kinds else words


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def grouped(names: Iterable[str], limit: int = 5) -> str:
    """Names that differ in their numbers alone are one, with how many: ``blocks.*.ffn.fc1.bias (16)``."""
    groups: dict[str, list[list[str]]] = defaultdict(list)
    for name in sorted(names):
        groups[re.sub(r"\d+", "*", name)].append(re.split(r"(\d+)", name))
    words = []
    for members in groups.values():
        common = [parts[0] if len(set(parts)) == 1 else "*" for parts in zip(*members, strict=True)]
        words.append("".join(common) + (f" ({len(members)})" if len(members) > 1 else ""))
    left = sum(map(len, list(groups.values())[limit:]))
    return ", ".join(words[:limit]) + (f" and {left} more" if left else "")


def _near(unexpected: Iterable[str], missing: Iterable[str]) -> str:
    """One pair of names that may be two spellings of the same tensor."""
    for name in sorted(unexpected):
        if near := get_close_matches(name, sorted(missing), n=1, cutoff=0.8):
            return f"; {name} for {near[0]}?"
    return ""


def fit(module: nn.Module, tensors: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """The file's tensors under the module's names, all and no other; else one VarlabError with the likely cause."""
    wanted = module.state_dict()
    found = adapt(wanted, tensors, label, constants(module))
    if words := differences(wanted, found):
        raise VarlabError(
            f"{label} does not fit this {type(module).__name__}. {likely_cause(tensors)} Keys: {'; '.join(words)}."
        )
    return found


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], label: str, precision: str = "fp32", device: str = "cpu"
) -> None:
    """Fill a module (best built on the meta device) with copies of the tensors, each cast on its own.

    Memory: the module once; the file is only mapped. Errors as in ``fit``, and for weights that "fp16" cannot hold.
    """
    found = fit(module, tensors, label)
    copies = {k: v.to(device, dtype_of(k, v.dtype, precision), copy=True) for k, v in found.items()}
    large = [k for k, v in copies.items() if v.dtype == torch.float16 and not v.isfinite().all()]
    if large:
        raise VarlabError(f"{label} holds numbers that fp16 cannot ({grouped(large)}): take precision bf16 or fp32.")
    module.load_state_dict(copies, assign=True)
