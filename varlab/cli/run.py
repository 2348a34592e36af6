"""Commands that draw and log: ``models``, ``sample``, ``log``, ``report``."""

from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn

from varlab.cli.batches import make_all
from varlab.cli.options import (
    NONE,
    Method,
    Model,
    Negative,
    NoWait,
    Overwrite,
    Prompts,
    Sampling,
    Seed,
    bars,
    check_file,
    check_readable,
    console,
    image_bar,
    load_model,
    read_prompts,
    resumable,
    say,
    with_options,
)
from varlab.errors import VarlabError, quoted
from varlab.markup import count

app = typer.Typer()


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _dim(text: str) -> None:
    """A remark below a row, broken between words at the width of the window."""
    for line in wrap(text, console.width, initial_indent="  ", subsequent_indent="  ", break_long_words=False):
        say((line, "dim"))


@app.command()
def models() -> None:
    """List the models: size, stages, and whether their weights are here."""
    from varlab.weights.catalogue import catalogue
    from varlab.weights.places import checkpoint_folder

    form = "{:<20}{:>10}{:>8}{:>8}  {}"
    say((form.format("name", "parameters", "stages", "tokens", "weights"), "bold"))
    for row in catalogue():
        known = row.weights != "damaged"
        numbers = (_size(row.parameters or 0), row.stages, row.tokens) if known else ("", "", "")
        say(form.format(row.name, *numbers, row.weights))
        if row.weights == "not here":
            needs = f"needs {row.expected.replace(f'{checkpoint_folder()}/', '')}"
            _dim(needs)
        _dim(row.description)
    say(f"Official files are looked for in {checkpoint_folder()}; --init random runs without them.")


@app.command()
@with_options
def sample(
    model: Model,
    prompt: Annotated[
        list[str], typer.Argument(help='What to draw, e.g. "a red star above a blue ring"; for VAR a class number.')
    ],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files, or of one prompt the .png.")] = Path("samples"),
    seed: Seed = 0,
    settings: Sampling = NONE,
    negative: Negative = None,
    method: Method = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Draw prompts and print the work ledger.

    A picture is named after all that decides it, and says so itself: `varlab show samples/IMAGE.png`.

    Example: `varlab sample nano-infinity "a red star above a blue ring" --seed 3`
    """
    from varlab.accelerators import build
    from varlab.api import sample as draw
    from varlab.outputs import image_facts, key_of, plain, save_image
    from varlab.runs.inputs import at_least, check_prompts
    from varlab.writing import check_writable

    check_prompts(prompt)  # mistakes are told before a model is loaded
    at_least(0, seed=seed)
    methods = build(method or ())
    alone = len(prompt) == 1 and out.suffix.lower() == ".png" and not out.is_dir()
    if alone:
        check_file(out, ".png", overwrite)
    else:
        check_writable(out)
    check_readable(model, prompt, settings, negative, [methods], **options)
    loaded = load_model(model, **options)
    result = draw(loaded, prompt, seed=seed, accelerators=method or (), negative=negative, **settings)
    for i, image in enumerate(result.images):
        facts = plain(image_facts(result.log.attrs, i))
        path = out if alone else out / f"{loaded.name}-seed{seed}-{i:04d}-{key_of(facts)}.png"
        written = save_image(path, image, facts, overwrite)
        say(str(path), (f"  {prompt[i]}{'' if written else '  (was there, the same: left as it is)'}", "dim"))
    work = result.ledger
    say(f"weights: {loaded.weights}")
    engaged = f"; engaged: {'yes' if work.engaged else 'no'}" if method else ""
    say(f"transformer: {work.transformer_flops / 1e9:.3g} GFLOP in all{engaged}")


@app.command()
@with_options
def log(
    model: Model,
    prompts: Prompts = None,
    n: Annotated[
        int | None,
        typer.Option(help="Prompts; time and disk grow in proportion. Default: 48, or all of a shorter file."),
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; the same command resumes it.")] = None,
    probe: Annotated[list[str] | None, typer.Option(help="e.g. token-mse or residual-spectrum:preview=full.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images at a time; default: 16, fewer where keys and values pass 1 GiB.")
    ] = None,
    settings: Sampling = NONE,
    negative: Negative = None,
    method: Method = None,
    no_wait: NoWait = False,
    **options: Any,
) -> None:
    """Run prompts with probes and store images and log in a run folder.

    Ctrl-C keeps what is done; the same command goes on. Open it with `varlab.open_log(folder)`.
    """
    from varlab.accelerators import build as build_accelerators
    from varlab.api import log as run_log
    from varlab.probes import PROBES, build
    from varlab.runs import MADE, runs_folder
    from varlab.runs.inputs import at_least
    from varlab.writing import check_writable

    build(probe or ())  # mistakes are told before a model is loaded
    methods = build_accelerators(method or ())
    at_least(0, seed=seed)
    at_least(1, batch=batch)
    chosen = read_prompts(model, prompts, n, most=48)
    check_writable(out or runs_folder())
    check_readable(model, chosen, settings, negative, [methods], **options)
    loaded = load_model(model, **options)
    with resumable(), image_bar() as progress:
        tree = run_log(
            loaded, chosen, seed=seed, folder=out, probes=probe or tuple(PROBES), accelerators=method or (),
            negative=negative, batch=batch, progress=progress, wait=not no_wait, **settings,
        )  # fmt: skip
    say(f"{count(tree.attrs['n'], 'prompt')}, weights: {tree.attrs['weights']}, groups: {', '.join(tree.children)}")
    made, source = tree.encoding[MADE], tree.encoding["source"]
    say(f"{made} to {source}" if made == "written" else f"{source} was there, finished; {made or 'nothing was drawn'}")


@app.command()
def report(
    name: Annotated[
        list[str] | None, typer.Argument(help="Notebooks by name, e.g. 01_residual_spectra. Default: all.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for notebooks, HTML, figures and index.html.")] = Path("reports"),
    suffix: Annotated[
        str | None, typer.Option(help="Ends the reports' names. Default: the inputs that differ from a notebook's own.")
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(help="A YAML list of reports, made several at a time; unchanged ones are left.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Of --batch, how many reports at a time.")] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Of --batch, make unchanged reports again too.")] = False,
    overwrite: Overwrite = False,
    no_wait: NoWait = False,
) -> None:
    """Execute notebooks into reports: notebook, offline HTML, figures as PDF, PNG and CSV, and an index.

    Example: `varlab report 01_residual_spectra -p model=nano-infinity -p n=16`

    A batch holds entries such as `- report: 20_compare` with `parameters: {model: mini-hart, n: 32}` under it.
    """
    from varlab.report_inputs import absent_models, check_inputs, digests
    from varlab.reports import find_notebook, list_notebooks, notebook_parameters, run_report
    from varlab.reports.orders import order_of, refuse_others
    from varlab.writing import check_writable

    check_writable(out)
    if batch is not None:
        if name or parameter or suffix:
            raise VarlabError("--batch names reports and their parameters in its file; give neither beside it.")
        return make_all(batch, out, workers=workers, fresh=fresh, overwrite=overwrite)
    if fresh:
        raise VarlabError("--fresh goes with --batch; a single report is always made anew.")
    given = dict(_pair(item) for item in parameter or ())
    notebooks = [find_notebook(item) for item in name] if name else list(list_notebooks().values())
    if not name:
        absent = [path for path in notebooks if absent_models(notebook_parameters(path), given)]
        notebooks = [path for path in notebooks if path not in absent]
        for path in absent:
            models = ", ".join(absent_models(notebook_parameters(path), given))
            say(f"{path.stem} is left out: {models} is not here (varlab train makes it)")
    names = [f"{path.stem}-{suffix}" if suffix else "" for path in notebooks]
    orders = [order_of(path, given, own, check_inputs, digests) for path, own in zip(notebooks, names, strict=True)]
    if not overwrite:
        refuse_others(orders, out.resolve())  # all are checked before the first one runs
    with resumable():
        for order in orders:
            say(f"{order.notebook.stem} ...")
            with bars(MofNCompleteColumn(), "cells") as move:
                made = run_report(
                    order.notebook, order.inputs, out, name=order.name, progress=partial(move, "cells"),
                    overwrite=overwrite, wait=not no_wait, read=order.read,
                )  # fmt: skip
            say(f"  {made.html}")
    say(f"index: {out / 'index.html'}")


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise VarlabError(f"{quoted(item)} is not NAME=VALUE. Write, for example, -p n=16.")
    return name, value
