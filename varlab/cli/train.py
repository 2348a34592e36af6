"""Commands that train and judge the minis: ``train``, ``card``, ``export``, ``exits``, ``ablate``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from varlab.cli.options import (
    NONE,
    Device,
    Method,
    Model,
    NoWait,
    Overwrite,
    Sampling,
    Seed,
    as_table,
    check_file,
    check_readable,
    console,
    image_bar,
    load_model,
    load_set,
    require_classes,
    require_known,
    resumable,
    say,
    say_alone,
    with_options,
)
from varlab.markup import count

app = typer.Typer()


OF_FREQEXIT = {"model", "recipe", "seed", "learning_rate"}
OF_MINIS = {"init_from", "compiled"}
LearningRate = Annotated[float | None, typer.Option(help="freqexit: the highest of a run instead of .001.")]


@app.command()
def train(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="What to train: a mini, e.g. mini-var or mini-infinity-textured, or freqexit.")
    ],
    folder: Annotated[Path | None, typer.Option(help="Checkpoints; the same folder resumes.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Data-parallel processes, one thread each. Default: the recipe's.")
    ] = None,
    device: Device = "cpu",
    init_from: Annotated[
        Path | None, typer.Option(help="Start from the weights of a mini: its name or folder.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Transformer updates instead of the recipe's.")] = None,
    pool: Annotated[int | None, typer.Option(help="Scenes rendered for training instead of the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the finished mini goes; default: inside the folder.")] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="torch.compile the blocks: faster, after two minutes; needs a C++ compiler."),
    ] = False,
    model: Annotated[str, typer.Option(help="freqexit: the VAR mini to fine-tune.")] = "mini-var",
    recipe: Annotated[
        str, typer.Option(help="freqexit: corrected, official, layerskip, plain, or corrected:hf_layout=raw, ...")
    ] = "corrected",
    seed: Annotated[int, typer.Option(help="freqexit: of batches and dropped labels.")] = 0,
    learning_rate: LearningRate = None,
    overwrite: Overwrite = False,
    no_wait: NoWait = False,
) -> None:
    """Train a mini from nothing, or fine-tune one for early exits (`freqexit`).

    From nothing: scenes, tokenizer, transformer; a textured mini goes on from the flat one, tokenizer included. Ctrl-C
    keeps the state; the same command goes on.
    """
    from varlab.errors import VarlabError, unknown
    from varlab.machine import usable
    from varlab.outputs import refuse_existing
    from varlab.runs.inputs import at_least
    from varlab.training.command import train_command
    from varlab.training.freqexit.command import NAME, freqexit_command, plan_of
    from varlab.training.recipes import RECIPES
    from varlab.writing import check_writable

    if name not in (*RECIPES, NAME):
        raise unknown("training recipe", name, (*RECIPES, NAME))
    foreign, owner = (OF_MINIS, "minis") if name == NAME else (OF_FREQEXIT, NAME)
    if given := ", ".join(p.opts[0] for p in ctx.command.params if p.name in foreign and _given(ctx, p.name)):
        raise VarlabError(f"{given}: for {owner} alone, not for {name}. Leave it out.")
    at_least(1, steps=steps, pool=pool, workers=workers)
    at_least(0, seed=seed)
    usable(device)
    for place in (folder, out):
        if place is not None:
            check_writable(place)
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    with resumable():
        if name == NAME:
            plan = plan_of(model, recipe, seed, steps, pool, learning_rate)
            say(freqexit_command(plan, folder, workers or 2, device, out, not no_wait))
            return
        say(train_command(name, folder, workers, device, init_from, steps, pool, out, compiled, not no_wait))


def _given(ctx: typer.Context, option: str) -> bool:
    source = ctx.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


@app.command()
def card(
    model: Model,
    per_prompt: Annotated[
        int | None, typer.Option(help="Of a mini that reads captions: images a prompt; default: 4.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the card of a shipped mini from its own records: scores, ceiling, curves, contact sheet."""
    from varlab.errors import VarlabError
    from varlab.evaluation.card import FILES, write_card
    from varlab.evaluation.class_card import write_class_card
    from varlab.outputs import refuse_existing
    from varlab.runs.inputs import check_counts
    from varlab.scenes.prompt_sets import prompts
    from varlab.weights.embedded import card_folder
    from varlab.weights.registry import find

    check_counts(per_prompt=per_prompt, images=len(prompts("scenes")) * (per_prompt or 1))
    require_known(model)
    if per_prompt is not None and find(model).family == "var":
        raise VarlabError(f"--per-prompt belongs to minis that read captions; {model} reads classes. Leave it out.")
    refuse_existing(*(card_folder(model) / name for name in FILES), overwrite=overwrite)
    loaded = load_model(model)
    with image_bar() as progress:
        if loaded.family == "var":
            path = write_class_card(loaded, progress)
        else:
            path = write_card(loaded, progress, per_prompt=per_prompt or 4)
    say(str(path))


@app.command()
@with_options
def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="The .npz to write; an interrupted export goes on.")],
    n: Annotated[int, typer.Option(help="Images, classes in turn.")] = 50_000,
    seed: Seed = 0,
    method: Method = None,
    settings: Sampling = NONE,
    overwrite: Overwrite = False,
    no_wait: NoWait = False,
    **options: Any,
) -> None:
    """Write samples of a class-conditional model as the npz that OpenAI's ADM evaluator reads."""
    from varlab.accelerators import build
    from varlab.evaluation.adm import export_npz
    from varlab.runs.inputs import at_least, check_counts

    check_counts(n=n)
    at_least(0, seed=seed)
    methods = build(method or ())
    check_file(out, ".npz", overwrite, ".json")
    check_readable(model, (), settings, methods=[methods], **options)
    require_classes(model)
    loaded = load_set(model, settings, options)
    with resumable(), image_bar() as progress:
        path = export_npz(loaded, out, n, seed, tuple(method or ()), progress, not no_wait)
    say(f"{path}: arr_0, {n} images, {n / loaded.text.classes:g} of a class; weights: {loaded.weights}; seed {seed}")


@app.command()
@with_options
def exits(
    model: Model = "mini-var",
    vector: Annotated[
        list[str] | None, typer.Option("--exits", help="Blocks of each stage: 6, or 12x5/6x5. Default: half the depth.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 8,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the table here as CSV.")] = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Time the transformer of a VAR at early exits, interleaved with full depth, beside block calls and GFLOPs."""
    import torch

    from varlab.accelerators import build
    from varlab.machine import device_name
    from varlab.outputs import save_json, save_table
    from varlab.runs.inputs import at_least
    from varlab.studies.exits.speed import exit_speed

    at_least(1, batch=batch, rounds=rounds, threads=threads)
    check_file(out, ".csv", overwrite, ".json")
    require_classes(model)
    check_readable(model, (), {}, methods=[build([f"freqexit:exits={text}"]) for text in vector or ()], **options)
    torch.set_num_threads(threads)
    loaded = load_model(model, **options)
    found = exit_speed(loaded, vector, batch, rounds)
    table = found.table
    console.print(as_table(table))
    say(
        f"{loaded.name}, {loaded.weights}, {loaded.precision}, {device_name(loaded.device)}, "
        f"{count(threads, 'thread')}; "
        "ratio to full depth of the transformer's time: median, 95 % bootstrap over rounds"
    )
    say_alone({"round": rounds})
    if out is not None:
        save_table(out, table)
        save_json(out.with_suffix(".json"), found.facts)
        say(f"written to {out}")


@app.command()
def ablate(
    model: Annotated[str, typer.Option(help="The VAR mini to fine-tune.")] = "mini-var",
    recipes: Annotated[
        str | None, typer.Option(help="FreqExit recipes with blanks between; default: all of them.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Training seeds with commas between.")] = "0",
    vectors: Annotated[str, typer.Option("--exits", help="Exit vectors judged, blanks between.")] = "6 12",
    steps: Annotated[int | None, typer.Option(help="Updates of each run instead of the recipe's.")] = None,
    pool: Annotated[int | None, typer.Option(help="Scenes learnt from instead of the recipe's.")] = None,
    learning_rate: LearningRate = None,
    n: Annotated[int, typer.Option(help="Images judged a run and exit.")] = 2000,
    workers: Annotated[int, typer.Option(help="Data-parallel processes, one thread each.")] = 2,
    device: Device = "cpu",
    folder: Annotated[Path, typer.Option(help="Runs and samples; the same folder resumes.")] = Path(
        "runs/train/freqexit"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("reports/freqexit_ablation"),
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune by every FreqExit recipe, judge all at the same exits. Ctrl-C keeps all; the same command goes on."""
    import pandas as pd

    from varlab.errors import VarlabError, quoted
    from varlab.machine import usable
    from varlab.runs.inputs import at_least, check_counts
    from varlab.studies.exits import ablation
    from varlab.training.freqexit.command import plan_of, show_freqexit
    from varlab.training.freqexit.recipes import BASES, freqexit_recipe
    from varlab.writing import check_writable

    at_least(1, steps=steps, pool=pool, workers=workers)
    check_counts(n=n)
    usable(device)
    check_writable(folder)
    check_writable(out)
    require_classes(model)
    chosen, judged = tuple(recipes.split()) if recipes else tuple(BASES), tuple(vectors.split())
    for recipe in chosen:
        freqexit_recipe(recipe)
    try:
        numbers = tuple(int(part) for part in seeds.split(","))
    except ValueError:
        raise VarlabError(f"--seeds takes whole numbers with commas between, not {quoted(seeds)}.") from None
    asked = ablation.Ablation(plan_of(model, chosen[0], 0, steps, pool, learning_rate), chosen, numbers, judged, n)
    with resumable():
        if not ablation.ablate(asked, folder, out, workers, device, show_freqexit, say, overwrite):
            return say(f"stopped; the state is in {folder}; the same command goes on")
    table = pd.read_csv(out / "ablation.csv", dtype={"exits": str})
    for vector in judged:
        say(ablation.summary(table, vector))
    say(f"table: {out / 'ablation.csv'}")
