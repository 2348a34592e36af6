"""Commands on methods: ``compare``, ``calibrate``, ``split``, ``savings``."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn

from varlab.cli.options import (
    NONE,
    Dense,
    Model,
    NoWait,
    Overwrite,
    Prompts,
    Sampling,
    Seed,
    as_table,
    bars,
    check_folder,
    check_readable,
    console,
    image_bar,
    load_model,
    read_numbers,
    read_prompts,
    resumable,
    say,
    say_alone,
    with_options,
)
from varlab.markup import count

app = typer.Typer()


@app.command()
@with_options
def compare(
    model: Model,
    specs: Annotated[list[str], typer.Argument(help="e.g. none sparsevar:tau=0.6 truncate:last=1; a+b run together.")],
    prompts: Prompts = None,
    n: Annotated[
        int | None,
        typer.Option(help="Prompts; a scene score is shown from 100 on. Default: 32, or all of a shorter file."),
    ] = None,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(help="Images at a time: in the latency, and at most for the frontier.")] = 4,
    timed: Annotated[
        int | None,
        typer.Option(
            help="Batches under the clock, 6 or more for an interval; the other pictures are drawn without it, in less "
            "time. Default: each once."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has it.")] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="Folder with AlexNet and LPIPS weights; default: $VARLAB_LPIPS, else no LPIPS.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for tables, JSON, pictures, the trade-off figure. The same command goes on in it."),
    ] = None,
    frontier: Annotated[
        bool, typer.Option(help="Judge by the frontier of all baselines, drawn once and kept under runs/.")
    ] = True,
    dense: Dense = None,
    foreign: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures that other code drew of these prompts and seed; may be repeated."),
    ] = None,
    foreign_latency: Annotated[
        Path | None,
        typer.Option(help="CSV of their latencies: method (the folder, or none: their dense run) and seconds."),
    ] = None,
    settings: Sampling = NONE,
    no_wait: NoWait = False,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Compare methods with the dense run, interleaved in one run, and with the best of all baselines.

    Latency, work and fidelity of each; then whether a method keeps more than the baselines do at its work.
    """
    import torch

    from varlab.api import compare as run
    from varlab.claims.methods import verdicts
    from varlab.comparison import PROMPTS, methods_of
    from varlab.comparison.resumed import check_place
    from varlab.runs.inputs import at_least
    from varlab.weights.lpips import load_lpips

    at_least(1, batch=batch, timed=timed, threads=threads)
    load_lpips(lpips)
    methods = [methods_of(spec) for spec in specs]  # mistakes are told before a model is loaded
    chosen = read_prompts(model, prompts, n, most=PROMPTS)
    if out is not None:
        check_place(out, None, overwrite)
    if threads is not None:
        torch.set_num_threads(threads)
    check_readable(model, chosen, settings, methods=methods, **options)
    loaded = load_model(model, **options)
    with resumable() if out else nullcontext(), image_bar() as progress:
        result = run(
            loaded, chosen, specs, n=len(chosen), seed=seed, batch=batch, timed=timed, lpips=lpips, frontier=frontier,
            progress=progress, foreign=foreign or (), foreign_latency=foreign_latency, dense=dense, folder=out,
            overwrite=overwrite, wait=not no_wait, **settings,
        )  # fmt: skip
    for half in (result.speed(), result.fidelity()):
        console.print(as_table(half))
    facts = result.facts
    say(
        f"{facts['model']}, {facts['weights']}, {facts['precision']}, {facts['device']}, "
        f"{count(facts['threads'], 'thread')}, "
        f"batch {batch}, n {facts['n']}, seed {seed}; ms: median and quartiles of timed batches; [low, high]: 95 % "
        "bootstrap over prompts, of the speed-up over timed batches where these are six or more"
    )
    say_alone({"timed batch": int(result.table.timings.max()), "prompt": facts["n"]})
    if result.frontier is not None:
        say(f"baselines: {len(result.frontier.specs) - 1}, kept in {result.frontier.facts['folder']}")
    for verdict in verdicts(result):
        say(f"{verdict.claim}: {verdict.outcome}. {verdict.text}")
    notes = list(facts["notes"])
    if result.foreign is not None:
        say(("beside pictures of other code, all as stored", "bold"))
        for part in result.foreign.shown():
            console.print(as_table(part))
        notes += result.foreign.facts["notes"]
    for note in notes:
        say((note, "yellow"))
    if out is not None:
        from varlab.figures import save, tradeoff  # matplotlib and its like take longer than a batch

        save(tradeoff(result, against="work_ratio"), "tradeoff", folder=out, overwrite=True)
        say(f"written to {out} ({facts['date']})")


@app.command()
@with_options
def calibrate(
    method: Annotated[str, typer.Argument(help="sparsevar (which open reading fits) or skipvar (decision models).")],
    model: Model,
    prompts: Prompts = None,
    n: Annotated[int | None, typer.Option(help="Prompts: 50 for sparsevar, 300 to fit skipvar.")] = None,
    held_out: Annotated[
        int | None, typer.Option(help="skipvar: further prompts, of other texts, that judge the fit; default: 100.")
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="skipvar: SSIM to the dense image to keep; a decision model for each. Default: "
            "0.84,0.86,0.88,0.94,0.97."
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables (and skipvar.json); default: print only.")
    ] = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Settle what a method leaves open, on the model at hand."""
    from varlab.studies.calibration.command import METHODS, calibrate_command, check_command

    found = read_numbers("targets", targets)
    aims = (found,) if isinstance(found, float) else found
    methods = check_command(method, held_out, aims)
    chosen = read_prompts(model, prompts)
    check_folder(out, overwrite, *METHODS[method])
    check_readable(model, chosen, {}, methods=[methods], **options)
    loaded = load_model(model, **options)
    with image_bar() as progress:
        tables, text = calibrate_command(method, loaded, chosen.name, n, held_out, seed, out, progress, aims)
    for table in tables:
        console.print(as_table(table))
    say(text)
    if out is not None:
        say(f"written to {out}")


@app.command()
@with_options
def split(
    model: Model,
    prompts: Prompts = None,
    n: Annotated[int | None, typer.Option(help="Prompts; default: 100, or all of a shorter file.")] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for sensitive.txt, robust.txt and features.csv.")] = Path("split"),
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Split a prompt set by SkipVAR's features: what late stages still change much, and what they do not.

    The two files are prompt sets themselves: `varlab compare MODEL SPEC --prompts split/sensitive.txt`.
    """
    from varlab.runs.inputs import at_least
    from varlab.studies.calibration.command import HALVES, check_command, split_command

    at_least(0, seed=seed)
    chosen = read_prompts(model, prompts, n, most=100)
    check_folder(out, overwrite, *HALVES)
    check_readable(model, chosen, {}, methods=[check_command("skipvar", None, None)], **options)
    loaded = load_model(model, **options)
    with image_bar() as progress:
        text = split_command(loaded, chosen.texts, seed, out, progress)
    say(text)


@app.command()
@with_options
def savings(
    spec: Annotated[str, typer.Argument(help="The method.")] = "sparsevar:keep=0.25,last=3",
    repeats: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    pixels: Annotated[str, typer.Option(help="Schedule: 0.06M, 0.25M, 0.60M, 1M.")] = "1M",
    depth: Annotated[int, typer.Option(help="Blocks of the random model.")] = 8,
    width: Annotated[int, typer.Option(help="Its channels, a multiple of 128.")] = 512,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables.")] = None,
    settings: Sampling = NONE,
    overwrite: Overwrite = False,
) -> None:
    """Time how much of the work that a method saves becomes time, on a mid-size model of random weights."""
    import torch

    from varlab.comparison import methods_of
    from varlab.machine import device_name
    from varlab.outputs import FACTS, save_json, save_table
    from varlab.runs.inputs import at_least, with_overrides
    from varlab.runs.origins import made_with
    from varlab.timing.benchmarks.models import random_infinity
    from varlab.timing.benchmarks.pruning import savings as measure

    at_least(1, repeats=repeats, depth=depth, width=width, batch=batch, threads=threads)
    methods_of(spec)
    check_folder(out, overwrite)
    if threads is not None:
        torch.set_num_threads(threads)
    model = random_infinity(depth, width, pixels)
    model.settings = with_overrides(model.settings, **settings)
    model.settings.check(len(model.schedule), model.depth)
    with bars(MofNCompleteColumn(), "rounds") as move:
        found = measure(model, spec, repeats, batch, lambda done, total: move("rounds", done, total))
    console.print(as_table(found.table))
    facts = {
        "method": spec, "model": model.name, "weights": model.weights, "schedule": pixels, "precision": model.precision,
        "device": device_name(model.device), "threads": torch.get_num_threads(), "batch": batch, "rounds": repeats,
    }  # fmt: skip
    say(
        f"{', '.join(f'{name} {value}' for name, value in facts.items())}; medians of rounds and 95 % intervals; "
        "overhead and saving over the dense transformer span"
    )
    say_alone({"round": repeats})
    if out is not None:
        for name, table in (("savings", found.table), ("rounds", found.rounds), ("stages", found.stages.reset_index())):
            save_table(out / f"{name}.csv", table)
        save_json(out / FACTS, made_with(model) | facts)
        say(f"written to {out}")
