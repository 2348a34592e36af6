"""Official weights to one safetensors file, which loads faster and holds no pickle."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from varlab.errors import VarlabError, unknown
from varlab.models.checkpoints import PRECISIONS, dtype_of, fit, locate, read
from varlab.models.registry import empty, find
from varlab.models.writing import Report, write_safetensors


def _sha256(files: Sequence[Path], report: Report) -> str:
    """Over the contents of the files, one after another."""
    digest, done, total = hashlib.sha256(), 0, sum(file.stat().st_size for file in files)
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
                report(done := done + len(chunk), total)
    return digest.hexdigest()


def convert(
    source: str | Path,
    target: str | Path,
    name: str,
    precision: str = "bf16",
    ema: bool = False,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Path:
    """An official transformer or tokenizer file -> one safetensors file of registry model ``name``.

    "bf16" halves what ``dtype_of`` says, so loading the result equals loading the original. ``report(what, done,
    total)`` counts bytes of "read" and "write". Metadata: name, family, kind, source, source_sha256, precision.
    Raises VarlabError when the target exists or the file is not that model's.
    """
    entry, target = find(name), Path(target)
    if target.exists():
        raise VarlabError(f"{target} exists and is not overwritten. Give another target or remove it.")
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    checkpoint = read(locate(source), ema)
    kind = "tokenizer" if any(key.startswith("decoder.") for key in checkpoint.tensors) else "transformer"
    found = fit(empty(entry).named()[kind], checkpoint.tensors, f"{checkpoint.label} (for {name})")
    metadata = {
        "name": name,
        "family": entry.family,
        "kind": kind,
        "source": checkpoint.label,
        "source_sha256": _sha256(checkpoint.files, lambda *bytes: report("read", *bytes)),
        "precision": precision,
    }
    typed = {key: (tensor, dtype_of(key, tensor.dtype, precision)) for key, tensor in found.items()}
    write_safetensors(target, typed, metadata, lambda *bytes: report("write", *bytes))
    return target
