"""All figures of runs and comparisons again, from what was stored: no model, no sampling, the same bytes each time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.comparisons import SavedComparison
from varlab.analysis.decisions import pruning_method
from varlab.analysis.logs import Log, as_log
from varlab.analysis.tokens import poster_blocks
from varlab.errors import VarlabError, unknown
from varlab.figures.branches import branch_divergence, guidance_effect, prediction_divergence
from varlab.figures.counterparts import IN_REPORTS, MIRRORS, WITHOUT
from varlab.figures.decisions import decisions, keep_maps
from varlab.figures.maps import energy_maps, token_maps
from varlab.figures.redundancy import saturation, step_redundancy
from varlab.figures.save import laid_out
from varlab.figures.sidebyside import difference_spectrum, side_by_side
from varlab.figures.sizes import STYLES, enlarge, resize
from varlab.figures.spectra import explained_share, high_frequency_share, residual_spectrum
from varlab.figures.spread import concentration
from varlab.figures.stages import sensitive_prompts, stage_pictures
from varlab.figures.style import figure_of, kept, panels, theme
from varlab.figures.text import bare_fonts
from varlab.figures.tokens import block_edge_correlation, block_token_mse, step_change, sublayer_split
from varlab.figures.tradeoff import tradeoff
from varlab.outputs import refuse_existing, save_json
from varlab.writing import beside

COLUMN, PAGE = 3.25, 6.75  # inches: one and two columns of CVPR, ICCV and ICML
FORMATS = ("pdf", "png", "svg")
MANIFEST = "figures.json"
FIXED: Any = {"svg.hashsalt": "varlab", "svg.fonttype": "path", "pdf.fonttype": 42}


def poster_maps(log: Log) -> Figure:
    """Which tokens do the blocks change that stand at the depth of the poster's two?"""
    return token_maps(log, blocks=poster_blocks(log))


@dataclass(frozen=True)
class Drawing:
    """A figure by name: what draws it, what of its source it needs, whether it fills axes of a given width."""

    name: str
    draw: Callable[..., Axes | Figure]
    needs: str = ""
    axes: bool = True


Plan = tuple[Drawing, Callable[..., Axes | Figure]]  # a figure, and what draws it of its source

OF_LOGS = (
    Drawing("residual_spectrum", residual_spectrum, "residual-spectrum"),
    Drawing("high_frequency_share", high_frequency_share, "residual-spectrum"),
    Drawing("explained_share", explained_share, "residual-spectrum"),
    Drawing("energy_on_edges", concentration, "residual-spectrum"),
    Drawing("energy_maps", energy_maps, "residual-spectrum", axes=False),
    Drawing("block_token_mse", block_token_mse, "token-mse"),
    Drawing("step_change", step_change, "token-mse"),
    Drawing("sublayer_split", sublayer_split, "token-mse"),
    Drawing("block_edge_correlation", block_edge_correlation, "token-mse"),
    Drawing("token_maps", token_maps, "token-mse", axes=False),
    Drawing("token_maps_poster", poster_maps, "token-mse", axes=False),
    Drawing("branch_divergence", branch_divergence, "branch-divergence"),
    Drawing("prediction_divergence", prediction_divergence, "branch-divergence"),
    Drawing("guidance_effect", guidance_effect, "branch-divergence"),
    Drawing("step_redundancy", step_redundancy, "step-redundancy", axes=False),
    Drawing("saturation", saturation, "step-redundancy"),
    Drawing("decisions", decisions, "skipvar", axes=False),
)
OF_COMPARISONS = (
    Drawing("tradeoff_work", partial(tradeoff, against="work_ratio")),
    Drawing("tradeoff_speed", tradeoff),
    Drawing("difference_spectrum", difference_spectrum),
    Drawing("side_by_side", side_by_side, axes=False),
    Drawing("difference", partial(side_by_side, difference=True), axes=False),
    Drawing("sensitive_prompts", sensitive_prompts, axes=False),
    Drawing("stage_pictures", stage_pictures, "stages", axes=False),
)


def redraw(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    style: str = "paper",
    formats: Sequence[str] = FORMATS,
    columns: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Draw every figure that runs and comparisons hold; returns the files, the manifest ``figures.json`` last.

    Parameters
    ----------
    folders
        Run folders, folders of ``varlab compare --out``, or reports that kept a comparison.
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
    place, sources = Path(out), [source for folder in folders for source in _sources(Path(folder))]
    plans = [(folder, drawing, draw) for folder in sources for drawing, draw in _drawings(folder)]
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


def _sources(folder: Path) -> list[Path]:
    """The folder itself, or the comparison that a report kept."""
    if any((folder / name).exists() for name in ("run.json", "comparison.json", "log.zarr")):
        return [folder]
    if (folder / "comparison" / "comparison.json").is_file():
        return [folder / "comparison"]
    raise VarlabError(f"{folder} holds neither a run nor a comparison: give the --out of varlab log or compare.")


def _drawings(folder: Path) -> list[Plan]:
    """What can be drawn of a folder, each with its source bound."""
    if not (folder / "comparison.json").is_file():
        log = as_log(folder)
        return [(one, partial(one.draw, log)) for one in OF_LOGS if one.needs in log.children]
    compared = SavedComparison(folder)
    found: list[Plan] = [
        (one, partial(one.draw, folder if "tradeoff" in one.name else compared))
        for one in OF_COMPARISONS
        if not one.needs or getattr(compared, one.needs)
    ]
    for row, name in enumerate(compared.names):
        place = folder / "decisions" / f"{row:02d}"
        if place.is_dir():
            found += _decided(as_log(place), name, row, compared)
    return found


def _decided(log: Log, name: str, row: int, compared: SavedComparison) -> list[Plan]:
    """Maps of the tokens that a method computed, or what it decided of each image."""
    found: list[Plan] = []
    try:
        pruning_method(log)
        draw = partial(keep_maps, log, compared.images[name], compared.images["none"])
        found.append((Drawing(f"keep_maps-{row:02d}", draw, axes=False), draw))
    except VarlabError:
        pass  # a method that leaves out no tokens
    if "skipvar" in as_log(log).children:
        draw = partial(decisions, log)
        found.append((Drawing(f"decisions-{row:02d}", draw, axes=False), draw))
    return found


def _stems(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """File names: the figure's, after the folder's where there are several."""
    if len(set(folders)) < 2:
        return list(names)
    own = [folder.parent.name if folder.name == "comparison" else folder.name for folder in folders]
    stems = [f"{one}-{name}" for one, name in zip(own, names, strict=True)]
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
    resize(figure, style)
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
