"""All figures of folders again, from what they stored: no model, no sampling, the same bytes each time."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.errors import VarlabError, unknown
from varlab.figures.counterparts import IN_REPORTS, MIRRORS, WITHOUT
from varlab.figures.save import laid_out
from varlab.figures.sizes import STYLES, enlarge, resize
from varlab.figures.sources import Drawing, drawings, sources
from varlab.figures.style import figure_of, kept, panels, theme
from varlab.figures.text import bare_fonts
from varlab.outputs import refuse_existing, save_json
from varlab.writing import beside

COLUMN, PAGE = 3.25, 6.75  # inches: one and two columns of CVPR, ICCV and ICML
FORMATS = ("pdf", "png", "svg")
MANIFEST = "figures.json"
FIXED: Any = {"svg.hashsalt": "varlab", "svg.fonttype": "path", "pdf.fonttype": 42}


def redraw(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    style: str = "paper",
    formats: Sequence[str] = FORMATS,
    columns: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Draw every figure that folders hold; returns the files, the manifest ``figures.json`` last.

    Parameters
    ----------
    folders
        Run folders, folders of ``varlab compare --out``, reports (their comparison, the tables that they kept and the
        figure of each claim), and folders of ``varlab evidence`` (ablations).
    style
        ``paper``; ``talk`` and ``poster`` are larger, with letters larger still.
    formats
        Of ``pdf`` (fonts embedded as Type 42), ``png`` and ``svg`` (letters as outlines). No file holds a date: equal
        logs and versions give equal bytes.
    columns
        1 or 2: the width of figures of one panel, 3.25 or 6.75 inches. Maps and pictures always take both columns.

    Raises
    ------
    VarlabError
        For an unknown style, format or folder and for files that are there, before anything is drawn.
    """
    asked: Any = (("style", [style], STYLES), ("format", formats, FORMATS), ("columns", [columns], (1, 2)))
    for name, given, known in asked:
        for item in given:
            if item not in known:
                raise unknown(name, str(item), [str(one) for one in known])
    place, found = Path(out), [source for folder in folders for source in sources(Path(folder))]
    plans = [(folder, drawing, draw) for folder in found for drawing, draw in drawings(folder)]
    stems = _stems([folder for folder, _, _ in plans], [drawing.name for _, drawing, _ in plans])
    refuse_existing(
        place / MANIFEST, *(place / f"{stem}.{end}" for stem in stems for end in formats), overwrite=overwrite
    )
    made, records = [], []
    for stem, (folder, drawing, draw) in zip(stems, plans, strict=True):
        figure = _drawn(drawing, draw, style, columns)
        with theme(), laid_out(figure):
            made += [_written(figure, place / f"{stem}.{end}") for end in formats]
        records.append(_record(stem, folder, drawing, figure))
        plt.close(figure)
    record = {"style": style, "columns": columns, "figures": records, "in reports": IN_REPORTS, "without": WITHOUT}
    return [*made, save_json(place / MANIFEST, record)]


def _stems(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """File names: the figure's, after the folder's where there are several."""
    own = [folder.parent.name if folder.name == "comparison" else folder.name for folder in folders]
    stems = [f"{one}-{name}" if len(set(own)) > 1 else name for one, name in zip(own, names, strict=True)]
    if len(set(stems)) < len(stems):
        raise VarlabError(f"Two of the folders have one name, {max(own, key=own.count)}: draw them into two folders.")
    return stems


def _drawn(drawing: Drawing, draw: Callable[..., Axes | Figure], style: str, columns: int) -> Figure:
    """The figure at the width of the page, its letters and lines as the style has them."""
    if drawing.axes:
        width = COLUMN if columns == 1 else PAGE
        figure = figure_of(draw(ax=panels(1, 1, width, 2.4 if columns == 1 else 2.9)[0]))
    else:
        figure = figure_of(draw())
        enlarge(figure, min(1.0, PAGE / figure.get_figwidth()))
    resize(figure, style, drawing.full)
    return figure


def _written(figure: Figure, path: Path) -> Path:
    about: Any = {
        ".pdf": {"Title": path.stem, "Keywords": kept(figure).line, "CreationDate": None, "Creator": "varlab"},
        ".png": {"Title": path.stem, "Description": kept(figure).line, "Software": "varlab"},
        ".svg": {"Title": path.stem, "Description": kept(figure).line, "Date": None, "Creator": "varlab"},
    }[path.suffix]
    with theme(), bare_fonts(), mpl.rc_context(FIXED), beside(path) as part:
        figure.savefig(part, metadata=about)
    return path


def _record(stem: str, folder: Path, drawing: Drawing, figure: Figure) -> dict[str, Any]:
    """What the manifest says of a figure: its question, its data, and what of the papers it stands beside."""
    function = drawing.draw
    while isinstance(function, partial):
        function = function.func
    return {
        "figure": stem,
        "question": (function.__doc__ or "").partition("\n")[0],
        "of": folder.name if folder.name != "comparison" else folder.parent.name,
        "data": next((facts for facts, _ in kept(figure).tables.values()), {}),
        "mirrors": MIRRORS.get(drawing.name.partition("-")[0]) or "none: no paper of the four shows this",
    }
