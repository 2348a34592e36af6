"""The command line: thin, every command one call into the package."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    DownloadColumn,
    MofNCompleteColumn,
)
from rich.text import Text as Line

from varlab.cli_bench import app as bench_app
from varlab.cli_options import (
    Accelerate,
    Cfg,
    Device,
    Model,
    Negative,
    Precision,
    Seed,
    Stopped,
    Tau,
    _bars,
    _images,
    _known,
    _load,
    _loading,
    _numbers,
    _resumable,
    _say,
    _table,
    console,
)
from varlab.errors import VarlabError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Analysis workbench for next-scale visual autoregressive image models (Infinity, HART and VAR).",
)


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


@app.command()
def models() -> None:
    """List the models: size, stages, and whether their weights are here."""
    from varlab.models.checkpoints import checkpoint_folder
    from varlab.models.registry import describe

    form = "{:<20}{:>10}{:>8}{:>8}  {}"
    _say((form.format("name", "parameters", "stages", "tokens", "weights"), "bold"))
    for row in describe().itertuples(index=False):
        known = row.weights != "damaged"
        numbers = (_size(row.parameters), row.stages, row.tokens) if known else ("", "", "")
        _say(form.format(row.name, *numbers, row.weights))
        if row.weights == "not here":
            needs = f"needs {row.expected.replace(f'{checkpoint_folder()}/', '')}"
            console.print(Padding(Line(needs, style="dim"), (0, 0, 0, 2)))
        console.print(Padding(Line(row.description, style="dim"), (0, 0, 0, 2)))
    _say(f"Official files are looked for in {checkpoint_folder()}; --init random runs without them.")


@app.command()
@_loading
def sample(
    model: Model,
    prompt: Annotated[
        list[str], typer.Argument(help='What to draw, e.g. "a red star above a blue ring"; for VAR a class number.')
    ],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("samples"),
    seed: Seed = 0,
    cfg: Cfg = None,
    tau: Tau = None,
    negative: Negative = None,
    accelerate: Accelerate = None,
    **options: Any,
) -> None:
    """Draw prompts and print the work ledger.

    Example: `varlab sample nano-infinity "a red star above a blue ring" --seed 3`
    """
    from varlab.accelerators import build
    from varlab.api import sample as draw
    from varlab.runs import at_least, check_prompts, check_writable

    check_prompts(prompt)  # mistakes are told before a model is loaded
    at_least(0, seed=seed)
    build(accelerate or ())
    settings: dict[str, Any] = {"cfg": _numbers("cfg", cfg), "tau": _numbers("tau", tau)}
    _known(model)
    check_writable(out)
    loaded = _load(model, **options)
    result = draw(loaded, prompt, seed=seed, accelerators=accelerate or (), negative=negative, **settings)
    out.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(result.images):
        path = out / f"{loaded.name}-seed{seed}-{i:04d}.png"
        image.save(path)
        _say(str(path), (f"  {prompt[i]}", "dim"))
    work = result.ledger
    _say(f"weights: {loaded.weights}")
    engaged = "yes" if work.engaged else "no"
    _say(f"transformer: {work.transformer_flops / 1e9:.3g} GFLOP in all; accelerator engaged: {engaged}")


@app.command()
@_loading
def log(
    model: Model,
    prompts: Annotated[
        str, typer.Option(help="A prompt set (scenes, scenes-counting, ...) or a .txt file.")
    ] = "scenes",
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
    cfg: Cfg = None,
    tau: Tau = None,
    negative: Negative = None,
    accelerate: Accelerate = None,
    **options: Any,
) -> None:
    """Run prompts with probes and store images and log in a run folder.

    Ctrl-C keeps what is done; the same command goes on. Open it with `varlab.open_log(folder)`.
    """
    from varlab.accelerators import build as build_accelerators
    from varlab.api import log as run_log
    from varlab.api import prompts as prompt_set
    from varlab.probes import PROBES, build
    from varlab.runs import at_least, check_writable, runs_folder

    build(probe or ())  # mistakes are told before a model is loaded
    build_accelerators(accelerate or ())
    at_least(0, seed=seed)
    at_least(1, batch=batch)
    chosen = prompt_set(prompts, n=n)[: n or 48]
    settings: dict[str, Any] = {"cfg": _numbers("cfg", cfg), "tau": _numbers("tau", tau)}
    _known(model)
    check_writable(out or runs_folder())
    loaded = _load(model, **options)
    with _resumable(), _images() as progress:
        tree = run_log(
            loaded,
            chosen,
            seed=seed,
            folder=out,
            probes=probe or tuple(PROBES),
            accelerators=accelerate or (),
            negative=negative,
            batch=batch,
            progress=progress,
            **settings,
        )
    _say(f"{tree.attrs['n']} prompts, weights: {tree.attrs['weights']}, groups: {', '.join(tree.children)}")


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
        str | None, typer.Option(help="Added to the reports' names, so that those of two models stand side by side.")
    ] = None,
) -> None:
    """Execute notebooks into reports: notebook, offline HTML, figures as PDF, PNG and CSV, and an index.

    Example: `varlab report 01_residual_spectra -p model=nano-infinity -p n=16`
    """
    from varlab.api import absent_models, check_inputs
    from varlab.reports import check_parameters, find_notebook, list_notebooks, notebook_parameters, run_report
    from varlab.runs import check_writable

    given = dict(_pair(item) for item in parameter or ())
    notebooks = [find_notebook(item) for item in name] if name else list(list_notebooks().values())
    if not name:
        absent = [path for path in notebooks if absent_models(notebook_parameters(path), given)]
        notebooks = [path for path in notebooks if path not in absent]
        for path in absent:
            models = ", ".join(absent_models(notebook_parameters(path), given))
            _say(f"{path.stem} is left out: {models} is not here (varlab train makes it)")
    inputs = []
    for notebook in notebooks:  # all are checked before the first one runs
        declared = notebook_parameters(notebook)
        defaults = {name: parameter.default for name, parameter in declared.items()}
        inputs.append(check_inputs(defaults, check_parameters(declared, given)))
    check_writable(out)
    with _resumable():
        for notebook, values in zip(notebooks, inputs, strict=True):
            _say(f"{notebook.stem} ...")
            made = run_report(notebook, values, out, name=f"{notebook.stem}-{suffix}" if suffix else None)
            _say(f"  {made.html}")
    _say(f"index: {out / 'index.html'}")


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise VarlabError(f"{item!r} is not NAME=VALUE. Write, for example, -p n=16.")
    return name, value


@app.command()
def parity(
    files: Annotated[
        list[Path], typer.Argument(help="Golden files (.npz) made by the official code, e.g. tests/goldens/*.npz.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Print every array, not only the worst of each kind.")] = False,
) -> None:
    """Compare the models with golden files, array by array. The exit code is 1 when one fails."""
    from varlab.parity import check, load

    reports = []
    for golden in [load(path) for path in files]:  # all are read before the first one runs
        reports.append(check(golden))
        _say(reports[-1].render(every))
    passed = sum(item.verdict for item in reports)
    _say(f"{passed} of {len(reports)} files pass")
    if passed < len(reports):
        raise typer.Exit(1)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="What to train: a mini from nothing, e.g. mini-var, or freqexit.")],
    folder: Annotated[Path | None, typer.Option(help="Checkpoints; the same folder resumes.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Data-parallel processes, one thread each. Default: the recipe's.")
    ] = None,
    device: Device = "cpu",
    init_from: Annotated[
        Path | None, typer.Option(help="Start from the weights of a shipped mini: data/nano-infinity.")
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
) -> None:
    """Train a mini from nothing, or fine-tune one for early exits (`freqexit`).

    From nothing: scenes, tokenizer, transformer. Ctrl-C keeps the state; the same command goes on.
    """
    from varlab.runs import at_least
    from varlab.training.command import train_command
    from varlab.training.freqexit.command import NAME, freqexit_command, plan_of

    at_least(1, steps=steps, pool=pool, workers=workers)
    at_least(0, seed=seed)
    with _resumable():
        if name == NAME:
            plan = plan_of(model, recipe, seed, steps, pool)
            _say(freqexit_command(plan, folder, workers or 2, device, out))
            return
        _say(train_command(name, folder, workers, device, init_from, steps, pool, out, compiled))


@app.command()
@_loading
def score(
    benchmark: Annotated[
        str,
        typer.Argument(help="scenes; of class-conditional minis frechet (scattering features), or fid with a library."),
    ],
    model: Model,
    n: Annotated[
        int | None, typer.Option(help="scenes: prompts (553, the whole set); frechet and fid: images (2000).")
    ] = None,
    per_prompt: Annotated[int, typer.Option(help="scenes: images a prompt.")] = 4,
    seed: Seed = 0,
    accelerate: Accelerate = None,
    json: Annotated[Path | None, typer.Option(help="Write the summary here.")] = None,
    **options: Any,
) -> None:
    """Score a model's samples, with 95 % intervals: the scene benchmark, or a distance to held-out scenes.

    Example: `varlab score frechet mini-var-freqexit --accelerate freqexit:exits=6`
    """
    from varlab.accelerators import build
    from varlab.errors import unknown
    from varlab.evaluation.command import BENCHMARKS, score_command
    from varlab.runs import at_least, check_writable

    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    at_least(1, n=n, per_prompt=per_prompt)
    at_least(0, seed=seed)
    build(accelerate or ())
    _known(model)
    if json is not None:
        check_writable(json.parent)
    loaded = _load(model, **options)
    with _images() as progress:
        frame, note = score_command(benchmark, loaded, n, per_prompt, seed, json, progress, tuple(accelerate or ()))
    console.print(_table(frame))
    _say(f"weights: {loaded.weights}; seed {seed}; {note}")


@app.command()
@_loading
def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="The .npz to write; an interrupted export goes on.")],
    n: Annotated[int, typer.Option(help="Images, classes in turn.")] = 50_000,
    seed: Seed = 0,
    accelerate: Accelerate = None,
    **options: Any,
) -> None:
    """Write samples of a class-conditional model as the npz that OpenAI's ADM evaluator reads."""
    from varlab.accelerators import build
    from varlab.evaluation.command import export_command
    from varlab.runs import at_least, check_writable

    at_least(1, n=n)
    at_least(0, seed=seed)
    build(accelerate or ())
    _known(model)
    check_writable(out.parent)
    loaded = _load(model, **options)
    with _resumable(), _images() as progress:
        text = export_command(loaded, out, n, seed, tuple(accelerate or ()), progress)
    _say(text)


@app.command()
@_loading
def exits(
    model: Model = "mini-var",
    vector: Annotated[
        list[str] | None, typer.Option("--exits", help="Blocks of each stage: 6, or 12x5/6x5. Default: half the depth.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 8,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the table here as CSV.")] = None,
    **options: Any,
) -> None:
    """Time the transformer of a VAR at early exits, interleaved with full depth, beside block calls and GFLOPs."""
    import torch

    from varlab.exits.speed import exit_speed
    from varlab.runs import at_least, check_writable, device_name

    at_least(1, batch=batch, rounds=rounds, threads=threads)
    _known(model)
    if out is not None:
        check_writable(out.parent)
    torch.set_num_threads(threads)
    loaded = _load(model, **options)
    table = exit_speed(loaded, vector, batch, rounds).table
    console.print(_table(table))
    _say(
        f"{loaded.name}, {loaded.weights}, {loaded.precision}, {device_name(loaded.device)}, {threads} threads; "
        "ratio to full depth of the transformer's time: median, 95 % bootstrap over rounds"
    )
    if out is not None:
        table.to_csv(out, index=False)


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
    n: Annotated[int, typer.Option(help="Images judged a run and exit.")] = 2000,
    workers: Annotated[int, typer.Option(help="Data-parallel processes, one thread each.")] = 2,
    device: Device = "cpu",
    folder: Annotated[Path, typer.Option(help="Runs and samples; the same folder resumes.")] = Path(
        "runs/train/freqexit"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("reports/freqexit_ablation"),
) -> None:
    """Fine-tune by every FreqExit recipe, judge all at the same exits. Ctrl-C keeps all; the same command goes on."""
    from varlab.exits.command import ablate_command
    from varlab.runs import at_least, check_writable

    at_least(1, steps=steps, pool=pool, n=n, workers=workers)
    _known(model)
    check_writable(out)
    with _resumable():
        _say(ablate_command(model, recipes, seeds, vectors, steps, pool, n, workers, device, folder, out, _say))


@app.command()
def card(model: Model) -> None:
    """Write the card of a shipped mini from its own records: scores, ceiling, curves, contact sheet."""
    from varlab.evaluation.card import write_card
    from varlab.evaluation.class_card import write_class_card

    loaded = _load(model)
    write = write_class_card if loaded.family == "var" else write_card
    with _images() as progress:
        path = write(loaded, progress)
    _say(str(path))


@app.command()
@_loading
def compare(
    model: Model,
    specs: Annotated[list[str], typer.Argument(help="e.g. none sparsevar:tau=0.6 truncate:last=1; a+b run together.")],
    prompts: Annotated[str, typer.Option(help="A prompt set or a .txt file.")] = "scenes",
    n: Annotated[int, typer.Option(help="Prompts; a scene score is shown from 100 on.")] = 32,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(help="Images at a time in the latency.")] = 4,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has it.")] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="Folder with AlexNet and LPIPS weights; default: $VARLAB_LPIPS, else no LPIPS.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables, JSON and the trade-off figure.")] = None,
    cfg: Cfg = None,
    tau: Tau = None,
    **options: Any,
) -> None:
    """Compare accelerators and controls with the dense run: latency, work, fidelity, interleaved in one run."""
    import torch

    from varlab.api import compare as run
    from varlab.api import prompts as prompt_set
    from varlab.comparison import methods_of
    from varlab.figures import save, tradeoff
    from varlab.perceptual import load_lpips
    from varlab.runs import check_writable

    load_lpips(lpips)
    for spec in specs:
        methods_of(spec)  # mistakes are told before a model is loaded
    _known(model)
    chosen = prompt_set(prompts, n=n)
    if out is not None:
        check_writable(out)
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = _load(model, **options)
    settings: dict[str, Any] = {"cfg": _numbers("cfg", cfg), "tau": _numbers("tau", tau)}
    with _images() as progress:
        result = run(loaded, chosen, specs, n=n, seed=seed, batch=batch, lpips=lpips, progress=progress, **settings)
    for half in (result.speed(), result.fidelity()):
        console.print(_table(half))
    facts = result.facts
    _say(
        f"{facts['model']}, {facts['weights']}, {facts['precision']}, {facts['device']}, {facts['threads']} threads, "
        f"batch {batch}, n {n}, seed {seed}; ms: median and quartiles; [low, high]: 95 % bootstrap over prompts "
        "(speed-up: over batches)"
    )
    if out is not None:
        result.save(out)
        save(tradeoff(result), "tradeoff", folder=out)
        _say(f"written to {out}")


@app.command()
def savings(
    spec: Annotated[str, typer.Argument(help="The method.")] = "sparsevar:keep=0.25,last=3",
    repeats: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    pixels: Annotated[str, typer.Option(help="Schedule: 0.06M, 0.25M, 0.60M, 1M.")] = "1M",
    depth: Annotated[int, typer.Option(help="Blocks of the random model.")] = 8,
    width: Annotated[int, typer.Option(help="Its channels, a multiple of 64.")] = 512,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables.")] = None,
) -> None:
    """Time how much of the work that a method saves becomes time, on a mid-size model of random weights."""
    import torch

    from varlab.benchmarks.pruning import mid_size
    from varlab.benchmarks.pruning import savings as measure
    from varlab.comparison import methods_of
    from varlab.runs import at_least, check_writable, device_name

    at_least(1, repeats=repeats, depth=depth, width=width, batch=batch, threads=threads)
    methods_of(spec)
    if out is not None:
        check_writable(out)
    if threads is not None:
        torch.set_num_threads(threads)
    model = mid_size(pixels, depth, width)
    with _bars(MofNCompleteColumn(), "rounds") as move:
        found = measure(model, spec, repeats, batch, lambda done, total: move("rounds", done, total))
    console.print(_table(found.table))
    _say(
        f"{spec} on {model.name}, {model.weights}, schedule {pixels}, {model.precision}, {device_name(model.device)}, "
        f"{torch.get_num_threads()} threads, batch {batch}; medians of rounds and 95 % intervals; overhead and saving "
        "over the dense transformer span"
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in (("savings", found.table), ("rounds", found.rounds), ("stages", found.stages.reset_index())):
            table.to_csv(out / f"{name}.csv", index=False)


@app.command()
@_loading
def split(
    model: Model,
    prompts: Annotated[str, typer.Option(help="A prompt set or a .txt file.")] = "scenes",
    n: Annotated[int | None, typer.Option(help="Prompts; default: 100, or all of a shorter file.")] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for sensitive.txt, robust.txt and features.csv.")] = Path("split"),
    **options: Any,
) -> None:
    """Split a prompt set by SkipVAR's features: what late stages still change much, and what they do not.

    The two files are prompt sets themselves: `varlab compare MODEL SPEC --prompts split/sensitive.txt`.
    """
    from varlab.api import prompts as prompt_set
    from varlab.calibration.command import split_command
    from varlab.runs import at_least, check_writable

    at_least(0, seed=seed)
    _known(model)
    chosen = prompt_set(prompts, n=n)[: n or 100]
    check_writable(out)
    loaded = _load(model, **options)
    with _images() as progress:
        text = split_command(loaded, chosen.texts, seed, out, progress)
    _say(text)


@app.command()
@_loading
def calibrate(
    method: Annotated[str, typer.Argument(help="sparsevar (which open reading fits) or skipvar (decision models).")],
    model: Model,
    prompts: Annotated[str, typer.Option(help="A prompt set or a .txt file.")] = "scenes",
    n: Annotated[int | None, typer.Option(help="Prompts: 50 for sparsevar, 300 to fit skipvar.")] = None,
    held_out: Annotated[int, typer.Option(help="skipvar: further prompts that judge the fit.")] = 100,
    targets: Annotated[
        str, typer.Option(help="skipvar: SSIM to the dense image to keep; a decision model for each.")
    ] = "0.84,0.86,0.88",
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables (and skipvar.json); default: print only.")
    ] = None,
    **options: Any,
) -> None:
    """Settle what a method leaves open, on the model at hand."""
    from varlab.calibration.command import METHODS, calibrate_command
    from varlab.errors import unknown
    from varlab.runs import check_writable

    if method not in METHODS:
        raise unknown("method to calibrate", method, METHODS)
    found = _numbers("targets", targets)
    aims = found if isinstance(found, tuple) else (float(found or 0),)
    _known(model)
    if out is not None:
        check_writable(out)
    loaded = _load(model, **options)
    with _images() as progress:
        tables, text = calibrate_command(method, loaded, prompts, n, held_out, seed, out, progress, aims)
    for table in tables:
        console.print(_table(table))
    _say(text)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="An official file, shard folder or Hugging Face id.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    name: Annotated[str, typer.Option(help="The model that it belongs to, e.g. infinity-2b.")],
    precision: Precision = None,
) -> None:
    """Turn official weights into safetensors once; they then load faster and without pickle."""
    from varlab.models.convert import convert as convert_file

    with _bars(DownloadColumn(), "read", "write") as report:
        made = convert_file(source, target, name, precision=precision or "bf16", report=report)
    _say(str(made))


app.add_typer(bench_app)


def main() -> None:
    """Entry point: mistakes become one line and exit code 2, Ctrl-C one line and 130, never a traceback."""
    try:
        app()
    except VarlabError as error:
        Console(stderr=True, soft_wrap=True).print(f"varlab: {error}", markup=False, highlight=False, style="red")
        sys.exit(2)
    except RuntimeError as error:  # the device itself: out of memory, or gone
        if "CUDA" not in str(error):
            raise
        line = str(error).splitlines()[0]
        advice = "Runs with a folder go on with the same command; if memory is short, take a smaller batch."
        Console(stderr=True, soft_wrap=True).print(
            f"varlab: the GPU failed ({line}). {advice}", markup=False, style="red"
        )
        sys.exit(2)
    except Stopped as stopped:
        Console(stderr=True).print(f"varlab: {stopped}")
        sys.exit(130)
    except SystemExit as end:  # what typer makes of Ctrl-C anywhere else
        if end.code == 130:
            Console(stderr=True).print("varlab: stopped")
        raise
