"""Commands of the benchmarks: ``generate``, ``validate``, ``adapter``, ``score``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from varlab.cli.options import (
    NONE,
    Dense,
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
from varlab.errors import VarlabError, quoted
from varlab.markup import count as plural

app = typer.Typer()

Bench = Annotated[
    str, typer.Argument(help="geneval, dpg, hps, imagereward, fid, mjhq, or varlab's own: scenes, frechet.")
]
PromptFile = Annotated[
    Path | None, typer.Option(help="Your prompt file, where a licence forbids to ship the benchmark's own.")
]


@app.command()
@with_options
def generate(
    benchmark: Bench,
    model: Model,
    specs: Annotated[list[str], typer.Argument(help="e.g. none sparsevar:tau=0.6; a+b run together.")],
    out: Annotated[Path, typer.Option(help="Folder; each spec gets one in it. The same command goes on.")],
    prompts: PromptFile = None,
    n: Annotated[int | None, typer.Option(help="The first n prompts alone; scores then say so.")] = None,
    per_prompt: Annotated[
        int | None, typer.Option(help="Images a prompt; default: as many as the benchmark asks for.")
    ] = None,
    seed: Seed = 0,
    image: Annotated[
        str | None, typer.Option("--format", help="png, or jpg at quality 95; default: what the official reader takes.")
    ] = None,
    rewritten: Annotated[
        Path | None, typer.Option(help="JSON object, original -> rewritten prompt: what is drawn instead.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images at a time.")] = None,
    settings: Sampling = NONE,
    dense: Dense = None,
    no_wait: NoWait = False,
    **options: Any,
) -> None:
    """Draw what a benchmark asks for, in its official layout: OUT/SPEC/images.

    Example: `varlab generate scenes nano-infinity none truncate:last=1 --out drawn --n 12`
    """
    from varlab.comparison.bench import methods_of
    from varlab.evaluation.generation import Drawing, folder_of, read_rewritten
    from varlab.evaluation.generation import generate as draw
    from varlab.evaluation.judging import find_benchmark
    from varlab.runs.dense import DenseImages
    from varlab.runs.inputs import at_least, check_counts, with_overrides

    found = find_benchmark(benchmark)
    found.check_prompts(prompts)
    check_counts(n=n, per_prompt=per_prompt)
    found.check_count(per_prompt)
    at_least(1, batch=batch)
    at_least(0, seed=seed)
    methods = [methods_of(spec) for spec in specs]
    ending = found.ending if image is None else f".{image.lstrip('.')}"
    if ending not in found.endings:
        raise VarlabError(f"{found.title} is stored as {' or '.join(found.endings)}, not as {image}.")
    texts = read_rewritten(rewritten)
    require_known(model)
    items = [] if benchmark in ("fid", "frechet") else found.first(n, prompts)  # else of the model's own classes
    if not items:
        require_classes(model, named=benchmark == "frechet")
    drawn = [texts.get(item.text, item.text) for item in items]
    check_readable(model, drawn, settings, methods=methods, **options)
    loaded = load_model(model, **options)
    chosen = with_overrides(loaded.settings, **settings)
    items = items or found.first(n, prompts, loaded)
    per_prompt, kept = per_prompt or found.per_prompt, DenseImages.at(dense)
    check_counts(images=len(items) * per_prompt)
    drawings = {
        folder_of(out, spec): Drawing(found, loaded, items, spec, seed, per_prompt, ending, texts, chosen, batch, kept)
        for spec in dict.fromkeys(specs)
    }
    with resumable(), image_bar() as progress:
        made = draw(drawings, progress, not no_wait)
    for folder, count in made.items():
        say(
            f"{folder}: {plural(count, 'picture')} drawn, {plural(len(items), 'prompt')}; {loaded.weights}, seed {seed}"
        )


@app.command()
def validate(
    benchmark: Bench,
    folder: Annotated[Path, typer.Argument(help="The images, or a folder of varlab generate.")],
    prompts: PromptFile = None,
) -> None:
    """Find what is wrong with a folder of images before it is scored. The exit code is 1 when something is."""
    from varlab.evaluation.judging import find_faults, who_mends

    lines, count = find_faults(benchmark, folder, prompts)
    for line in lines:
        say(line)
    say(f"{plural(len(lines), 'fault')}; {count} pictures are expected")
    for line in who_mends(benchmark, folder) if lines else ():
        say(line)
    if lines:
        raise typer.Exit(1)


@app.command()
def adapter(
    benchmark: Bench,
    out: Annotated[Path | None, typer.Option(help="Write it to this file in place of printing it.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Print the script that runs a benchmark's own networks where they are installed; it needs no varlab.

    Example: `varlab adapter geneval > geneval_detect.py`
    """
    from varlab.evaluation.adapters import script_of
    from varlab.evaluation.judging import find_benchmark
    from varlab.writing import write_text

    text = script_of(find_benchmark(benchmark))
    if out is None:
        typer.echo(text, nl=False)
        return
    check_file(out, ".py", overwrite)
    write_text(out, text)
    say(f"written to {out}")


@app.command()
@with_options
def score(
    benchmark: Bench,
    what: Annotated[
        str,
        typer.Argument(help="A folder of images; of scenes, frechet and fid also a model, whose samples are drawn."),
    ],
    prompts: PromptFile = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder: what the adapter wrote; default: its file in a folder of generate.")
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="Folder, fid and mjhq: npz of real images; may be repeated.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Folder: official, with the faults of the official scorer, or corrected.")
    ] = "official",
    network: Annotated[
        str | None, typer.Option(help="Folder: options of the adapter's script where it runs here: '--antialias no'.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Folder: score what is there; the table says what is not.")
    ] = False,
    n: Annotated[
        int | None,
        typer.Option(help="Model: prompts of scenes (553, the whole set), images of frechet and fid (2000)."),
    ] = None,
    per_prompt: Annotated[int | None, typer.Option(help="Model, scenes: images a prompt (4).")] = None,
    scene_version: Annotated[
        str | None, typer.Option(help="Of scenes, 1 (flat) or 2 (textured): for pictures that do not say which.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Model: image i depends on (seed, i) alone (0).")] = None,
    method: Method = None,
    json: Annotated[Path | None, typer.Option(help="Write the table and the score of every image here.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Model, scenes: what --json wrote of other weights; adds the paired lead.")
    ] = None,
    settings: Sampling = NONE,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Score a folder of images by a benchmark, or draw and score a model's samples; with 95 % intervals.

    What lies in the working directory as a folder is one, unless it has a model's name: then write `./NAME`.

    Example: `varlab score frechet mini-var-freqexit --method freqexit:exits=6`
    """
    from varlab.evaluation.judging import find_benchmark, judge, save_scores

    found = find_benchmark(benchmark)
    own = (prompts, results, reference, network, allow_missing or None, mode if mode != "official" else None)
    models = (n, per_prompt, seed, method, against, settings or None, options.get("init"))
    check_file(json, ".json", overwrite)
    if scene_version is not None and found.name != "scenes":
        raise VarlabError(f"--scene-version is of the scene benchmark; {found.name} has none. Leave it out.")
    if not _is_model(what):
        if any(value is not None for value in models):
            raise VarlabError(f"{what} is a folder of images: options of models and methods belong to varlab generate.")
        place, words = Path(what), shlex.split(network or "")
        scores = judge(found.name, place, prompts, results, reference or (), mode, allow_missing, words, scene_version)
        _show(scores)
        if json is not None:
            say(f"written to {save_scores(json, found.name, place, scores, mode=mode)}")
        return
    if any(value is not None for value in own):
        raise VarlabError(
            f"{what} is a model: --prompts, --results, --reference, --mode, --network and --allow-missing are of "
            f"folders. If it is a folder, write ./{what}."
        )
    _check_scenes(what, scene_version)
    per_prompt, seed = 4 if per_prompt is None else per_prompt, seed or 0
    _score_model(found.name, what, n, per_prompt, seed, tuple(method or ()), json, against, settings, options)


def _check_scenes(model: str, asked: str | None) -> None:
    """Refuse to judge a model's samples as scenes that it does not draw."""
    from varlab.runs.origins import scene_version
    from varlab.weights.registry import find
    from varlab.weights.zoo import scenes_known

    if asked is not None:
        scene_version({"model": model, "weights": "", "scene_version": scenes_known(find(model))}, asked)


def _is_model(what: str) -> bool:
    """Whether a text names a model, or else a place. Raises VarlabError for what is neither."""
    from varlab.weights.registry import find

    if "/" in what:
        return False
    try:
        find(what)
    except VarlabError as error:
        if Path(what).exists():
            return False
        raise VarlabError(f"{error} There is no folder {quoted(what)} either.") from None
    return True


def _show(scores: Any) -> None:
    same = [name for name in ("mode", "spec", "weights", "seed") if scores.table[name].nunique() == 1]
    console.print(as_table(scores.table.drop(columns=same)))
    facts = "; ".join(f"{name}: {scores.table[name].iloc[0]}" for name in same)
    say(f"{facts}; 95 % intervals over prompts with all their images, where there are any")
    for note in scores.notes:
        say((note, "yellow"))


def _score_model(
    benchmark: str, model: str, n: int | None, per_prompt: int, seed: int, methods: tuple[str, ...], json: Path | None,
    against: Path | None, settings: dict[str, Any], options: dict[str, Any],
) -> None:  # fmt: skip
    from varlab.accelerators import build
    from varlab.evaluation.command import BENCHMARKS, former_score, score_command
    from varlab.evaluation.distances import check_enough
    from varlab.evaluation.judging import find_benchmark
    from varlab.runs.inputs import at_least, check_counts
    from varlab.scenes.prompt_sets import prompts

    if benchmark not in BENCHMARKS:
        raise VarlabError(
            f"{benchmark} is scored from a folder of images: draw one with varlab generate {benchmark} {model}. "
            f"Straight from a model: {', '.join(BENCHMARKS)}."
        )
    check_counts(n=n, per_prompt=per_prompt)
    at_least(0, seed=seed)
    if n is not None and benchmark == "frechet":
        check_enough(n)
    if benchmark == "scenes":
        check_counts(images=len(find_benchmark(benchmark).first(n, None)) * (per_prompt or 1))
    built = build(methods)
    if against is not None:
        former_score(against)
    texts = prompts(benchmark, n=1) if benchmark == "scenes" else ()
    check_readable(model, texts, settings, methods=[built], **options)
    if benchmark != "scenes":
        require_classes(model, named=True)
    loaded = load_set(model, settings, options)
    with resumable(), image_bar() as progress:
        frame, note = score_command(benchmark, loaded, n, per_prompt, seed, json, progress, methods, against)
    console.print(as_table(frame))
    say(f"weights: {loaded.weights}; seed {seed}; {note}")
    if benchmark == "scenes":
        say_alone({"prompt entry of a category": int(frame.prompts.min())})
