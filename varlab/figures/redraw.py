"""All figures of folders again, from what they stored: no model, no sampling, the same bytes each time."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.errors import VarlabError, unknown
from varlab.figures.counterparts import IN_REPORTS, MIRRORS, WITHOUT
from varlab.figures.fonts import bare_fonts
from varlab.figures.given import sort_given
from varlab.figures.layout import laid_out
from varlab.figures.once import same_texts
from varlab.figures.processes import processes
from varlab.figures.sizes import STYLES, enlarge, resize
from varlab.figures.sources import Drawing, Plan, drawings
from varlab.figures.style import PACKED, figure_of, kept, panels, theme
from varlab.outputs import refuse_existing, save_json
from varlab.writing import beside

COLUMN, PAGE = 3.25, 6.75  # inches: one and two columns of CVPR, ICCV and ICML
TALLER = 1.5  # power of how much more letters grow than the figure: what they take from its height
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
    workers: int = 1,
) -> list[Path]:
    """Draw every figure that folders hold; returns the files, the manifest ``figures.json`` last.

    Parameters
    ----------
    folders
        Run folders, folders of ``varlab compare --out``, reports (their comparison, the tables that they kept and the
        figure of each claim), and folders of ``varlab evidence`` (ablations). Files, and folders of varlab with nothing
        of their own to draw, are passed over, which the manifest says.
    style
        ``paper``; ``talk`` and ``poster`` are larger, with letters larger still.
    formats
        Of ``pdf`` (fonts embedded as Type 42), ``png`` and ``svg`` (letters as outlines). No file holds a date: equal
        logs and versions give equal bytes.
    columns
        1 or 2: the width of figures of one panel, 3.25 or 6.75 inches. Maps and pictures always take both columns.
    workers
        Processes at most that draw a folder each, from four folders on; the same bytes. A script that asks for more
        than one has its calls under ``if __name__ == "__main__":``.

    Raises
    ------
    VarlabError
        For an unknown style or format, for a folder that is not ours, where nothing can be drawn, and for files that
        are in the way, before anything is drawn. For folders that could not be drawn, by name, after the others.
    """
    asked: Any = (("style", [style], STYLES), ("format", formats, FORMATS), ("columns", [columns], (1, 2)))
    for name, given, known in asked:
        for item in given:
            if item not in known:
                raise unknown(name, str(item), [str(one) for one in known])
    place, (found, passed) = Path(out), sort_given(folders)
    names_passed = [_name(folder) for folder in passed]
    if passed:
        warnings.warn(f"Passed over, with nothing of their own to draw: {', '.join(names_passed)}.", stacklevel=2)
    number = min(workers, len(found) // 2)  # a process waits seconds for its imports
    with processes(number, _ready, place) if number > 1 else nullcontext() as pool:
        plans = [drawings(folder) for folder in found]
        names = [(folder, drawing.name) for folder, some in zip(found, plans, strict=True) for drawing, _ in some]
        stems = iter(_stems([folder for folder, _ in names], [name for _, name in names]))
        tasks = [
            Task(folder, tuple(islice(stems, len(some))), place, style, tuple(formats), columns)
            for folder, some in zip(found, plans, strict=True)
        ]
        refuse_existing(place / MANIFEST, *(file for task in tasks for file in task.files()), overwrite=overwrite)
        each = pool.each(draw_source, tasks, _lost) if pool else [draw_source(task, plans.pop(0)) for task in tasks]
    records, failures = [record for some, _ in each for record in some], [text for _, text in each if text]
    record = {
        "style": style,
        "columns": columns,
        "figures": records,
        "passed over": names_passed,
        "in reports": IN_REPORTS,
        "without": WITHOUT,
    }
    save_json(place / MANIFEST, record)
    if failures:
        raise VarlabError("\n".join(failures))
    return [*(file for task in tasks for file in task.files()), place / MANIFEST]


@dataclass(frozen=True)
class Task:
    """The figures of one of the ``sources`` by the names of their files, and how they are drawn."""

    folder: Path
    stems: tuple[str, ...]
    place: Path
    style: str
    formats: tuple[str, ...]
    columns: int

    def __len__(self) -> int:
        return len(self.stems)

    def files(self) -> list[Path]:
        return [self.place / f"{stem}.{end}" for stem in self.stems for end in self.formats]


Made = tuple[list[dict[str, Any]], str]  # records for the manifest, and what went wrong after them


def draw_source(task: Task, plans: Sequence[Plan] = ()) -> Made:
    """All files of a folder, in this process or another; where a figure cannot be drawn, those before it."""
    records: list[dict[str, Any]] = []
    try:
        for stem, (drawing, draw) in zip(task.stems, plans or drawings(task.folder), strict=True):
            with theme(), same_texts(), _closed():
                figure = _drawn(drawing, draw, task.style, task.columns)
                with laid_out(figure):
                    for end in task.formats:
                        _write(figure, task.place / f"{stem}.{end}")
            records.append(_record(stem, task.folder, drawing, figure))
    except Exception as error:  # the other folders are drawn all the same
        what = str(error) if isinstance(error, VarlabError) else repr(error)
        return records, f"{task.folder} could not be drawn from {task.stems[len(records)]} on: {what}"
    return records, ""


@contextmanager
def _closed() -> Iterator[None]:
    """Leaves no figure open that was begun inside, one that could not be drawn included."""
    before = plt.get_fignums()
    try:
        yield
    finally:
        for number in set(plt.get_fignums()).difference(before):
            plt.close(number)


def _lost(task: Task) -> Made:
    return [], (
        f"{task.folder} may be drawn in part: a process was ended, perhaps for want of memory; take --workers 1 "
        "--overwrite."
    )


def _ready() -> None:
    """Has a process import what opens logs, beside what draws, while its first folder is sought."""
    for name in ("varlab.runs.folders", "zarr", "dask.array", "matplotlib.backends.backend_pdf"):
        import_module(name)


def _stems(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """File names: the figure's, after the folder's where there are several."""
    own = [_name(folder) for folder in folders]
    stems = [f"{one}-{name}" if len(set(own)) > 1 else name for one, name in zip(own, names, strict=True)]
    if len(set(stems)) < len(stems):
        raise VarlabError(f"Two of the folders have one name, {max(own, key=own.count)}: draw them into two folders.")
    return stems


def _name(folder: Path) -> str:
    """Its own, also where it is given as ``.``; of what a report kept the report's."""
    whole = Path(os.path.abspath(folder))
    return whole.parent.name if whole.name == "comparison" else whole.name


def _drawn(drawing: Drawing, draw: Callable[..., Axes | Figure], style: str, columns: int) -> Figure:
    """The figure at the width of the page, its letters and lines as the style has them."""
    if drawing.axes:
        size, letters = STYLES[style]
        width, height = (COLUMN, 2.4) if columns == 1 else (PAGE, 2.9)
        figure = figure_of(draw(ax=panels(1, 1, width, height * (letters / size) ** TALLER)[0]))
    else:
        figure = figure_of(draw())
        enlarge(figure, min(1.0, PAGE / figure.get_figwidth()))
    resize(figure, style, drawing.full)
    return figure


def _write(figure: Figure, path: Path) -> None:
    about: Any = {
        ".pdf": {"Title": path.stem, "Keywords": kept(figure).line, "CreationDate": None, "Creator": "varlab"},
        ".png": {"Title": path.stem, "Description": kept(figure).line, "Software": "varlab"},
        ".svg": {"Title": path.stem, "Description": kept(figure).line, "Date": None, "Creator": "varlab"},
    }[path.suffix]
    with bare_fonts(), mpl.rc_context(FIXED), beside(path) as part:
        packed: Any = {"pil_kwargs": PACKED} if path.suffix == ".png" else {}
        figure.savefig(part, metadata=about, **packed)


def _record(stem: str, folder: Path, drawing: Drawing, figure: Figure) -> dict[str, Any]:
    """What the manifest says of a figure: its question, its data, and what of the papers it stands beside."""
    function = drawing.draw
    while isinstance(function, partial):
        function = function.func
    return {
        "figure": stem,
        "question": (function.__doc__ or "").partition("\n")[0],
        "of": _name(folder),
        "data": next((facts for facts, _ in kept(figure).tables.values()), {}),
        "mirrors": MIRRORS.get(drawing.name.partition("-")[0]) or "none: no paper of the four shows this",
    }
