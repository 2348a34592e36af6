"""Where weight files lie: the checkpoint folder, folders of other programs, the Hugging Face hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from varlab.errors import VarlabError
from varlab.resources import shipped

SUFFIXES = {".pth", ".pt", ".ckpt", ".bin", ".safetensors"}
STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")  # of transformers and diffusers
SINGLE = tuple(f"{stem}.{kind}" for kind in ("safetensors", "bin") for stem in STEMS)
INDEX = ".index.json"
INDICES = tuple(f"{name}{INDEX}" for name in SINGLE)


def checkpoint_folder() -> Path:
    """Where official files are looked for when no path is given: ``$VARLAB_CHECKPOINTS`` or the user's cache."""
    given = os.environ.get("VARLAB_CHECKPOINTS")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "varlab" / "checkpoints"


def split_part(source: str | Path) -> tuple[Path, str]:
    """``FILE#PART`` names one set of tensors of a file that holds several: the file, and the part or nothing."""
    path = Path(source).expanduser()
    file, mark, part = str(path).rpartition("#")
    return (path, "") if not mark or path.exists() else (Path(file), part)


def in_folder(folder: Path, file: str) -> Path | None:
    """An official file or folder, or the same name with another suffix of weights, if the folder holds one of them."""
    stem = file.removesuffix(Path(file).suffix) if Path(file).suffix in SUFFIXES else file
    names = (file, *(f"{stem}{suffix}" for suffix in (".safetensors", *sorted(SUFFIXES))), stem) if file else ()
    return next((folder / name for name in names if (folder / name).exists()), None)


def weight_file(folder: Path, preferred: Sequence[str] = ()) -> Path:
    """The index or file of weights that a folder holds: a usual name, else the only one with a suffix of weights.

    Raises VarlabError where there is none, and where several are equally good.
    """
    for name in (*preferred, *INDICES, *SINGLE):
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in SUFFIXES)
    indices = sorted(folder.glob(f"*{INDEX}"))
    if len(indices) == 1 or len(files) == 1:
        return indices[0] if len(indices) == 1 else files[0]
    if files:
        names = ", ".join(path.name for path in files[:8])
        raise VarlabError(f"{folder} holds {len(files)} weight files, none of them by a usual name: {names}. Give one.")
    below = sorted({path.parent.name for path in folder.glob("*/*") if path.suffix in SUFFIXES})
    hint = f" Its folders {', '.join(below)} do: give one of them." if below else ""
    raise VarlabError(
        f"{folder} holds no weights: no {SINGLE[0]}, no {INDICES[0]} and no other file with a name in "
        f"{', '.join(sorted(SUFFIXES))}.{hint}"
    )


def locate(source: str | Path, file: str = "") -> Path:
    """A local file or folder, or a file of a hub repository.

    ``source`` is a path, a folder that holds ``file``, a hub id ("owner/name", then ``file`` is fetched), or
    "owner/name/file"; each may end in "#part". Raises VarlabError when nothing is there or the hub cannot be reached.
    """
    path, part = split_part(source)
    if path.exists():
        inside = in_folder(path, file) if file and path.is_dir() else None
        path = inside or path
        return path.with_name(f"{path.name}#{part}") if part else path
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


def data_folder() -> Path:
    """Where the minis lie: ``$VARLAB_DATA``, else what ships."""
    given = os.environ.get("VARLAB_DATA")
    return Path(given).expanduser() if given else shipped("data")


def mini_folders() -> dict[str, Path]:
    """Name -> folder of every mini that is there now."""
    return {path.parent.name: path.parent for path in sorted(data_folder().glob("*/model.json"))}
