"""Weight files to tensors: torch's and safetensors' formats, one file, shards, or a folder of another program.

Dictionaries within dictionaries become dotted names, so a training checkpoint reads like a flat file whose names have
a prefix; ``choosing`` finds the one wanted. Nothing that a pickle could execute is ever run.
"""

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from varlab.errors import VarlabError, quoted
from varlab.weights.places import INDEX, split_part, weight_file

DAMAGED = (  # what torch and safetensors raise for a file that is cut or edited
    RuntimeError, SafetensorError, EOFError, ValueError, OSError, LookupError, AttributeError, TypeError,
    AssertionError, struct.error,
)  # fmt: skip
# Of a training checkpoint: state of what is no model.
TRAINING = re.compile(r"(\w*_)?(opt|optim|optimizer|optimizers|scheduler|schedulers|scaler)(_states?)?|loops|callbacks")
# Wrappers of torch that may stand anywhere in a name and say nothing.
SILENT = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
FOREIGN = {  # first bytes of what is often saved in place of weights
    b"version https://git-lfs": "a Git LFS pointer, not the weights. Run: git lfs pull.",
    b"<": "a page of text (HTML or XML), not the weights: the download went to a page. Fetch the file itself.",
    b"\x1f\x8b": "compressed (gzip). Unpack it first.",
    b"Rar!": "an archive (RAR). Unpack it first.",
    b"7z\xbc\xaf": "an archive (7z). Unpack it first.",
}


@dataclass(frozen=True)
class Checkpoint:
    """Tensors as stored, mapped from disk: reading them costs no memory until they are copied.

    ``part``: which of the file's tensors these are, where it holds several sets; asked for, or chosen.
    """

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file: what ``convert`` noted
    part: str = ""
    folder: Path | None = None  # that was given in place of a file

    @property
    def name(self) -> str:
        """Of the file, or of the folder that was given."""
        return self.files[0].name if self.folder is None else self.folder.resolve().name

    @property
    def label(self) -> str:
        return f"{self.name}#{self.part}" if self.part else self.name


def read(path: str | Path) -> Checkpoint:
    """The tensors of a weight file, a shard index or a folder that holds either; ``FILE#PART`` asks for one part.

    Raises VarlabError that says what the file is where it is no weights.
    """
    path, part = split_part(path)
    if not path.exists():
        raise VarlabError(f"{path} does not exist.")
    folder = path if path.is_dir() else None
    file = path if folder is None else weight_file(folder)
    if file.name.endswith(INDEX):
        return Checkpoint(*_sharded(file), part=part, folder=file.parent)
    content, metadata = _content(file)
    return Checkpoint((file,), _tensors(content, file), metadata, part, folder)


def refuse_what_is_no_weights(path: Path) -> None:
    """From its first bytes: an empty file, a pointer, a page, an archive."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise VarlabError(f"{path} cannot be read ({error.strerror}).") from error
    if not head:
        raise VarlabError(f"{path} is empty: 0 bytes. Fetch it again.")
    if not head.strip(b"\0"):
        raise VarlabError(f"{path} begins with zeros only: the download is not complete. Fetch it again.")
    for begin, what in FOREIGN.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(begin):
            raise VarlabError(f"{path} is {what}")
    if head.isascii() and all(byte >= 32 or byte in b"\r\n\t" for byte in head):
        line = head.decode().strip().splitlines()[0][:60]
        raise VarlabError(f"{path} is text ({quoted(line)}), not weights. Is the download a damaged one, or a message?")


def _content(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file holds, by what it is and not by its suffix, and the notes in the head of a safetensors file."""
    refuse_what_is_no_weights(path)
    try:
        if _is_safetensors(path):
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)), {}
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, error) from None
    except DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise VarlabError(f"{path} could not be read ({reason}). Is the download complete?") from error


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (head[8:] == b"{" and not head.startswith((b"PK", b"\x80")))


def _refused_pickle(path: Path, error: Exception) -> VarlabError:
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign is None:
        return VarlabError(
            f"{path} is no weight file of torch, or a damaged one: its pickle asks for what tensors do not need. "
            "Nothing of it was run."
        )
    return VarlabError(
        f"{path} was refused: besides tensors it holds {foreign[1]}, and unpickling such objects can run any code. "
        "If you trust its origin, convert it where nothing can be harmed (a container without network): "
        "torch.save(torch.load(old, weights_only=False)['...'], new) with the part that holds only tensors."
    )


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """All tensors by their dotted names, without the state of optimizers."""
    if not isinstance(content, Mapping):
        raise VarlabError(f"{path} holds a {type(content).__name__}, not named tensors.")
    found = dict(_walk(content))
    if not found:
        raise VarlabError(f"{path} holds no tensors, only {listing(map(str, content)) or 'an empty dictionary'}.")
    plain = {SILENT.sub("", name): tensor for name, tensor in found.items()}
    return plain if len(plain) == len(found) else found


def _walk(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and not TRAINING.fullmatch(str(key)):
            yield from _walk(value, f"{prefix}{key}.")


def _sharded(index: Path) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    """The files that an index names, and their tensors."""
    try:
        places: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files = tuple(index.parent / name for name in sorted(set(places.values())))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise VarlabError(f"{index} is not a shard index with a weight_map.") from error
    if missing := [file.name for file in files if not file.exists()]:
        raise VarlabError(f"{index.parent} lacks {len(missing)} of {len(files)} shards: {listing(missing)}.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _tensors(_content(file)[0], file)
    stated = {SILENT.sub("", name) for name in places}
    if tensors.keys() != stated:
        raise VarlabError(f"{index.parent}: shards and index disagree on {listing(tensors.keys() ^ stated)}.")
    return files, tensors


def listing(names: Iterable[str], limit: int = 8) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
