"""Commands on what is there already: ``compare-images``, ``compare-saved`` and ``settings diff``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from varlab.cli.options import Overwrite, as_table, check_folder, console, image_bar, say
from varlab.errors import VarlabError, quoted

app = typer.Typer()
settings = typer.Typer(no_args_is_help=True, help="Settings of runs: in what they differ.")

Despite = Annotated[
    list[str] | None, typer.Option(help="A field in which the two may differ, e.g. weights; may be repeated.")
]
MarginText = Annotated[
    list[str] | None,
    typer.Option("--margin", help="Differences within it count as none: a number, or MEASURE=NUMBER; may be repeated."),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Compare the images that all have, and say how many are left out.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the tables and how they were made.")]


@app.command("compare-images")
def compare_images(
    dense: Annotated[Path, typer.Argument(help="The pictures of the dense run, in any of the official layouts.")],
    others: Annotated[list[Path], typer.Argument(help="Those of methods, a folder each, of the same prompts.")],
    latency: Annotated[
        Path | None, typer.Option(help="CSV with the columns method (the folder), seconds, and perhaps turn or image.")
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            help="FOLDER=FILE: what varlab score --json wrote of a folder, the dense one too; may be repeated."
        ),
    ] = None,
    grid: Annotated[
        int | None, typer.Option(help="Side of a sample in pixels, where a file holds several (DPG-Bench).")
    ] = None,
    margin: MarginText = None,
    lpips: Annotated[Path | None, typer.Option(help="Folder with LPIPS's weights; default: $VARLAB_LPIPS.")] = None,
    dists: Annotated[Path | None, typer.Option(help="Folder with DISTS' weights; default: $VARLAB_DISTS.")] = None,
    despite: Despite = None,
    allow_missing: AllowMissing = False,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare folders of pictures that any code made with those of its dense run: fidelity, spectra, pairs.

    Example: `varlab compare-images outputs/dense outputs/fastvar outputs/skipvar --out tables`
    """
    from varlab.comparison import compare_images as run
    from varlab.comparison.image_result import FILES

    check_folder(out, overwrite, *FILES)
    margins, named = read_margin(margin), _read_named(scores)
    with image_bar() as progress:
        found = run(
            dense, others, latency=latency, scores=named, lpips=lpips, dists=dists, grid=grid, margin=margins,
            allow_missing=allow_missing, despite=despite or (), progress=progress,
        )  # fmt: skip
    for table in found.shown():
        console.print(as_table(table))
    say(found.legend())
    if found.paired is not None:
        show_pairs(found.paired)
    for note in found.facts["notes"]:
        say((note, "yellow"))
    if out is not None:
        say(f"written to {found.save(out, overwrite)}")


@app.command("compare-saved")
def compare_saved(
    a: Annotated[Path, typer.Argument(help="A folder of compare or compare-images, or a file of scores.")],
    b: Annotated[Path, typer.Argument(help="Another of the same prompts and seeds; the same one: two methods of it.")],
    first: Annotated[str | None, typer.Option(help="The method of the first; default: each that both hold.")] = None,
    second: Annotated[str | None, typer.Option(help="The method of the second.")] = None,
    measure: Annotated[
        list[str] | None, typer.Option(help="A column of scores, e.g. ssim; may be repeated. Default: all of both.")
    ] = None,
    margin: MarginText = None,
    wanted: Annotated[
        float | None, typer.Option(help="The difference whose number of prompts is asked for; default: the margin.")
    ] = None,
    shared_seeds: Annotated[
        bool,
        typer.Option("--shared-seeds", help="Image k of every prompt had the same noise, as in the official scripts."),
    ] = False,
    despite: Despite = None,
    allow_missing: AllowMissing = False,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Pair two saved comparisons or scores image by image: differences, flips, tests, equivalence, power.

    Example: `varlab compare-saved runs/a runs/b --margin 0.01`
    """
    from varlab.comparison import compare_saved as run

    check_folder(out, overwrite, "paired.csv", "facts.json")
    found = run(
        a, b, first=first, second=second, measures=measure or (), margin=read_margin(margin), wanted=wanted,
        seeds="shared" if shared_seeds else "own", despite=despite or (), allow_missing=allow_missing,
    )  # fmt: skip
    show_pairs(found)
    for note in found.notes:
        say((note, "yellow"))
    if out is not None:
        say(f"written to {found.save(out, overwrite)}")


def _read_named(given: list[str] | None) -> dict[str, Path]:
    """FOLDER=FILE; either may hold a "=", so the first cut that leaves a file is taken."""
    found = {}
    for text in given or ():
        cuts = [i for i, letter in enumerate(text) if letter == "="]
        cut = next((i for i in cuts if Path(text[i + 1 :]).is_file()), None)
        if cut is None:
            raise VarlabError(f"--scores takes FOLDER=FILE with a file that is there, not {quoted(text)}.")
        found[text[:cut]] = Path(text[cut + 1 :])
    return found


def show_pairs(found: Any) -> None:
    """Differences and tests of each pair of methods, with what the columns mean."""
    for title, *tables in found.shown():
        say((title, "bold"))
        for table in tables:
            console.print(as_table(table))
    say(found.legend())


def read_margin(given: list[str] | None) -> float | dict[str, float] | None:
    """One margin for all measures, or one for each of some."""
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    try:
        values = {name: float(number) for name, _, number in pairs}
    except ValueError:
        raise VarlabError(f"--margin takes a number or MEASURE=NUMBER, not {quoted(' '.join(given))}.") from None
    if "" in values and len(given) > 1:
        raise VarlabError("--margin takes one number for all measures, or MEASURE=NUMBER for each.")
    return values.get("", values)


@settings.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A run, comparison, score, picture or weights of varlab.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """Name every field in which two runs differ, with both values; dates aside."""
    from varlab.comparison.likeness import settings_diff

    found = settings_diff(a, b)
    if found.empty:
        say("They differ in nothing but their dates.")
    else:
        console.print(as_table(found))
