"""The files of an official Infinity or VAR: found by name or path, and read into its two parts.

A training checkpoint of VAR holds both parts: given alone, it serves for both.
"""

from pathlib import Path

from torch import nn

from varlab.errors import VarlabError, quoted
from varlab.weight_labels import WeightsLabel
from varlab.weights.choosing import choose, coverage
from varlab.weights.content import content_of
from varlab.weights.embedded import Parts
from varlab.weights.fitting import load_into
from varlab.weights.official import ModelEntry
from varlab.weights.pairs import Part, labelled
from varlab.weights.places import checkpoint_folder, in_folder, locate, split_part
from varlab.weights.reading import Checkpoint, read
from varlab.weights.registry import empty


def require_files(
    entry: ModelEntry,
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    otherwise: str = "Or choose a model whose weights are here: varlab models.",
) -> tuple[Path, Path]:
    """The files of transformer and tokenizer: what was given, else those in the checkpoint folder.

    A folder or hub id given for one serves the other too, and so does a file that holds both. All that is missing is
    named in one VarlabError, which ends with ``otherwise``.
    """
    path = _find_file(entry.file, checkpoint)
    if tokenizer is None and checkpoint is not None and path is not None:
        tokenizer = _beside(entry, checkpoint, path)
    images = _find_file(entry.tokenizer_file, tokenizer)
    if path is not None and images is not None:
        return path, images
    if path is None and not entry.file:
        raise VarlabError(f"No weights of {entry.name} were released. {otherwise}")
    missing = [file for file, found in ((entry.file, path), (entry.tokenizer_file, images)) if found is None]
    names, verb = " and ".join(missing), "is" if len(missing) == 1 else "are"
    raise VarlabError(
        f"{entry.name}: {names} {verb} not in {checkpoint_folder()}. Put {names} there, or set VARLAB_CHECKPOINTS to "
        f"the folder that holds the files. {otherwise}"
    )


def ways(entry: ModelEntry) -> str:
    """What else a caller of ``load`` can do about missing files."""
    hub = f" (checkpoint={quoted(entry.hub)} downloads both)" if entry.file else ""
    return (
        f"Or give checkpoint=PATH and tokenizer=PATH{hub}, or init='random' for untrained weights. "
        "(On the command line: --checkpoint PATH --tokenizer PATH, or --init random.)"
    )


def _find_file(file: str, source: str | Path | None) -> Path | None:
    """The file to read: what was given, else the official or converted file in the checkpoint folder."""
    return in_folder(checkpoint_folder(), file) if source is None else locate(source, file)


def _beside(entry: ModelEntry, checkpoint: str | Path, path: Path) -> str | Path | None:
    """The tokenizer that comes with a given transformer: in its folder, in its repository or in the same file."""
    file, part = split_part(path)
    if found := in_folder(file.parent, entry.tokenizer_file) or in_folder(file, entry.tokenizer_file):
        return found
    if not split_part(checkpoint)[0].exists():
        return entry.hub
    both = not part and coverage(read(path), empty(entry).tokenizer.state_dict()) > 0.5
    return path if both else None


def read_official(
    entry: ModelEntry, parts: Parts, paths: tuple[Path, Path], precision: str, device: str
) -> WeightsLabel:
    """Fill both modules and say from which files, each with the hash of its content."""
    stored, images = read(paths[0]), read(paths[1])
    if stored.metadata.get("name", entry.name) != entry.name:
        raise VarlabError(f"{paths[0]} was converted as {stored.metadata['name']}, not {entry.name}.")
    released = f", released with {entry.tokenizer_file}" if entry.file else ""
    transformer = fill(parts.transformer, stored, f"for {entry.name}", precision, device)
    tokenizer = fill(parts.tokenizer, images, f"tokenizer of {entry.name}{released}", precision, device)
    return labelled(entry, transformer, tokenizer)


def fill(module: nn.Module, stored: Checkpoint, what: str, precision: str, device: str, ema: bool = False) -> Part:
    """Load the part of a file that is this module's, and look at what it holds."""
    own = choose(stored, module.state_dict(), ema)
    load_into(module, own.tensors, f"{own.label} ({what})", precision, device)
    return Part(own, content_of(module, own.files, own.part))
