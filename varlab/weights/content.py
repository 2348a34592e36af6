"""What weights hold: a hash that no file format changes, and whether they can be those of a trained model at all."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.weights.fitting import dtype_of, grouped, learnt
from varlab.weights.writing import hash_tensors
from varlab.writing import write_text

# Content hash -> name of the released file. None is known yet: to add one, load a download whose sha256 agrees with the
# hub's page, and copy the 16 digits that its log's ``weights_content`` shows.
KNOWN: dict[str, str] = {}
LARGE = 1 << 26  # bytes of files from which on a result is kept
NO_MATRIX = re.compile(r"scale_mul_1H11$|ema_vocab_hit_SV$")  # may be equal throughout in a trained model
TOLERATED = 0.1  # share of matrices


@dataclass(frozen=True)
class Content:
    """``hash``: of names, shapes and values, with blocks rounded to bf16 so that it is that of every conversion.
    ``fault``: what no training leaves, in words; empty for usual weights. ``exact``: of the values as they are loaded,
    where rounding changes them."""

    hash: str
    fault: str
    exact: str = ""

    def named(self, part: str) -> dict[str, str]:
        """Its hashes under the name of the part of a model."""
        return {part: self.hash} | ({f"{part} to the last bit": self.exact} if self.exact else {})


def content_of(module: nn.Module, files: Sequence[Path], part: str = "") -> Content:
    """Of a filled module."""
    shapes = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in module.state_dict().items()]
    return _kept(files, (part, shapes), lambda: _computed(module))


def digest_of_files(paths: Sequence[Path]) -> str:
    """16 hexadecimal digits of the bytes of files, and of all in folders, under their names; empty where none is there.

    Of a model's files it says only whether they are the same: another format of the same weights has another.
    """
    files = [(path.name, path) for path in paths if path.is_file()]
    for folder in (path for path in paths if path.is_dir()):
        files += [(str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return _kept([path for _, path in files], "bytes", lambda: Content(_of_bytes(files), "")).hash if files else ""


def _of_bytes(files: Sequence[tuple[str, Path]]) -> str:
    whole = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return whole.hexdigest()[:16]


def _kept(files: Sequence[Path], about: object, compute: Callable[[], Content]) -> Content:
    """For large files kept by their paths, sizes and times, since it takes seconds a gigabyte."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if sum(size for _, size, _ in stats) < LARGE:
        return compute()
    key = hashlib.sha256(repr((stats, about)).encode()).hexdigest()
    kept = _read_cache()
    if key not in kept:
        kept[key] = asdict(compute())
        with suppress(VarlabError):  # it only saves time
            write_text(_cache(), json.dumps(kept))
    return Content(**kept[key])


def _computed(module: nn.Module) -> Content:
    tensors = module.state_dict()
    rounded = {name: tensor.to(dtype_of(name, tensor.dtype, "bf16")) for name, tensor in tensors.items()}
    same = all(torch.equal(tensor, rounded[name].to(tensor.dtype)) for name, tensor in tensors.items())
    return Content(hash_tensors(rounded), fault_of(learnt(module)), "" if same else hash_tensors(tensors))


def fault_of(tensors: Mapping[str, Tensor]) -> str:
    """Values that are not finite, and matrices of one value each, in words; empty where there are none to speak of."""
    broken, equal, zero, matrices = [], [], 0, 0
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = (float(value) for value in torch.aminmax(tensor))  # NaN wins
        if not abs(low) + abs(high) < torch.inf:
            broken.append(name)
        if tensor.ndim > 1 and tensor.numel() > 1 and not NO_MATRIX.search(name):
            matrices += 1
            equal += [name] if low == high else []
            zero += low == high == 0
    words = [f"{len(broken)} tensors hold NaN or infinite values ({grouped(broken, 2)})"] if broken else []
    if len(equal) > TOLERATED * matrices:
        which = f"all {matrices}" if len(equal) == matrices else f"{len(equal)} of {matrices}"
        words.append(f"{which} weight matrices are {'zero' if zero == len(equal) else 'constant, one value each'}")
    return "; ".join(words)


def _cache() -> Path:
    """``$VARLAB_CACHE`` or the user's cache."""
    given = os.environ.get("VARLAB_CACHE")
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "varlab") / "weights.json"


def _read_cache() -> dict[str, dict[str, str]]:
    try:
        kept = json.loads(_cache().read_text())
        return {key: asdict(Content(**value)) for key, value in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # none yet, or none of ours
