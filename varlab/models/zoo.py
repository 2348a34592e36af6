"""Names of models, and one call that builds any of them: ``load("infinity-2b", "random", precision="bf16")``.

Official sizes: the released code's registry (arXiv 2412.04431). Minis appear when their data folder exists.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from varlab import schedules
from varlab.errors import VarlabError, unknown
from varlab.models import embedded
from varlab.models.checkpoints import PRECISIONS, checkpoint_folder, constant, dtype_of, load_into, locate, read
from varlab.models.embedded import Parts
from varlab.models.guidance import Settings
from varlab.models.infinity import LEVELS, InfinityConfig, InfinityTransformer
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText, TextEncoder, choose
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.schedules import Schedule

INITS = ("checkpoint", "random", "empty")
HUB = "FoundationVision/Infinity"


@dataclass(frozen=True)
class ModelEntry:
    """A name's model. ``file`` and ``tokenizer_file`` are the official names, empty where nothing was released."""

    name: str
    transformer: InfinityConfig
    tokenizer: BSQConfig
    schedule: Callable[[str | None, float], Schedule]  # (pixels, height / width)
    settings: Settings
    description: str
    file: str = ""
    tokenizer_file: str = ""
    hub: str = HUB
    text: str = "flan-t5-xl"
    family: str = "infinity"
    folder: Path | None = None  # of a mini

    def empty(self) -> Parts:
        """The modules on the meta device: names and shapes without memory."""
        if self.folder is not None:
            return embedded.read_facts(self.folder).empty()
        with torch.device("meta"):
            return Parts(InfinityTransformer(self.transformer), BSQTokenizer(self.tokenizer), None)


# Registry


def _released(default: str, pixels: str | None, ratio: float) -> Schedule:
    if not (math.isfinite(ratio) and 0.33 <= ratio <= 3.03):
        raise VarlabError(f"ratio is height / width from 1/3 to 3, not {ratio}.")
    return schedules.infinity(pixels or default, ratio)


def _own(name: str, schedule: Schedule, pixels: str | None, ratio: float) -> Schedule:
    if pixels is not None or ratio != 1:
        raise VarlabError(f"{name} knows one schedule, up to {schedule.final}: leave pixels and ratio out.")
    return schedule


def _official(
    name: str,
    depth: int,
    width: int,
    heads: int,
    description: str,
    *,
    bits: int = 32,
    chunks: int = 4,
    pixels: str = "1M",
    tau: float = 0.5,
    file: str = "",
    tokenizer_file: str = "infinity_vae_d32reg.pth",
    patchify: bool = False,
) -> ModelEntry:
    """``bits`` of a token; a patchified model folds 2x2 latents of the stride-8 tokenizer into one."""
    config = InfinityConfig(depth, width, heads, bits, chunks, patchify=patchify)
    tokenizer = BSQConfig(bits // 4, 8, multipliers=(1, 2, 4, 4)) if patchify else BSQConfig(bits)
    schedule, settings = partial(_released, pixels), Settings(cfg=3.0, tau=tau)
    return ModelEntry(name, config, tokenizer, schedule, settings, description, file, tokenizer_file)


_big = partial(
    _official, bits=56, chunks=8, patchify=True, tau=1.0, tokenizer_file="infinity_vae_d56_f8_14_patchify.pth"
)
_OFFICIAL = [
    _official("infinity-125m", 12, 768, 8, "smallest release, 256 px", bits=16, pixels="0.06M",
              file="infinity_125M_256x256.pth", tokenizer_file="infinity_vae_d16.pth"),
    _official("infinity-layer16", 16, 1152, 12, "size of the scaling study, weights not released"),
    _official("infinity-1b", 24, 1536, 16, "layer24 of the scaling study, weights not released"),
    _official("infinity-layer32", 32, 2080, 20, "size of the scaling study, weights not released"),
    _official("infinity-layer40", 40, 2688, 24, "size of the scaling study, weights not released"),
    _official("infinity-layer48", 48, 3360, 28, "size of the scaling study, weights not released"),
    _official("infinity-2b", 32, 2048, 16, "the release most papers accelerate, 1024 px", chunks=8,
              file="infinity_2b_reg.pth"),
    _big("infinity-8b", 40, 3584, 28, "1024 px, patchified", file="infinity_8b_weights"),
    _big("infinity-8b-512", 40, 3584, 28, "a stage of the 8B's training, 512 px, patchified", pixels="0.25M",
         file="infinity_8b_512x512_weights"),
]  # fmt: skip


def _mini(name: str, folder: Path) -> ModelEntry:
    facts = embedded.read_facts(folder)
    side = facts.schedule.final[0] * facts.tokenizer.stride * (2 if facts.transformer.patchify else 1)
    return ModelEntry(
        name,
        facts.transformer,
        facts.tokenizer,
        partial(_own, name, facts.schedule),
        facts.settings,
        f"trained on procedural scenes, {side} px, ships with varlab",
        hub="",
        text="captions",
        folder=folder,
    )


class _Registry(Mapping[str, ModelEntry]):
    """The official models and the minis whose folder exists at this moment."""

    def __init__(self, official: Sequence[ModelEntry]) -> None:
        self._official = {entry.name: entry for entry in official}

    def __getitem__(self, name: str) -> ModelEntry:
        if name in self._official:
            return self._official[name]
        return _mini(name, embedded.mini_folders()[name])

    def __iter__(self) -> Iterator[str]:
        yield from embedded.mini_folders().keys() - self._official.keys()
        yield from self._official

    def __len__(self) -> int:
        return len(set(self))

    def __contains__(self, name: object) -> bool:
        return name in set(self)


MODELS: Mapping[str, ModelEntry] = _Registry(_OFFICIAL)


def find(name: str) -> ModelEntry:
    """The entry of a name; else near names and where minis were looked for."""
    if name not in MODELS:
        raise VarlabError(f"{unknown('model', name, MODELS)} Minis are looked for in {embedded.data_folder()}.")
    return MODELS[name]


def likely_cause(tensors: Mapping[str, Tensor]) -> str:
    """What a file that does not fit seems to be, in one sentence: its sizes and the names they belong to."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    blocks = {name.split(".sa.")[0] for name in shapes if ".sa." in name}
    if blocks and {"pos_start", "head.weight", "text_norm.weight"} <= shapes.keys():
        depth, width, bits = len(blocks), shapes["pos_start"][-1], shapes["head.weight"][0] // 2
        if not any(name.startswith("block_chunks.") for name in blocks):
            return "Its blocks are not grouped in chunks: it was trained with block_chunks=1, which is not supported."
        sizes = depth, width, bits
        fits = [e.name for e in _OFFICIAL if (e.transformer.depth, e.transformer.width, e.transformer.bits) == sizes]
        what = f"a transformer of depth {depth}, width {width} and {bits} bits a token"
    elif "decoder.conv_in.conv.weight" in shapes or "decoder.conv_in.weight" in shapes:
        bits = shapes.get("decoder.conv_in.conv.weight", shapes.get("decoder.conv_in.weight", (0, 0)))[1]
        halvings = len({name.split(".downsample")[0] for name in shapes if ".downsample" in name})
        fits = [e.name for e in _OFFICIAL if (e.tokenizer.bits, e.tokenizer.halvings) == (bits, halvings)]
        what = f"a tokenizer of {bits} bits and stride {2**halvings}"
    elif any(name.startswith(("transformer.", "tokenizer.")) for name in shapes):
        return "This looks like a mini: give its folder, with model.json."
    elif any(name.startswith("encoder.block.") for name in shapes):
        return "This looks like a T5 text encoder: give its folder as text=."
    else:
        return "It looks like no file of the Infinity family."
    return f"This looks like {what}, {'the size of ' + ' and '.join(fits) if fits else 'a size of no known model'}."


# Random weights


def _spread(name: str, shape: torch.Size) -> tuple[float, float]:
    """Mean and standard deviation that keep activations of order one."""
    if name.endswith("scale_mul_1H11"):
        return math.log(4.0), 0.0
    if len(shape) == 1:
        return (1.0, 0.0) if "norm" in name and name.endswith("weight") else (0.0, 0.0)
    inputs = shape[-1] if not name.endswith("weight") else math.prod(shape[1:])
    return 0.0, inputs**-0.5


def randomise(module: nn.Module, seed: int = 0, precision: str = "fp32", device: str = "cpu") -> None:
    """Fill a module built on the meta device with random weights, each tensor at once in its final type.

    A tensor depends on the seed and its name alone, on every device, and bf16 weights are the fp32 ones rounded.
    Takes the memory of the module and a megabyte; about 10 s per billion weights on one core.
    """
    buffer, values = torch.empty(1 << 18), {}
    for name, tensor in module.state_dict().items():
        fixed = constant(name, tensor.shape)
        mean, deviation = _spread(name, tensor.shape)
        value = torch.full(tensor.shape, mean, dtype=dtype_of(name, tensor.dtype, precision), device=device)
        if fixed is not None:
            value.copy_(fixed)
        elif deviation:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            for part in value.view(-1).split(len(buffer)):
                part.copy_(buffer.normal_(0, deviation, generator=generator)[: len(part)])
        values[name] = value
    module.load_state_dict(values, assign=True)


# Loading


def check_fit(entry: ModelEntry, schedule: Schedule) -> None:
    """Refuse a schedule with more stages than level embeddings, and a tokenizer that cannot decode its grids."""
    patch = 2 if entry.transformer.patchify else 1
    bits = entry.tokenizer.bits * patch**2
    if len(schedule) > LEVELS:
        raise VarlabError(f"{entry.name} knows {LEVELS} stages; {schedule.name} has {len(schedule)}.")
    if bits != entry.transformer.bits:
        raise VarlabError(f"{entry.name} predicts {entry.transformer.bits} bits a token, its tokenizer takes {bits}.")
    if schedule.name.startswith("infinity-") and entry.tokenizer.stride * patch != 16:
        raise VarlabError(
            f"{schedule.name} counts tokens of 16 pixels; the tokenizer of {entry.name} makes them "
            f"{entry.tokenizer.stride * patch} pixels wide."
        )


def _check(entry: ModelEntry, init: str, precision: str, device: str, files: bool, own_tokenizer: bool) -> None:
    if init not in INITS:
        raise unknown("init", init, INITS)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if init != "checkpoint" and files:
        raise VarlabError(f"init={init!r} reads no files: leave checkpoint and tokenizer out, or init.")
    if entry.folder is not None and own_tokenizer:
        raise VarlabError(f"{entry.name} brings its own tokenizer: leave tokenizer out.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise VarlabError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    if torch.device(device).type == "meta":
        raise VarlabError("For shapes without weights use init='empty', not device='meta'.")


def load(
    name: str,
    init: str | None = None,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    pixels: str | None = None,
    ratio: float = 1.0,
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    text: str | TextEncoder | None = None,
    seed: int = 0,
) -> Infinity:
    """A model of the registry, ready for the engine: eval mode, no gradients.

    init: "checkpoint" (default; minis bring theirs, official models read ``checkpoint`` and ``tokenizer``, each a
    path, a folder with the official file names or a hub id, else the checkpoint folder), "random" (from ``seed``,
    no file needed), "empty" (shapes only, on the meta device). precision: "fp32", or "bf16" with the types of
    ``checkpoints.dtype_of``, which halves memory and rounds the blocks as the official run does. pixels, ratio:
    the released schedule of an official model. text: an encoder, "flan-t5-xl", the folder or hub id of one, or
    "random"; by default what fits the weights. ``model.weights`` always says which weights these are.
    Raises VarlabError for every option or file that does not fit.
    """
    entry, init = find(name), init or "checkpoint"
    _check(entry, init, precision, device, bool(checkpoint or tokenizer), bool(tokenizer))
    if entry.folder is not None and checkpoint:
        entry = _mini(name, Path(checkpoint))
    schedule = entry.schedule(pixels, ratio)
    check_fit(entry, schedule)
    if init == "checkpoint" and entry.folder is not None:
        trained, facts = embedded.load_mini(entry.folder, precision, device)
        parts: Parts = trained
        weights = f"trained (varlab {name}, {facts.weights})"
    else:
        parts, weights = entry.empty(), "empty (shapes only)"
        if init == "random":
            weights = f"random (seed {seed})"
            for module in parts.named().values():
                randomise(module, seed, precision, device)
        elif init == "checkpoint":
            weights = _read_official(entry, parts, checkpoint, tokenizer, precision, device)
    for module in parts.named().values():
        module.eval().requires_grad_(False)
    parts.tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    encoder = _encoder(entry, parts, init, text, precision, device, seed)
    if isinstance(encoder, RandomText) and init == "checkpoint":
        weights += f", {encoder.label}"
    return Infinity(parts.transformer, parts.tokenizer, schedule, encoder, name, weights, entry.settings)


def _encoder(
    entry: ModelEntry, parts: Parts, init: str, text: str | TextEncoder | None, precision: str, device: str, seed: int
) -> TextEncoder | None:
    if parts.text is not None and text in (None, "captions"):
        return parts.text
    if isinstance(text, str) and text != "random" and (parts.text is not None or text == "captions"):
        raise VarlabError(f"{entry.name} reads {entry.text}, not text={text!r}: leave text out.")
    if text is None and init == "empty":
        return None
    default = "random" if init == "random" else entry.text
    return choose(text, entry.transformer.text_width, default, device, precision, seed)


def _stand_in(file: str) -> str:
    """The name under which a converted official file is looked for beside it."""
    return f"{Path(file).stem}.safetensors"


def _find_file(entry: ModelEntry, file: str, source: str | Path | None, what: str) -> Path:
    """The file to read: what was given, else the official or converted file in the checkpoint folder."""
    if source is not None:
        return locate(source, file)
    folder = checkpoint_folder()
    for candidate in (file, _stand_in(file)) if file else ():
        if (folder / candidate).exists():
            return folder / candidate
    where = f"{file} is not in {folder}" if file else f"no weights of {entry.name} were released"
    hub = f", {what}={entry.hub!r} to download it" if file else ""
    raise VarlabError(f"{entry.name}: {where}. Give {what}=PATH{hub}, or init='random' for untrained weights.")


def _read_official(
    entry: ModelEntry,
    parts: Parts,
    checkpoint: str | Path | None,
    tokenizer: str | Path | None,
    precision: str,
    device: str,
) -> str:
    """Fill both modules and say from which file. A folder or hub id given for one serves the other too."""
    path = _find_file(entry, entry.file, checkpoint, "checkpoint")
    if tokenizer is None and checkpoint is not None:
        beside = [path.parent / name for name in (entry.tokenizer_file, _stand_in(entry.tokenizer_file))]
        tokenizer = next((file for file in beside if file.exists()), None)
        if tokenizer is None and not Path(checkpoint).expanduser().exists():
            tokenizer = entry.hub
    image_path = _find_file(entry, entry.tokenizer_file, tokenizer, "tokenizer")
    stored = read(path)
    if stored.metadata.get("name", entry.name) != entry.name:
        raise VarlabError(f"{path} was converted as {stored.metadata['name']}, not {entry.name}.")
    load_into(parts.transformer, stored.tensors, f"{stored.label} (for {entry.name})", precision, device)
    images = read(image_path)
    load_into(parts.tokenizer, images.tensors, f"{images.label} (tokenizer of {entry.name})", precision, device)
    origin = stored.metadata.get("source", stored.label)
    return f"{'official' if entry.file and origin == entry.file else 'checkpoint'} ({stored.label})"


# Overview


@cache
def parameters(config: InfinityConfig) -> int:
    """Of the transformer alone."""
    with torch.device("meta"):
        return sum(p.numel() for p in InfinityTransformer(config).parameters())


def _availability(entry: ModelEntry) -> tuple[str, str]:
    """Whether trained weights can be loaded now, and where they are expected."""
    if entry.folder is not None:
        return "shipped", str(entry.folder)
    if not entry.file:
        return "not released", ""
    try:
        found = all(_find_file(entry, file, None, "").exists() for file in (entry.file, entry.tokenizer_file))
    except VarlabError:
        found = False
    return "found" if found else "not here", f"{checkpoint_folder() / entry.file} and {entry.tokenizer_file}"


def describe() -> pd.DataFrame:
    """One row a model: name, family, parameters (of the transformer), stages, tokens, text, weights, expected, ...

    A mini whose folder is damaged has its error as the description.
    """
    rows: list[dict[str, object]] = []
    for name in sorted(MODELS):
        try:
            entry = MODELS[name]
        except VarlabError as error:
            rows.append({"name": name, "weights": "damaged", "description": str(error)})
            continue
        schedule = entry.schedule(None, 1.0)
        weights, expected = _availability(entry)
        rows.append(
            {
                "name": name,
                "family": entry.family,
                "parameters": parameters(entry.transformer),
                "stages": len(schedule),
                "tokens": schedule.tokens,
                "text": entry.text,
                "weights": weights,
                "expected": expected,
                "description": entry.description,
            }
        )
    columns = ["name", "family", "parameters", "stages", "tokens", "text", "weights", "expected", "description"]
    numbers = dict.fromkeys(("parameters", "stages", "tokens"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(numbers)
