"""One call that builds any model of the registry: ``load("infinity-2b", "random", precision="bf16")``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from varlab.context import fixed_context
from varlab.errors import VarlabError, names_keywords, unknown
from varlab.machine import usable
from varlab.models.captions import CaptionEncoder
from varlab.models.classes import ClassReader
from varlab.models.hart import HartTransformer
from varlab.models.hart_captions import HartCaptions
from varlab.models.hart_model import Hart, HartEncoder, HartSettings, Savings
from varlab.models.infinity import LEVELS, InfinityConfig, InfinityTransformer
from varlab.models.infinity_model import Infinity, check_growth
from varlab.models.qwen import QwenText
from varlab.models.text import FlanT5, RandomText, TextEncoder, choose
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.models.tokenizers.strips import check_strips, in_strips
from varlab.models.tokenizers.vqvae import VQConfig, VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR
from varlab.schedules import INFINITY_GRIDS, Schedule
from varlab.weights import embedded
from varlab.weights.checkpoints import PRECISIONS, checkpoint_folder, in_folder, load_into, locate, read
from varlab.weights.embedded import Parts
from varlab.weights.hart_files import load_hart, official_files, prompt_folders
from varlab.weights.initialise import randomise
from varlab.weights.memory import refuse_what_cannot_fit
from varlab.weights.official import ModelEntry
from varlab.weights.registry import empty, find, mini, parameters
from varlab.weights.writing import hash_tensors

INITS = ("checkpoint", "random", "empty")


@names_keywords
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
    text: str | TextEncoder | HartEncoder | None = None,
    seed: int = 0,
    savings: Savings | Mapping[str, bool] | None = None,
    strips: int | None = None,
) -> Infinity | Hart | VAR:
    """A model of the registry, ready for the engine: eval mode, no gradients.

    init: "checkpoint" (default; minis bring theirs, official models read ``checkpoint`` and ``tokenizer``, each a
    path, a folder with the official file names or a hub id, else the checkpoint folder), "random" (from ``seed``,
    no file needed), "empty" (shapes only, on the meta device). precision: "fp32", or "bf16" with the types of
    ``checkpoints.dtype_of``, which halves memory and rounds the blocks as the official run does. pixels, ratio:
    the released schedule of an official model. text: an encoder, "flan-t5-xl", the folder or hub id of one, or
    "random"; by default what fits the weights. strips: decode in strips of so many rows, see ``tokenizers.strips``.
    HART reads a folder with ``llm/`` and ``tokenizer/``, and features where text is "features": see
    ``hart_files.load_hart``. savings: of HART, switches that change no number beyond rounding, e.g.
    {"one_null": True}: see ``hart_model.Savings``. ``model.weights`` always says which weights these are.
    Raises VarlabError for every option or file that does not fit.
    """
    return assemble(
        find(name), init, device=device, precision=precision, pixels=pixels, ratio=ratio, checkpoint=checkpoint,
        tokenizer=tokenizer, text=text, seed=seed, savings=savings, strips=strips,
    )  # fmt: skip


def default_precision(entry: ModelEntry, init: str | None) -> str:
    """bf16 for the official models of half a billion parameters and more on random weights, which mean nothing in fp32
    either and take half the memory so; else fp32."""
    large = entry.folder is None and parameters(entry.transformer) >= 5e8
    return "bf16" if large and init == "random" else "fp32"


@fixed_context()
@torch.inference_mode(False)  # who loads a model there could not train it later
def assemble(
    entry: ModelEntry,
    init: str | None = None,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    pixels: str | None = None,
    ratio: float = 1.0,
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    text: str | TextEncoder | HartEncoder | None = None,
    seed: int = 0,
    savings: Savings | Mapping[str, bool] | None = None,
    strips: int | None = None,
) -> Infinity | Hart | VAR:
    """As ``load``, from an entry of any origin."""
    init = init or "checkpoint"
    _check(entry, init, precision, device, checkpoint, tokenizer, text)
    switched = _savings(entry, savings)
    check_strips(strips)
    if init != "empty":
        _check_memory(entry, init, precision, device, pixels, ratio, text, strips)
    if entry.family == "hart" and entry.folder is None:
        entry.schedule(pixels, ratio)  # has but one
        hart = load_hart(
            entry, init, device=device, precision=precision, checkpoint=checkpoint, tokenizer=tokenizer,
            text=cast(str | HartEncoder | None, text), seed=seed, savings=switched,
        )  # fmt: skip
        return cast(Hart, in_strips(hart, strips))
    if entry.folder is not None and checkpoint:
        entry = mini(entry.name, Path(checkpoint))
    schedule = entry.schedule(pixels, ratio)
    check_fit(entry, schedule)
    official = init == "checkpoint" and entry.folder is None
    files = require_files(entry, checkpoint, tokenizer, _ways(entry)) if official else None
    reader = _reader(entry, init, cast(str | TextEncoder | None, text), precision, device, seed)
    if init == "checkpoint" and entry.folder is not None:
        trained, facts = embedded.load_mini(entry.folder, precision, device)
        parts: Parts = trained
        weights = _trained(entry.name, facts)
    else:
        parts, weights = empty(entry), "empty (shapes only)"
        if init == "random":
            weights = f"random (seed {seed})"
            for module in parts.named().values():
                randomise(module, seed, precision, device)
        elif files:
            weights = _read_official(entry, parts, *files, precision, device)
    for module in parts.named().values():
        module.eval().requires_grad_(False)
    channels_last(parts.tokenizer)
    encoder = parts.text if reader is None else reader
    if isinstance(encoder, RandomText) and init == "checkpoint":
        weights += f", {encoder.label}"
    made = _model(entry, parts, schedule, encoder, weights, switched)
    return cast(Infinity | Hart | VAR, in_strips(made, strips))


def _model(
    entry: ModelEntry,
    parts: Parts,
    schedule: Schedule,
    encoder: TextEncoder | None,
    weights: str,
    savings: Savings | None,
) -> Infinity | Hart | VAR:
    """The parts behind the engine's face, by family."""
    network, images, settings = parts.transformer, parts.tokenizer, entry.settings
    if isinstance(network, VARTransformer) and isinstance(images, VQTokenizer):
        return VAR(network, images, class_names(entry), entry.name, weights, settings)
    if isinstance(network, HartTransformer) and isinstance(images, HybridTokenizer):
        assert isinstance(parts.text, CaptionEncoder) and isinstance(settings, HartSettings)
        reader = HartCaptions(parts.text, network.config.text_length)
        return Hart(network, images, schedule, reader, entry.name, weights, settings, savings)
    assert isinstance(network, InfinityTransformer) and isinstance(images, BSQTokenizer)
    return Infinity(network, images, schedule, encoder, entry.name, weights, settings)


def shipped_weights(entry: ModelEntry) -> str | None:
    """What ``load`` of a mini will call its weights, without reading them; None for other models."""
    return None if entry.folder is None else _trained(entry.name, embedded.read_facts(entry.folder))


def _trained(name: str, facts: embedded.MiniFacts) -> str:
    return f"trained (varlab {name}, {facts.weights})"


def class_names(entry: ModelEntry) -> tuple[str, ...]:
    """Of a model that reads classes; none where it knows them by number alone."""
    return () if entry.folder is None else embedded.read_facts(entry.folder).vocabulary


# Checks


def check_fit(entry: ModelEntry, schedule: Schedule) -> None:
    """Refuse a schedule with more stages than level embeddings, and a tokenizer that cannot decode its grids."""
    if isinstance(entry.transformer, VARConfig) and isinstance(entry.tokenizer, VQConfig):
        check_codes(entry.transformer, entry.tokenizer)
    if not isinstance(entry.transformer, InfinityConfig) or not isinstance(entry.tokenizer, BSQConfig):
        return  # HART is checked where it is built
    patch = 2 if entry.transformer.patchify else 1
    bits = entry.tokenizer.bits * patch**2
    if len(schedule) > LEVELS:
        raise VarlabError(f"{entry.name} knows {LEVELS} stages; {schedule.name} has {len(schedule)}.")
    if bits != entry.transformer.bits:
        raise VarlabError(f"{entry.name} predicts {entry.transformer.bits} bits a token, its tokenizer takes {bits}.")
    check_growth(schedule)
    if _counts_16_pixels(schedule) and entry.tokenizer.stride * patch != 16:
        raise VarlabError(
            f"{schedule.name} counts tokens of 16 pixels; the tokenizer of {entry.name} makes them "
            f"{entry.tokenizer.stride * patch} pixels wide."
        )


def check_codes(config: VARConfig, images: VQConfig) -> None:
    """Refuse a tokenizer with another codebook than the transformer predicts."""
    if (config.codes, config.code_width) != (images.codes, images.width):
        raise VarlabError(
            f"The transformer predicts {config.codes} codes of {config.code_width} channels, its tokenizer has "
            f"{images.codes} of {images.width}."
        )


def _counts_16_pixels(schedule: Schedule) -> bool:
    """Whether it is a released one, by its grids and the extent of its positions, whatever its name."""
    return any(
        schedule.extent == table[-1] and schedule.grids == table[: len(schedule)] for table in INFINITY_GRIDS.values()
    )


def _check(
    entry: ModelEntry,
    init: str,
    precision: str,
    device: str,
    checkpoint: str | Path | None,
    tokenizer: str | Path | None,
    text: str | TextEncoder | HartEncoder | None,
) -> None:
    if init not in INITS:
        raise unknown("init", init, INITS)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if init != "checkpoint" and (checkpoint or tokenizer):
        raise VarlabError(f"init={init!r} reads no files: leave checkpoint and tokenizer out, or init.")
    if entry.folder is not None and tokenizer:
        raise VarlabError(f"{entry.name} brings its own tokenizer: leave tokenizer out.")
    if entry.text == "classes" and text is not None:
        raise VarlabError(f"{entry.name} reads class labels, such as 207, and no text: leave text out.")
    if entry.family == "hart" and entry.folder is not None and text not in (None, "captions"):
        raise VarlabError(f"{entry.name} reads the captions of its card with its own encoder: leave text={text!r} out.")
    if isinstance(text, str) and text not in ("random", entry.text) and "captions" in (text, entry.text):
        raise VarlabError(f"{entry.name} reads {entry.text}, not text={text!r}: leave text out.")
    kind = usable(device).type
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise VarlabError(f"{torch.cuda.get_device_name(device)} has no bf16: take precision fp32.")
    if kind == "meta":
        raise VarlabError("For shapes without weights use init='empty', not device='meta'.")


def _savings(entry: ModelEntry, given: Savings | Mapping[str, bool] | None) -> Savings | None:
    """The switches asked for; None for the model's own."""
    if given is not None and entry.family != "hart":
        raise VarlabError(f"{entry.name} has no such switches, only HART has: leave savings out.")
    return None if given is None else Savings.of(given)


def _check_memory(
    entry: ModelEntry,
    init: str,
    precision: str,
    device: str,
    pixels: str | None,
    ratio: float,
    text: object,
    strips: int | None,
) -> None:
    """Refuse a model that cannot be held and draw one image."""
    without_encoder = text in ("random", "features") or callable(text) or (text is None and init == "random")
    refuse_what_cannot_fit(
        entry, entry.schedule(pixels, ratio), precision, device, without_encoder=without_encoder, ratio=ratio,
        strips=strips,
    )  # fmt: skip


# Files


def require(entry: ModelEntry) -> None:
    """Refuse a model whose trained weights or text encoder are not here; reads no tensors."""
    if entry.family == "hart" and entry.folder is None:
        official_files(entry)
        QwenText(folders=prompt_folders(entry)).require()
        return
    if entry.folder is None:
        require_files(entry)
        _reader(entry, "checkpoint", None, "fp32", "cpu", 0)
    elif not (weights := entry.folder / "model.safetensors").exists():
        raise VarlabError(f"{weights} does not exist. Fetch the folder again, or choose another model: varlab models.")


def require_files(
    entry: ModelEntry,
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    otherwise: str = "Or choose a model whose weights are here: varlab models.",
) -> tuple[Path, Path]:
    """The files of transformer and tokenizer, found but not read: what was given, else those in the checkpoint folder.

    A folder or hub id given for one serves the other too. All that is missing is named in one VarlabError, which ends
    with ``otherwise``.
    """
    path = _find_file(entry.file, checkpoint)
    if tokenizer is None and checkpoint is not None and path is not None:
        tokenizer = in_folder(path.parent, entry.tokenizer_file)
        if tokenizer is None and not Path(checkpoint).expanduser().exists():
            tokenizer = entry.hub
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


def _ways(entry: ModelEntry) -> str:
    """What else a caller of ``load`` can do about missing files."""
    hub = f" (checkpoint={entry.hub!r} downloads both)" if entry.file else ""
    return (
        f"Or give checkpoint=PATH and tokenizer=PATH{hub}, or init='random' for untrained weights. "
        "(On the command line: --checkpoint PATH --tokenizer PATH, or --init random.)"
    )


def _find_file(file: str, source: str | Path | None) -> Path | None:
    """The file to read: what was given, else the official or converted file in the checkpoint folder."""
    return in_folder(checkpoint_folder(), file) if source is None else locate(source, file)


# Parts


def _read_official(entry: ModelEntry, parts: Parts, path: Path, image_path: Path, precision: str, device: str) -> str:
    """Fill both modules and say from which files, each with a hash of what was loaded, whatever the file's format."""
    stored = read(path)
    if stored.metadata.get("name", entry.name) != entry.name:
        raise VarlabError(f"{path} was converted as {stored.metadata['name']}, not {entry.name}.")
    load_into(parts.transformer, stored.tensors, f"{stored.label} (for {entry.name})", precision, device)
    images = read(image_path)
    load_into(parts.tokenizer, images.tensors, f"{images.label} (tokenizer of {entry.name})", precision, device)
    origin = stored.metadata.get("source", stored.label)
    kind = "official" if entry.file and origin == entry.file else "checkpoint"
    hashes = [hash_tensors(module.state_dict())[:8] for module in (parts.transformer, parts.tokenizer)]
    return f"{kind} ({stored.label} {hashes[0]}, tokenizer {images.label} {hashes[1]})"


def _reader(
    entry: ModelEntry, init: str, text: str | TextEncoder | None, precision: str, device: str, seed: int
) -> TextEncoder | None:
    """The text encoder, checked before any weights are read; None for labels, a mini's own and for shapes alone."""
    if not isinstance(entry.transformer, InfinityConfig):
        return None
    if text in (None, "captions") and (entry.folder is not None or init == "empty"):
        return None
    encoder = choose(
        text, entry.transformer.text_width, "random" if init == "random" else entry.text, device, precision, seed
    )
    if isinstance(encoder, FlanT5):
        encoder.require()
    return encoder


def check_captions(entry: ModelEntry, captions: Sequence[str]) -> None:
    """Refuse captions that a mini cannot read, from its vocabulary alone, and classes that a model does not know;
    other text encoders read anything."""
    if isinstance(entry.transformer, VARConfig) and captions:
        ClassReader(entry.transformer.classes, class_names(entry))(captions)
    encoder = None if entry.folder is None else empty(entry).text
    if encoder is not None:
        encoder.check(captions)
