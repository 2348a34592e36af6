"""Official weights to one safetensors file, which loads faster and holds no pickle."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch import nn

from varlab.errors import VarlabError, unknown
from varlab.outputs import refuse_existing
from varlab.resources import git_state
from varlab.weights.choosing import choose
from varlab.weights.fitting import dtype_of, fit
from varlab.weights.hart_files import part_held, part_of
from varlab.weights.official import ModelEntry
from varlab.weights.places import locate
from varlab.weights.reading import Checkpoint, read
from varlab.weights.registry import empty, find
from varlab.weights.writing import Report, write_safetensors

STORED = ("fp32", "bf16")


def _sha256(files: Sequence[Path], report: Report) -> str:
    """Over the contents of the files, one after another."""
    digest, done, total = hashlib.sha256(), 0, sum(file.stat().st_size for file in files)
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
                report(done := done + len(chunk), total)
    return digest.hexdigest()


def _part(entry: ModelEntry, path: Path, ema: bool) -> tuple[str, nn.Module, Checkpoint]:
    """What a file holds of a model, that part empty, and its tensors."""
    if entry.family == "hart":
        return part_of(entry, path, ema)
    stored = read(path)
    kind = part_held(entry, stored)
    module = empty(entry).named()[kind]
    return kind, module, choose(stored, module.state_dict(), ema)


def convert(
    source: str | Path,
    target: str | Path,
    name: str,
    precision: str = "bf16",
    ema: bool = False,
    overwrite: bool = False,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Path:
    """An official transformer or tokenizer file -> one safetensors file of registry model ``name``.

    "bf16" halves what ``dtype_of`` says, so loading the result equals loading the original. ``report(what, done,
    total)`` counts bytes of "read" and "write". HART's two parts are read from ``llm/`` and ``tokenizer/`` and found
    again as ``llm/ema_model.safetensors`` and ``tokenizer/model.safetensors``. Metadata: name, family, kind, source,
    part, source_sha256, precision, versions, git, date.
    Raises VarlabError when the target is no name of such a file or exists (unless ``overwrite``), and when the source
    is not that model's.
    """
    entry, target = find(name), Path(target)
    if target.suffix != ".safetensors":
        raise VarlabError(f"{target} would hold safetensors. Give a name that ends in .safetensors.")
    refuse_existing(target, overwrite=overwrite)
    if precision not in STORED:
        raise unknown("precision", precision, STORED)
    kind, module, checkpoint = _part(entry, locate(source), ema)
    found = fit(module, checkpoint.tensors, f"{checkpoint.label} (for {name})")
    metadata = {
        "name": name,
        "family": entry.family,
        "kind": kind,
        "source": checkpoint.name,
        "part": checkpoint.part,
        "source_sha256": _sha256(checkpoint.files, lambda *bytes: report("read", *bytes)),
        "precision": precision,
        "versions": ", ".join(f"{package} {version(package)}" for package in ("varlab", "torch")),
        "git": git_state(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    typed = {key: (tensor, dtype_of(key, tensor.dtype, precision)) for key, tensor in found.items()}
    write_safetensors(target, typed, metadata, lambda *bytes: report("write", *bytes))
    return target
