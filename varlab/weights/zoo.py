"""One call that builds any model of the registry: ``load("infinity-2b", "random", precision="bf16")``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from varlab.context import fixed_context
from varlab.errors import VarlabError, all_at_once, names_keywords
from varlab.machine import DTYPES, usable
from varlab.models.captions import CaptionEncoder
from varlab.models.classes import ClassReader
from varlab.models.hart import HartTransformer
from varlab.models.hart_captions import HartCaptions
from varlab.models.hart_model import Hart, HartEncoder
from varlab.models.hart_settings import HartSettings, Savings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.infinity_model import Infinity
from varlab.models.packed import pack
from varlab.models.quantised import INT8, label, quantise
from varlab.models.qwen import QwenText
from varlab.models.text import FlanT5, RandomText, TextEncoder, choose
from varlab.models.tokenizers.bsq import BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.models.tokenizers.strips import in_strips
from varlab.models.tokenizers.vqvae import VQTokenizer
from varlab.models.var import VARConfig, VARTransformer
from varlab.models.var_model import VAR
from varlab.models.widened import BF16_WEIGHTS, widen
from varlab.schedules import Schedule
from varlab.weight_labels import EMPTY, RANDOM, TRAINED, WeightsLabel
from varlab.weights import embedded, ready
from varlab.weights.embedded import Parts, mini_folder
from varlab.weights.files import read_official, require_files, ways
from varlab.weights.fits import check_fit
from varlab.weights.fitting import retype
from varlab.weights.hart_files import load_hart, prompt_folders
from varlab.weights.hart_places import official_files, on_hub
from varlab.weights.initialise import randomise
from varlab.weights.official import ModelEntry
from varlab.weights.options import LoadOptions
from varlab.weights.places import split_part
from varlab.weights.precision import AUTO, chosen, packs_faster, text_precision
from varlab.weights.registry import empty, find, mini


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

    Parameters
    ----------
    name
        One of ``varlab models``.
    init
        "checkpoint" (default): minis bring theirs, official models read ``checkpoint`` and ``tokenizer``. "random":
        from ``seed``, no file needed. "empty": shapes and types only, on the meta device.
    device
        "cpu", "cuda", "cuda:N" or "mps".
    precision
        "fp32"; "bf16" with the types of ``fitting.dtype_of``, which halves memory and rounds the blocks as Infinity's
        official run does; "fp16", the same for GPUs without bf16, refused where a number passes 65504; "bf16-weights",
        weights in bf16 with arithmetic in fp32; "int8", those of the blocks quantised by torchao, under a label of
        their own, with arithmetic in fp32; of HART "bf16-diffusion" and "fp16-diffusion", with the network of the
        diffusion head in that type too; "auto", see ``precision.chosen``.
    pixels, ratio
        The released schedule of an official model: 0.06M, 0.25M, 0.60M or 1M, and height over width.
    checkpoint, tokenizer
        Official weights: a path, a folder with the official file names or a hub id; by default the checkpoint folder.
        HART reads a folder with ``llm/`` and ``tokenizer/``, see ``hart_files.load_hart``.
    text
        An encoder, "flan-t5-xl", the folder or hub id of one, or "random"; by default what fits the weights. HART
        reads features where it is "features".
    seed
        Of random weights.
    savings
        Of HART, switches that change no number beyond rounding, e.g. {"one_null": True}: see ``hart_model.Savings``.
    strips
        Decode in strips of so many rows: less memory, the same image but for rounding. See ``tokenizers.strips``.

    Returns
    -------
    Infinity, Hart or VAR
        ``weights`` always says which weights these are.

    Raises
    ------
    VarlabError
        For every option or file that does not fit, and for what the memory cannot hold.

    Examples
    --------
    >>> model = vl.load("nano-infinity")
    >>> untrained = vl.load("infinity-125m", init="random", seed=1)
    """
    entry = find(name)
    if precision == AUTO:
        usable(device)
        precision, _ = chosen(entry, precision, init, device)
    asked = LoadOptions(
        init or "checkpoint", device, precision, pixels, ratio, checkpoint, tokenizer, text, seed, savings, strips
    )
    return assemble(entry, asked)


@fixed_context()
@torch.inference_mode(False)  # who loads a model there could not train it later
def assemble(entry: ModelEntry, options: LoadOptions) -> Infinity | Hart | VAR:
    """As ``load``, from an entry of any origin."""
    options.check(entry)
    if options == LoadOptions() and (held := ready.take(entry)) is not None:
        return cast(Infinity | Hart | VAR, held)
    entry = entry_of(entry, options.checkpoint)
    schedule = entry.schedule(options.pixels, options.ratio)
    check_fit(entry, schedule)
    here = options.checkpoint is None or split_part(options.checkpoint)[0].exists()
    if not here:
        options.check_memory(entry)  # before gigabytes come over the network
    loaded = _official_hart(entry, options) if entry.family == "hart" and entry.folder is None else None
    made = loaded or _assembled(entry, options, schedule)
    made.scene_version = scenes_known(entry)
    if options.precision == BF16_WEIGHTS:
        widen(made.transformer)
    if options.precision == INT8 and options.init != "empty":
        quantise(made.transformer)
        made.weights = label(made.weights)
    halved = DTYPES[options.precision] == torch.bfloat16
    if halved and options.init != "empty" and packs_faster(options.device, made.width):
        pack(made.transformer)
    return cast(Infinity | Hart | VAR, in_strips(made, options.strips))


def _official_hart(entry: ModelEntry, options: LoadOptions) -> Hart:
    if options.init == "checkpoint" and not on_hub(options.checkpoint):
        official_files(entry, options.checkpoint, options.tokenizer)  # what is missing comes before what is too large
    options.check_memory(entry)
    return load_hart(
        entry, options.init, device=options.device, precision=options.precision, checkpoint=options.checkpoint,
        tokenizer=options.tokenizer, text=cast(str | HartEncoder | None, options.text), seed=options.seed,
        savings=options.switches(),
    )  # fmt: skip


def _assembled(entry: ModelEntry, options: LoadOptions, schedule: Schedule) -> Infinity | Hart | VAR:
    """Infinity and VAR, and the minis of all families."""
    official = options.init == "checkpoint" and entry.folder is None
    given = options.checkpoint, options.tokenizer
    files, reader = all_at_once(
        lambda: require_files(entry, *given, ways(entry)) if official else None, lambda: _reader(entry, options)
    )
    options.check_memory(entry)
    parts, weights = _filled(entry, options, files)
    for module in parts.named().values():
        module.eval().requires_grad_(False)
    channels_last(parts.tokenizer)
    encoder = parts.text if reader is None else reader
    if isinstance(encoder, RandomText) and options.init == "checkpoint":
        weights = weights.and_text(encoder.label)
    return _model(entry, parts, schedule, encoder, weights, options.switches())


def _filled(entry: ModelEntry, options: LoadOptions, files: tuple[Path, Path] | None) -> tuple[Parts, WeightsLabel]:
    """The modules, and what their weights are."""
    if options.init == "checkpoint" and entry.folder is not None:
        trained, facts = embedded.load_mini(entry.folder, options.precision, options.device)
        return trained, _trained(entry.name, facts)
    parts = empty(entry)
    if files is not None:
        return parts, read_official(entry, parts, files, options.precision, options.device)
    for module in parts.named().values():
        if options.init == "empty":
            retype(module, options.precision)
        else:
            randomise(module, options.seed, options.precision, options.device)
    if options.init == "empty":
        return parts, WeightsLabel.of(EMPTY, "shapes only")
    return parts, WeightsLabel.of(RANDOM, f"seed {options.seed}")


def _model(
    entry: ModelEntry,
    parts: Parts,
    schedule: Schedule,
    encoder: TextEncoder | None,
    weights: WeightsLabel,
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


def _trained(name: str, facts: embedded.MiniFacts) -> WeightsLabel:
    return WeightsLabel.of(TRAINED, f"varlab {name}, {facts.weights}", content={"all parts": facts.weights})


def files_of(entry: ModelEntry) -> list[Path]:
    """The weights that ``load`` would read here by default; none where they are not here."""
    if entry.folder is not None:
        return [entry.folder]
    try:
        return list(vars(official_files(entry)).values() if entry.family == "hart" else require_files(entry))
    except VarlabError:
        return []


def scenes_known(entry: ModelEntry) -> str:
    """The version of the scenes that a mini was trained on; of other models without a meaning."""
    return embedded.SCENE_VERSION if entry.folder is None else embedded.read_facts(entry.folder).scene_version


def class_names(entry: ModelEntry) -> tuple[str, ...]:
    """Of a model that reads classes; none where it knows them by number alone."""
    return () if entry.folder is None else embedded.read_facts(entry.folder).vocabulary


def require(entry: ModelEntry) -> None:
    """Refuse a model whose trained weights or text encoder are not here; reads no tensors."""
    if entry.family == "hart" and entry.folder is None:
        all_at_once(lambda: official_files(entry), QwenText(folders=prompt_folders(entry)).require)
        return
    if entry.folder is None:
        all_at_once(lambda: require_files(entry), lambda: _reader(entry, LoadOptions()))
    elif not (weights := entry.folder / "model.safetensors").exists():
        raise VarlabError(f"{weights} does not exist. Fetch the folder again, or choose another model: varlab models.")


def _reader(entry: ModelEntry, options: LoadOptions) -> TextEncoder | None:
    """The text encoder, checked before any weights are read; None for labels, a mini's own and for shapes alone."""
    if not isinstance(entry.transformer, InfinityConfig):
        return None
    text = cast(str | TextEncoder | None, options.text)
    if text in (None, "captions") and (entry.folder is not None or options.init == "empty"):
        return None
    default = "random" if options.init == "random" else entry.text
    encoder = choose(
        text, entry.transformer.text_width, default, options.device, text_precision(options.precision), options.seed
    )
    if isinstance(encoder, FlanT5):
        encoder.require()
    return encoder


def entry_of(entry: ModelEntry, checkpoint: str | Path | None) -> ModelEntry:
    """A mini's entry as another folder of its weights has it; of any other model the entry itself."""
    return mini(entry.name, mini_folder(checkpoint)) if entry.folder is not None and checkpoint else entry


def check_captions(entry: ModelEntry, captions: Sequence[str]) -> None:
    """Refuse captions that a mini cannot read, from its vocabulary alone, and classes that a model does not know;
    other text encoders read anything."""
    if isinstance(entry.transformer, VARConfig) and captions:
        ClassReader(entry.transformer.classes, class_names(entry))(captions)
    encoder = None if entry.folder is None else empty(entry).text
    if encoder is not None:
        encoder.check(captions)
