"""Commands on what was stored: ``figures`` draws it for print, ``view`` shows its pictures in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from varlab.cli.options import Overwrite, say
from varlab.errors import VarlabError

app = typer.Typer()


@app.command()
def figures(
    folders: Annotated[list[Path], typer.Argument(help="Runs, comparisons, reports, studies of varlab evidence.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures and figures.json, which says what each shows.")],
    style: Annotated[str, typer.Option(help="paper, talk or poster.")] = "paper",
    format: Annotated[str, typer.Option(help="Of pdf, png and svg, with commas between.")] = "pdf,png,svg",
    columns: Annotated[int, typer.Option(help="Width of figures of one panel: 1 or 2 columns of a page.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes, of four folders and more. 0: one a core.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw all figures of folders from what they stored; the same bytes each time, no model needed.

    Of runs and comparisons all, of a report those of its comparison and claims, of a study its ablations. What else
    lies among them, as in reports/*, is passed over and named; a folder that is not varlab's is refused.

    Example: `varlab figures runs/mine --style paper --format pdf --out paper/figures`
    """
    from varlab.figures.processes import cores
    from varlab.figures.redraw import redraw
    from varlab.writing import check_writable

    check_writable(out)
    formats = [item.strip() for item in format.split(",") if item.strip()]
    if not formats:
        raise VarlabError("--format names none of pdf, png, svg.")
    made = redraw(
        folders, out, style=style, formats=formats, columns=columns, overwrite=overwrite, workers=workers or cores()
    )
    say(f"{len(made) - 1} files, and {made[-1]}, which says what each shows")


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="Folder of varlab compare --out or of varlab log.")],
    title: Annotated[str, typer.Option(help="Heading of the page. Default: the model's name.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Write viewer.html beside the pictures of a comparison or a run: slider, blink, difference, maps, stages; offline.

    Example: `varlab view runs/mine`
    """
    from varlab.reports import write_viewer

    say(f"open {write_viewer(folder, title=title, overwrite=overwrite)}")
