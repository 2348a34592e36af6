"""Where the files of a HART lie: ``llm/`` and ``tokenizer/`` of its release, or both apart; nothing is read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from varlab.errors import VarlabError
from varlab.weights.places import INDEX, SUFFIXES, checkpoint_folder, split_part, weight_file

AVERAGED = ("ema_model.safetensors", "ema_model.bin")
PLAIN = ("model.safetensors", "pytorch_model.bin")  # of the release
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class Released(Protocol):
    """What is asked of a model here: its name, and the folder or file that it was released as."""

    @property
    def name(self) -> str: ...

    @property
    def file(self) -> str: ...


@dataclass(frozen=True)
class HartFiles:
    """The weight files of both parts and the transformer's ``config.json``."""

    transformer: Path
    config: Path
    tokenizer: Path


def official_files(
    entry: Released, checkpoint: str | Path | None = None, tokenizer: str | Path | None = None, averaged: bool = True
) -> HartFiles:
    """Where everything lies; nothing is read. One error names what is missing and how the folder should look."""
    llm, images = _places(entry, checkpoint, tokenizer)
    transformer = llm if _is_file(llm) else _weights(llm, averaged)
    decoder = images if _is_file(images) else _weights(images)
    config = (llm.parent if _is_file(llm) else llm) / "config.json"
    found = (transformer, config if config.is_file() else None, decoder)
    missing = [what for what, path in zip(_expected(llm, images, averaged), found, strict=True) if path is None]
    if transformer is None or decoder is None or missing:
        raise VarlabError(
            f"{entry.name}: missing {', '.join(missing)}. Give checkpoint= the released folder, which holds "
            "llm/ and tokenizer/, or both apart as checkpoint= and tokenizer=, or init='random' for untrained weights."
        )
    return HartFiles(transformer, config, decoder)


def _expected(llm: Path, images: Path, averaged: bool = True) -> list[str]:
    """The three files of a release, in words."""
    weights = " or ".join(AVERAGED[1:] if averaged else PLAIN)
    return [f"{llm}/{weights}", f"{llm}/config.json", f"{images}/{' or '.join(PLAIN)}"]


def availability(entry: Released) -> tuple[bool, str]:
    """Whether the checkpoint folder holds a whole release, and the files that make one."""
    expected = ", ".join(_expected(*_places(entry)))
    try:
        official_files(entry)
    except VarlabError:
        return False, expected
    return True, expected


def _places(
    entry: Released, checkpoint: str | Path | None = None, tokenizer: str | Path | None = None
) -> tuple[Path, Path]:
    """The folder of the transformer, and the folder or file of the tokenizer."""
    if checkpoint is None:
        llm = checkpoint_folder() / entry.file
    elif _is_file(root := _root(checkpoint)):
        llm = root
    else:
        bare = not (root / "llm").is_dir() and ((root / "config.json").exists() or root.name == "llm")
        llm = root if bare else root / "llm"
    above = (llm.parent if _is_file(llm) else llm).parent
    return llm, above / "tokenizer" if tokenizer is None else Path(tokenizer).expanduser()


def on_hub(checkpoint: str | Path | None) -> bool:
    """Whether it is the id of a release, and nothing here has its name."""
    if checkpoint is None or split_part(checkpoint)[0].exists():
        return False
    return HUB_ID.fullmatch(str(checkpoint)) is not None


def _root(checkpoint: str | Path) -> Path:
    path = Path(checkpoint).expanduser()
    if split_part(path)[0].exists():
        return path
    if not on_hub(checkpoint):
        raise VarlabError(f"{path} does not exist. Give the released folder with llm/ and tokenizer/, or a hub id.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(checkpoint), allow_patterns=["llm/*", "tokenizer/*"]))
    except Exception as error:  # the hub's client has a dozen unrelated classes for "not there" and "no network"
        raise VarlabError(
            f"{checkpoint} is neither a folder here nor reachable on huggingface.co ({type(error).__name__})."
        ) from error


def _is_file(source: Path) -> bool:
    return split_part(source)[0].is_file()


def _weights(folder: Path, averaged: bool = True) -> Path | None:
    """The weight file or index of a folder, averaged ones first or never; None where there is none."""
    if not folder.is_dir() or not any(p.suffix in SUFFIXES or p.name.endswith(INDEX) for p in folder.iterdir()):
        return None
    found = weight_file(folder, AVERAGED if averaged else ())
    return None if found.name in AVERAGED and not averaged else found
