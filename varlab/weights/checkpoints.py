"""Weight files into the native modules, strictly: every name and every shape, or one error that says why.

Reads the official files (flat ``.pth``, training checkpoints, VAE dicts, sharded folders) and safetensors,
from a local path or the Hugging Face hub. Nothing that a pickle could execute is ever run.
Source: the file layouts of the released Infinity and VAR models.
"""

import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.weights.official import likely_cause

DISCARDED = {"lvl_1L", "attn_bias_for_masking", "Infinity_visible_kvlen", "Infinity_invisible_qlen"}
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SUFFIXES = {".pth", ".pt", ".bin", ".safetensors"}
PRECISIONS = ("fp32", "bf16")
DAMAGED = (  # what torch and safetensors raise for a file that is cut or edited
    RuntimeError, SafetensorError, EOFError, ValueError, OSError, LookupError, AttributeError, TypeError,
    AssertionError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Tensors as stored, mapped from disk: reading them costs no memory until they are copied."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file: what ``convert`` noted

    @property
    def label(self) -> str:
        return self.files[0].name if len(self.files) == 1 else self.files[0].parent.name


# Finding files


def checkpoint_folder() -> Path:
    """Where official files are looked for when no path is given: ``$VARLAB_CHECKPOINTS`` or the user's cache."""
    given = os.environ.get("VARLAB_CHECKPOINTS")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "varlab" / "checkpoints"


def in_folder(folder: Path, file: str) -> Path | None:
    """An official file, or its conversion (the same name as .safetensors), if the folder holds one of them."""
    places = (folder / file, folder / f"{Path(file).stem}.safetensors") if file else ()
    return next((path for path in places if path.exists()), None)


def locate(source: str | Path, file: str = "") -> Path:
    """A local file or folder, or a file of a hub repository.

    ``source`` is a path, a folder that holds ``file``, a hub id ("owner/name", then ``file`` is fetched), or
    "owner/name/file". Raises VarlabError when nothing is there or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path / file if file and path.is_dir() and (path / file).exists() else path
    hub = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)(?:/(.+))?", str(source))
    if hub is None or Path(hub[1]).suffix in SUFFIXES:
        raise VarlabError(f"{path} does not exist. Give a file, a folder or a Hugging Face id (owner/name/file).")
    if not (hub[2] or file):
        raise VarlabError(
            f"{source} is not here, and names a repository on the hub but no file in it: give owner/name/file."
        )
    return from_hub(hub[1], hub[2] or file)


def from_hub(repository: str, file: str) -> Path:
    """The cached copy of a hub file (or of a folder, when the name has no suffix), downloaded if need be."""
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache

    try:
        if Path(file).suffix not in SUFFIXES:
            return Path(snapshot_download(repository, allow_patterns=[f"{file}/*"])) / file
        cached = try_to_load_from_cache(repository, file)
        return Path(cached if isinstance(cached, str) else hf_hub_download(repository, file))
    except Exception as error:  # the hub's client has a dozen unrelated classes for "not there" and "no network"
        raise VarlabError(
            f"{file} could not be fetched from huggingface.co/{repository} ({type(error).__name__}). "
            f"Without a network, copy it from another machine to {checkpoint_folder() / file}, or give its path."
        ) from error


# Reading files


def read(path: str | Path, ema: bool = False) -> Checkpoint:
    """The tensors of a weight file or sharded folder; ``ema`` takes the averaged ones of a training or VAE file."""
    path = Path(path)
    if path.is_dir():
        return _sharded(path)
    if not path.exists():
        raise VarlabError(f"{path} does not exist.")
    content, metadata = _content(path)
    return Checkpoint((path,), _tensors(content, path, ema), metadata)


def _content(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file holds, and the notes in the head of a safetensors file."""
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise VarlabError(f"{path} is a Git LFS pointer, not the weights. Run: git lfs pull.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)), {}
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is None:
            raise VarlabError(
                f"{path} is no weight file of torch, or a damaged one: its pickle asks for what tensors do not need. "
                "Nothing of it was run."
            ) from error
        raise VarlabError(
            f"{path} was refused: besides tensors it holds {foreign[1]}, and unpickling such objects can run any code. "
            "If you trust its origin, convert it where nothing can be harmed (a container without network): "
            "torch.save(torch.load(old, weights_only=False)['...'], new) with the part that holds only tensors."
        ) from None
    except DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise VarlabError(f"{path} could not be read ({reason}). Is the download complete?") from error


def _tensors(content: Any, path: Path, ema: bool) -> dict[str, Tensor]:
    """The state dict inside a file: itself, ['vae'] or ['ema'], ['trainer']['gpt_fsdp'] or ['gpt_ema_fsdp']."""
    part = None
    if isinstance(content, dict) and isinstance(content.get("trainer"), dict):
        content, part = content["trainer"], "gpt_ema_fsdp" if ema else "gpt_fsdp"
    elif isinstance(content, dict) and any(isinstance(content.get(key), dict) for key in ("vae", "ema")):
        part = "ema" if ema else "vae"
    elif ema:
        raise VarlabError(f"{path} holds one set of weights, no averaged ones beside it. Read it with ema=False.")
    if part is not None:
        if not isinstance(content.get(part), dict):
            raise VarlabError(
                f"{path} has no {part!r}, only {listing(content)}. Averaged weights are taken out once, in Python: "
                "varlab.weights.convert.convert(SOURCE, TARGET, NAME, ema=True)."
            )
        content = content[part]
    if not isinstance(content, dict) or not content:
        raise VarlabError(f"{path} holds a {type(content).__name__}, not named tensors.")
    other = [str(key) for key, value in content.items() if not isinstance(value, Tensor) and key not in DISCARDED]
    if other:
        raise VarlabError(f"{path} is no state dict: {listing(other)} are not tensors.")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _sharded(folder: Path) -> Checkpoint:
    index = next((folder / name for name in INDICES if (folder / name).exists()), None)
    if index is None:
        raise VarlabError(f"{folder} holds no weights: neither {INDICES[0]} nor {INDICES[1]}.")
    try:
        places: dict[str, str] = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise VarlabError(f"{index} is not a shard index with a weight_map.") from error
    files = tuple(folder / name for name in sorted(set(places.values())))
    if missing := [file.name for file in files if not file.exists()]:
        raise VarlabError(f"{folder} lacks {len(missing)} of {len(files)} shards: {listing(missing)}.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _tensors(_content(file)[0], file, ema=False)
    if tensors.keys() != places.keys():
        raise VarlabError(f"{folder}: shards and index disagree on {listing(tensors.keys() ^ places.keys())}.")
    return Checkpoint(files, tensors)


# Fitting them


def listing(names: Iterable[str], limit: int = 8) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def constants(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module that files may hold but no model learns, with the values that we compute with."""
    own: dict[str, Tensor] = module.constants() if hasattr(module, "constants") else {}  # type: ignore[operator]
    known = {name: constant(name, tensor.shape) for name, tensor in module.state_dict().items()}
    return {name: value for name, value in known.items() if value is not None} | own


def constant(name: str, shape: torch.Size) -> Tensor | None:
    """The value of a tensor that files hold but no model learns, else None."""
    if name.endswith("zero_k_bias"):
        return torch.zeros(shape)
    if name.endswith("lfq.mask"):
        return torch.ones(shape, dtype=torch.int64) << torch.arange(shape[0] - 1, -1, -1)
    return None


def dtype_of(name: str, stored: torch.dtype, precision: str) -> torch.dtype:
    """fp32, and under "bf16" bfloat16 for the transformer's blocks, the convolutions of Infinity's tokenizer and those
    of the decoders of VAR's and HART's, whose official runs compute them in half precision.

    Text projections, level table, word embedding, shared modulation, head, quantiser and norms of the tokenizer stay
    fp32, as the official run holds them. Integer tensors keep their type.
    """
    if not stored.is_floating_point:
        return stored
    blocks = name.startswith(("block_chunks.", "blocks."))
    wrapped = re.search(r"(?<!sample)\.conv\.", name) is not None  # Infinity's
    decoder = name.startswith(("decoder.", "post_quant_conv.")) and "norm" not in name
    return torch.bfloat16 if precision == "bf16" and (blocks or wrapped or decoder) else torch.float32


def adapt(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], label: str, fixed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The file's tensors under the module's names; ``fixed`` are its constants.

    Dead keys are dropped, convolutions and norms of a VAE may lack their wrapper's name, constants may be
    absent but not other than we compute with, and the null text is cut to the model's length. A longer one
    cannot be made: the official code pads it with values of a constructor that no file holds.
    """
    spelling = {re.sub(r"\.(conv|norm)\.(weight|bias)$", r".\2", name): name for name in wanted}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name not in DISCARDED or name in wanted:
            proper = name if name in wanted else spelling.get(name, name)
            found[name if proper in tensors else proper] = tensor
    for name, value in fixed.items():
        if found.setdefault(name, value).shape != value.shape:
            continue
        if not torch.equal(found[name].to(value.dtype), value):
            raise VarlabError(f"{label}: {name} is not the constant that this model computes with. Is the file edited?")
    rows, null = wanted.get("cfg_uncond"), found.get("cfg_uncond")
    if rows is not None and null is not None and rows.ndim == null.ndim == 2 and rows.shape[1] == null.shape[1]:
        if null.shape[0] < rows.shape[0]:
            raise VarlabError(
                f"{label}: its null text has {null.shape[0]} rows, the model reads {rows.shape[0]}. The missing rows "
                f"are nowhere stored; it is of a model with text_length={null.shape[0]}: give the file of this one."
            )
        found["cfg_uncond"] = null[: rows.shape[0]]
    return found


def differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, in words; empty when all names, shapes and kinds of number agree."""
    words = []
    if missing := wanted.keys() - found.keys():
        words.append(f"{len(missing)} missing ({listing(missing)})")
    if unexpected := found.keys() - wanted.keys():
        words.append(f"{len(unexpected)} unexpected ({listing(unexpected)})")
    other = [
        f"{name} {'x'.join(map(str, found[name].shape))} for {'x'.join(map(str, tensor.shape))}"
        for name, tensor in wanted.items()
        if name in found
        and (found[name].shape != tensor.shape or found[name].is_floating_point() != tensor.is_floating_point())
    ]
    return [*words, f"{len(other)} of another shape ({listing(other)})"] if other else words


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

    Memory: the module once; the file is only mapped. Errors as in ``fit``.
    """
    found = fit(module, tensors, label)
    copies = {k: v.to(device, dtype_of(k, v.dtype, precision), copy=True) for k, v in found.items()}
    module.load_state_dict(copies, assign=True)
