"""One figure as three files: PDF for print, PNG for the page, CSV with the numbers drawn."""

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.figures.fonts import bare_fonts
from varlab.figures.layout import laid_out, lay_out
from varlab.figures.style import PACKED, figure_of, kept, theme
from varlab.outputs import read_facts, refuse_existing, save_table
from varlab.reports.facts import FOLDER_VARIABLE
from varlab.writing import beside

FIRST = ("model", "weights", "precision", "device", "prompt_set", "seed", "cfg")


def save(
    drawn: Axes | Figure,
    name: str,
    table: pd.DataFrame | None = None,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``name.pdf``, ``name.png`` and ``name.csv`` into the folder.

    The folder is that of the running report unless given; in a notebook opened by hand, where neither is
    known, nothing is written. The CSV holds the table the figure was drawn from unless another is given,
    after columns that say on which model and weights. No file holds a date, so equal data gives equal files.
    Raises VarlabError where the folder holds a figure of that name and of another origin, unless ``overwrite``.
    """
    place = folder or os.environ.get(FOLDER_VARIABLE)
    if not place:
        return
    figure, stem = figure_of(drawn), Path(place) / name
    note = kept(figure)
    files = [stem.with_suffix(suffix) for suffix in (".pdf", ".png", ".csv")]
    if not overwrite and not (files[1].is_file() and read_facts(files[1]).get("Description", "") == note.line):
        refuse_existing(*files)
    text = {"Title": name, "Keywords": note.line}
    with theme():
        lay_out(figure)
    with theme(), bare_fonts(), laid_out(figure), beside(files[0]) as pdf, beside(files[1]) as png:
        figure.savefig(pdf, metadata={**text, "CreationDate": None, "Creator": "varlab"})
        about = {"Title": name, "Description": note.line, "Software": "varlab"}
        figure.savefig(png, metadata=about, pil_kwargs=PACKED)
    sheet = merged(note.tables) if table is None else labelled(table, *(facts for facts, _ in note.tables.values()))
    save_table(files[2], sheet, digits="%.6g")
    if folder is None and "ipykernel" in sys.modules:
        _show(files[1], figure)


def _show(png: Path, figure: Figure) -> None:
    """In a report the file stands on the page, and the figure is not drawn a third time."""
    from IPython.display import Image, display

    plt.close(figure)
    display(Image(png.read_bytes(), width=round(figure.get_figwidth() * figure.dpi)))  # type: ignore[no-untyped-call]


def merged(tables: dict[str, tuple[dict[str, str], pd.DataFrame]]) -> pd.DataFrame:
    """The tables of a figure's panels one after another, with the panel's name first where there are several."""
    parts = [labelled(table, facts) for facts, table in tables.values()]
    if len(parts) > 1:
        for panel, part in zip(tables, parts, strict=True):
            part.insert(0, "panel", panel)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def labelled(table: pd.DataFrame, *facts: dict[str, str]) -> pd.DataFrame:
    """The table after columns of provenance, so that tables of several runs can be put together."""
    columns = {key: facts[0][key] for key in FIRST if key not in table} if facts else {}
    return pd.concat([pd.DataFrame(columns, index=table.index), table], axis=1)
