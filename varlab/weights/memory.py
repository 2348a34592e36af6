"""What a run holds in memory, counted from shapes before anything is loaded, and what the machine has left."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from varlab.errors import VarlabError
from varlab.machine import DTYPES, give_back_pages
from varlab.models.base import NextScaleModel
from varlab.models.hart import HartConfig
from varlab.models.quantised import INT8
from varlab.models.tokenizers.strips import USUAL
from varlab.models.widened import BF16_WEIGHTS
from varlab.schedules import STAGES, Schedule
from varlab.weights.embedded import MiniFacts, read_facts
from varlab.weights.fitting import dtype_of
from varlab.weights.official import ModelEntry
from varlab.weights.registry import empty

ENCODERS = {"flan-t5-xl": 1_230_000_000, "qwen2": 1_544_000_000}  # parameters of the official text encoders
RESERVE = 1 << 29  # bytes that must stay free beside what is counted here
BYTES = {precision: kind.itemsize for precision, kind in DTYPES.items()}  # of activations
WHOLE = ("fp32", INT8)  # keys, values and the text encoder in fp32
LABEL = 44  # bytes a token and value of its label: logits of both branches, guided, sorted, summed, and noise
NORMED = 10  # bytes a channel of a bf16 map that is normed whole: the map, the same in fp32, and its norm
STRIP = 12  # and of a strip: those, and what comes of them
GIB = 2**30


@dataclass(frozen=True)
class MemoryAccount:
    """Bytes at the peak of a run. ``decoding`` comes when keys and values are gone: the larger of both counts."""

    weights: int
    text_encoder: int
    keys_values: int
    activations: int
    decoding: int

    @property
    def total(self) -> int:
        """Above what the process holds before the model is loaded."""
        return self.weights + self.text_encoder + self.sampling

    @property
    def sampling(self) -> int:
        """Above the loaded model."""
        return max(self.keys_values + self.activations, self.decoding)


def account(
    entry: ModelEntry,
    schedule: Schedule,
    precision: str = "fp32",
    batch: int = 1,
    without_encoder: bool = True,
    strips: int | None = None,
) -> MemoryAccount:
    """The memory of a model's run with guidance, without loading it; grows with the batch in all but the weights."""
    return replace(
        sampling_account(entry.transformer, entry.tokenizer, schedule, precision, batch, strips),
        weights=_weights(entry, precision),
        text_encoder=0 if without_encoder else ENCODERS.get(entry.text, 0) * (4 if precision in WHOLE else 2),
    )


def sampling_account(
    config: Any, tokenizer: Any, schedule: Schedule, precision: str, batch: int, strips: int | None = None
) -> MemoryAccount:
    """The same beside the weights, from the configurations of transformer and tokenizer."""
    element, rows, last = BYTES[precision], 2 * batch, schedule.lengths[-1]
    kept = schedule.tokens - last + (config.text_length if isinstance(config, HartConfig) else 0)
    return MemoryAccount(
        weights=0,
        text_encoder=0,
        keys_values=2 * rows * kept * config.width * config.depth * (4 if precision in WHOLE else 2),
        activations=_activations(config, tokenizer, schedule, kept + last, batch, element),
        decoding=batch * _decoding(config, tokenizer, schedule, element, strips),
    )


_counted: dict[str, int] = {}


def _weights(entry: ModelEntry, precision: str) -> int:
    """Counted once for equal shapes: to build them takes a third of the time of loading a mini."""
    shapes: ModelEntry | MiniFacts = entry if entry.folder is None else read_facts(entry.folder)
    words = len(shapes.vocabulary) if isinstance(shapes, MiniFacts) else 0
    key = repr((shapes.transformer, shapes.tokenizer, shapes.text, words, precision))
    if key not in _counted:
        _counted[key] = sum(_bytes(module, precision) for module in empty(entry).named().values())
    return _counted[key]


def _bytes(module: nn.Module, precision: str) -> int:
    typed = [(tensor, dtype_of(name, tensor.dtype, precision)) for name, tensor in module.state_dict().items()]
    widened = max((4 * tensor.numel() for tensor, kept in typed if kept == torch.bfloat16), default=0)
    buffer = widened if precision == BF16_WEIGHTS else 0
    return buffer + sum(tensor.numel() * kept.itemsize for tensor, kept in typed)


def _activations(config: Any, tokenizer: Any, schedule: Schedule, keys: int, batch: int, element: int) -> int:
    """Bytes of branches and labels, summed over stages: an allocator hardly fits the tensors of a stage where those of
    smaller ones were. The last stage joins its keys and values to all others."""
    labels = getattr(tokenizer, "vocabulary", 0) or getattr(tokenizer, "codes", 0)  # bits are too few to count
    total = 0
    for k, tokens in enumerate(schedule.lengths):
        sublayer = _sublayer_bytes(tokens, keys if k == len(schedule) - 1 else 0, element)
        total += batch * max(2 * config.width * sublayer, tokens * LABEL * labels)
    return total


def _sublayer_bytes(tokens: int, keys: int, element: int) -> int:
    """Bytes a channel of the largest sublayer of a stage, attention: the stream and its norm in fp32 (8), queries
    and keys in fp32 before and after they turn (16), then those, values and output in the model's type, beside the
    keys and values of all stages."""
    turning = (24 + 5 * element) * tokens
    attending = (16 + 6 * element) * tokens + 2 * keys * element
    return max(turning, attending)


def _decoding(config: Any, tokenizer: Any, schedule: Schedule, element: int, strips: int | None) -> int:
    """Bytes of maps while one image is decoded: the first block at full resolution reads the wider maps below it, and
    holds two of theirs and two of its own. A CPU needs less than the norm of a whole map, which a GPU computes.

    In strips that is its input, what comes of its first convolution and its output, and one strip at work.
    """
    stride = getattr(tokenizer, "stride", 16) * (2 if getattr(config, "patchify", False) else 1)
    height, width = (side * stride for side in schedule.final)
    own, below = (tokenizer.channels * multiplier for multiplier in tokenizer.multipliers[:2])
    if strips is None:
        normed = max(NORMED * below, NORMED * own + 2 * below)  # beside the second lies what the block adds it to
        return max(2 * (below + own) * element, normed) * height * width
    held = max(below + 2 * own, 3 * own) * height * element
    return int((held + STRIP * max(below, own) * min(strips + 2, height)) * width)


def available(device: str = "cpu", enough: float = math.inf) -> int:
    """Bytes that a run may still take: of the GPU, else of the machine or of the control group that holds us.

    What an earlier run freed counts, though torch's cache, the process or the system's cache of files holds it. Where
    ``enough`` are free anyhow, the process is not searched for what it could give back.
    """
    if torch.device(device).type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if torch.device(device).type == "mps":  # a share of the machine's memory
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    if (free := _free()) < enough and give_back_pages():
        return _free()
    return free


def _free() -> int:
    return min((value for value in (_meminfo(), _control_group()) if value is not None), default=1 << 62)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        pages = os.sysconf_names.get("SC_AVPHYS_PAGES") and os.sysconf("SC_AVPHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") if pages else None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _control_group() -> int | None:
    try:
        folder = Path("/sys/fs/cgroup")
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        counted = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - int(used) + int(counted.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def refuse_what_cannot_fit(
    entry: ModelEntry,
    schedule: Schedule,
    precision: str,
    device: str,
    batch: int = 1,
    without_encoder: bool = True,
    ratio: float = 1.0,
    strips: int | None = None,
) -> None:
    """Raises VarlabError with the memory that is needed, what there is, and the largest choice that fits."""
    needed = account(entry, schedule, precision, batch, without_encoder, strips).total
    free = available(device, needed + RESERVE)
    if needed + RESERVE <= free:
        return
    advice = largest(entry, schedule, precision, free, batch, without_encoder, ratio, strips)
    raise VarlabError(
        f"{entry.name} on {schedule.name} in {precision} needs {needed / GIB:.1f} GiB for batch {batch}, and {device} "
        f"has {free / GIB:.1f} GiB left. {advice}"
    )


def largest(
    entry: ModelEntry,
    schedule: Schedule,
    precision: str,
    free: int,
    batch: int,
    without_encoder: bool = True,
    ratio: float = 1.0,
    strips: int | None = None,
    beside: int = 0,
) -> str:
    """What to take in place of a run that does not fit, in one sentence; each way changes one thing.

    beside: bytes an image that are needed on top, such as those of probes.
    """

    def most(schedule: Schedule, precision: str, strips: int | None) -> int:
        """Images that fit, since all but the weights grows with the batch."""
        one = account(entry, schedule, precision, 1, without_encoder, strips)
        return (free - RESERVE - one.total + one.sampling) // (one.sampling + beside)

    smaller = most(schedule, precision, strips)
    ways = [f"a batch of {smaller}"] if 1 <= smaller < batch else []
    ways += ["precision bf16"] if precision == "fp32" and most(schedule, "bf16", strips) >= batch else []
    ways += [f"strips {USUAL}"] if strips is None and most(schedule, precision, USUAL) >= batch else []
    several = entry.family == "infinity" and entry.folder is None  # pixel budgets
    others = ((name, entry.schedule(name, ratio)) for name in (reversed(STAGES) if several else ()))
    shorter = (
        f"pixels {name}"
        for name, other in others
        if len(other) < len(schedule) and most(other, precision, strips) >= batch
    )
    ways += [*shorter][:1]
    return f"Largest that fits: {' or '.join(ways)}." if ways else "Nothing smaller of it fits: choose another model."


def refuse_batch(model: NextScaleModel, batch: int) -> None:
    """Raises VarlabError where a loaded model cannot draw so many images at once, with the largest batch that fits."""
    transformer, tokenizer = (getattr(model, name, None) for name in ("transformer", "tokenizer"))
    configs = getattr(transformer, "config", None), getattr(tokenizer, "config", None)
    if None in configs:  # a model of one's own
        return
    strips = getattr(tokenizer, "strips", None)
    each = sampling_account(configs[0], configs[1], model.schedule, model.precision, 1, strips).sampling
    free = available(str(model.device), batch * each + RESERVE)
    if batch * each + RESERVE <= free:
        return
    fits = (free - RESERVE) // each
    smaller = "take a smaller schedule" + (f" or strips {USUAL}" if strips is None else "")
    advice = f"The largest batch that fits is {fits}." if fits >= 1 else f"No batch fits: {smaller}."
    raise VarlabError(
        f"A batch of {batch} on {model.schedule.name} needs {(batch * each + RESERVE) / GIB:.1f} GiB beside the model, "
        f"and {model.device} has {free / GIB:.1f} GiB left. {advice}"
    )
