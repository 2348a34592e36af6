"""What the commands share: options, loading, and how they speak."""

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text as Line

from varlab.errors import VarlabError, quoted
from varlab.markup import in_terminal
from varlab.progress import Lines

console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000)  # whole tables in files

Model = Annotated[str, typer.Argument(help="A name from `varlab models`, e.g. nano-infinity.")]
Init = Annotated[str | None, typer.Option(help="checkpoint (default) or random, which needs no files.")]
Checkpoint = Annotated[str | None, typer.Option(help="Official transformer weights: a path or a Hugging Face id.")]
Tokenizer = Annotated[str | None, typer.Option(help="Official tokenizer weights: a path or a Hugging Face id.")]
Text = Annotated[str | None, typer.Option(help="Text encoder folder or id (official models), or `random`.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32, bf16, fp16 (GPUs without bf16), bf16-weights (computes in fp32), int8 (by torchao; "
        "another model), bf16-diffusion or fp16-diffusion (HART's diffusion head too) or auto. Default: fp32; for "
        "large random weights auto."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Pixels = Annotated[str | None, typer.Option(help="Pixel budget of official models: 0.06M, 0.25M, 0.60M, 1M.")]
Strips = Annotated[
    int | None, typer.Option(help="Decode in strips of so many rows: less memory, the same image but for rounding.")
]
Prompts = Annotated[
    str | None,
    typer.Option(
        help="A prompt set (scenes, scenes-counting, geneval, classes) or a file (.txt, .jsonl, .json, .csv, .tsv). "
        "Default: scenes; of class-conditional models their classes."
    ),
]
Seed = Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")]
Cfg = Annotated[
    str | None, typer.Option(help="Guidance scale, or one a stage: 1,3,3,... Higher follows the text more.")
]
Tau = Annotated[str | None, typer.Option(help="Temperature, or one a stage. Lower is safer and flatter.")]
TopK = Annotated[int | None, typer.Option(help="Draw from the k likeliest labels alone; 0 for all.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the likeliest labels that hold this share; 0 for all.")]
CfgLayers = Annotated[
    str | None,
    typer.Option(help="Where guidance mixes the rows: 0 the logits, -m after block depth - m; several with commas."),
]
Negative = Annotated[
    str | None, typer.Option(help='Text that guidance leads away from; without one, or with "", the null text.')
]
Method = Annotated[
    list[str] | None, typer.Option(help="What leaves work out, e.g. truncate:last=1; may be repeated, to run together.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there; without it that is refused.")]
Dense = Annotated[
    str | None,
    typer.Option(help="Folder or URL of dense images that sweeps, comparisons and benchmarks of equal batches share."),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Refuse, instead of waiting, while another process writes in the folder.")
]
Ratio = Annotated[float, typer.Option(help="Height over width of official models; the nearest template is used.")]


Sampling = dict[str, Any]  # what ``with_options`` reads from the options of sampling
NONE: Sampling = {}


def read_numbers(name: str, text: str | None) -> float | tuple[float, ...] | None:
    """One number, or a comma list with one a stage."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise VarlabError(f"--{name} takes a number or a comma list of numbers, not {quoted(text)}.") from None
    if not all(map(math.isfinite, values)):
        raise VarlabError(f"--{name} takes finite numbers, not {quoted(text)}.")
    return values[0] if len(values) == 1 else values


def read_settings(
    cfg: Cfg = None, tau: Tau = None, top_k: TopK = None, top_p: TopP = None, cfg_layers: CfgLayers = None
) -> dict[str, Any]:
    """The options of sampling that were given, as the package takes them; the model's own stay. They are those of every
    command that is wrapped in ``with_options`` and takes ``settings``."""
    given = {"cfg": read_numbers("cfg", cfg), "tau": read_numbers("tau", tau), "top_k": top_k, "top_p": top_p}
    given["cfg_layers"] = _read_layers(cfg_layers)
    return {name: value for name, value in given.items() if value is not None}


def _read_layers(text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise VarlabError(f"--cfg-layers takes whole numbers, such as 0,-2, not {quoted(text)}.") from None


def load_model(
    name: str,
    *,
    init: Init = None,
    checkpoint: Checkpoint = None,
    tokenizer: Tokenizer = None,
    text: Text = None,
    precision: Precision = None,
    device: Device = "cpu",
    pixels: Pixels = None,
    ratio: Ratio = 1.0,
    strips: Strips = None,
) -> Any:
    """A model by name; these options are those of every command that is wrapped in ``with_options``."""
    from varlab.machine import usable
    from varlab.models.tokenizers.strips import check_strips
    from varlab.weights.precision import chosen
    from varlab.weights.registry import find
    from varlab.weights.zoo import load

    check_strips(strips)
    if init == "empty":
        raise VarlabError("--init empty gives shapes only, and commands compute: take checkpoint or random.")
    usable(device)
    precision, why = chosen(find(name), precision, init, device)
    if why:
        say(f"precision {precision}: {why}.")
    return load(
        name, init, checkpoint=checkpoint, tokenizer=tokenizer, text=text,
        precision=precision, device=device, pixels=pixels, ratio=ratio, strips=strips,
    )  # fmt: skip


def load_set(name: str, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """A model that samples with these settings."""
    from varlab.runs.inputs import with_overrides

    loaded = load_model(name, **options)
    loaded.settings = with_overrides(loaded.settings, **settings)
    loaded.settings.check(len(loaded.schedule), loaded.depth)
    return loaded


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of ``load_model`` in place of its ``**options``, and those of ``read_settings`` in
    place of its ``settings``."""
    own, sampling = inspect.signature(command).parameters, inspect.signature(read_settings).parameters
    loading = [p for p in inspect.signature(load_model).parameters.values() if p.kind is p.KEYWORD_ONLY]
    replaced = {"settings": [*sampling.values()], "options": loading}

    @wraps(command)
    def wrapped(**given: Any) -> None:
        if "settings" in own:
            given["settings"] = read_settings(**{name: given.pop(name) for name in sampling})
        command(**given)

    listed = [p for name, parameter in own.items() for p in replaced.get(name, [parameter])]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in listed]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def check_readable(
    model: str,
    texts: Sequence[str],
    settings: Mapping[str, Any],
    negative: str | None = None,
    methods: Iterable[Sequence[Any]] = (),
    **options: Any,
) -> None:
    """Refuse what the model cannot read, sample with or run, while only its name and options are known: weights may
    take gigabytes. ``methods``: those that run together, for each run."""
    from varlab.runs.inputs import check_negative
    from varlab.runs.trial import check_methods
    from varlab.weights.registry import find
    from varlab.weights.zoo import check_captions, entry_of

    entry = entry_of(find(model), options["checkpoint"])
    negative = negative if negative and negative.strip() else None
    check_negative(entry.family, negative)
    check_captions(entry, [*texts, *filter(None, [negative])])
    trained = options["init"] != "random"
    check_methods(entry, methods, settings, pixels=options["pixels"], ratio=options["ratio"], trained=trained)


def require_classes(model: str, named: bool = False) -> None:
    """Refuse a model that reads texts where only classes will do, and one of nameless classes where scenes must be."""
    from varlab.weights.registry import find
    from varlab.weights.zoo import class_names

    if (entry := find(model)).family != "var":
        raise VarlabError(f"{model} reads texts, and this is for class-conditional models, such as mini-var.")
    if named and not class_names(entry):
        raise VarlabError(f"The classes of {model} are no scenes: take those of a mini, such as mini-var.")


def check_folder(out: Path | None, overwrite: bool, *names: str) -> None:
    """Refuse a folder that cannot be written in, or that holds something: one of these files, or of none named, any."""
    from varlab.outputs import refuse_existing
    from varlab.writing import check_writable

    if out is not None:
        check_writable(out)
        refuse_existing(*((out / name for name in names) if names else [out]), overwrite=overwrite)


def check_file(out: Path | None, suffix: str, overwrite: bool, *beside: str) -> None:
    """Refuse a file of another ending, in a folder that cannot be written in, or that is there; and those of other
    endings beside it that are there."""
    from varlab.outputs import refuse_existing
    from varlab.writing import check_writable_file

    if out is not None:
        check_writable_file(out, suffix)
        refuse_existing(out, *map(out.with_suffix, beside), overwrite=overwrite)


def require_known(name: str) -> None:
    """Refuse a name that is no model's, before anything else is prepared for it."""
    from varlab.weights.registry import find

    find(name)


def read_prompts(model: str, name: str | None, n: int | None = None, most: int | None = None) -> Any:
    """The prompts of a set or file for a model, at most ``most`` by default; says what was skipped or repeated."""
    from varlab.scenes.prompt_sets import choose

    chosen = choose(name, n, model, most)
    for note in chosen.notes:
        say((note, "yellow"))
    return chosen


class Stopped(Exception):  # noqa: N818  (no error: what is done is kept)
    """Ctrl-C in a command that goes on from where it was."""


@contextmanager
def resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command goes on from here") from None


def say(*parts: str | tuple[str, str]) -> None:
    """A line as it is, so that paths stay whole and prompts may hold brackets; a pair is text and style."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    console.print(Line.assemble(*((in_terminal(text), style) for text, style in pairs)), soft_wrap=True)


def say_alone(counts: Mapping[str, int]) -> None:
    """A line where an interval could only come from one of something: there is none then."""
    for what, count in counts.items():
        if count < 2:
            say((f"One {what} tells no interval: give more of them for one.", "yellow"))


@contextmanager
def bars(amount: ProgressColumn, *labels: str) -> Iterator[Callable[[str, float, int], None]]:
    """Progress: a bar for each label in a terminal, else lines; yields what moves it: (label, done, total)."""
    if not console.is_terminal:
        yield Lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), amount, TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {label: progress.add_task(label, total=None) for label in labels}
        yield lambda label, done, total: progress.update(tasks[label], completed=done, total=total)


@contextmanager
def image_bar() -> Iterator[Callable[[float, int], None]]:
    """A bar of images, which a large one moves stage by stage; yields what moves it: (done, total)."""
    with bars(MofNCompleteColumn(), "images") as move:
        yield lambda done, total: move("images", done, total)


def as_table(frame: Any) -> Any:
    """A pandas table for the terminal, its texts as they are: brackets in a prompt are no markup."""
    from rich.table import Column, Table

    fold: dict[str, Any] = {"overflow": "fold"}  # a narrow terminal wraps, and cuts nothing
    table = Table(*(Column(Line(str(name), **fold), **fold) for name in frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(Line(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return in_terminal(value)
