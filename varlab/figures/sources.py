"""What can be drawn again of a folder: of a run, a comparison, a report's claims, a study of settings."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataTree

from varlab.analysis.ablation_axes import axis_specs, blocks_table
from varlab.analysis.comparisons import SavedComparison, log_of
from varlab.analysis.logs import Log, as_log, groups, read_ahead
from varlab.analysis.measured import Measured, read_measured
from varlab.analysis.settings_table import read_settings_table
from varlab.analysis.tokens import poster_blocks
from varlab.claims.verdict import Verdict
from varlab.errors import VarlabError
from varlab.figures import exits
from varlab.figures.ablations import ablation, anchors, scoring_blocks
from varlab.figures.branches import branch_divergence, guidance_effect, prediction_divergence
from varlab.figures.calibration import block_edges, readings
from varlab.figures.decisions import decisions, keep_maps
from varlab.figures.forest import CLAIMS, forest
from varlab.figures.maps import energy_maps, token_maps
from varlab.figures.redundancy import saturation, step_redundancy
from varlab.figures.sidebyside import difference_spectrum, side_by_side
from varlab.figures.spectra import explained_share, high_frequency_share, residual_spectrum
from varlab.figures.spread import concentration
from varlab.figures.stages import sensitive_prompts, stage_pictures
from varlab.figures.tokens import block_edge_correlation, block_token_mse, step_change, sublayer_split
from varlab.figures.tradeoff import tradeoff
from varlab.figures.untrained import control_random_weights
from varlab.reports.facts import TABLES

KEPT = r"[^/]+/[^/]+/kept"  # of a method that says which tokens it computed in a stage
STUDIES = ("sparsevar", "exits")  # tables of settings with an ablation


def poster_maps(log: Log) -> Figure:
    """Which tokens do the blocks change that stand at the depth of the poster's two?"""
    return token_maps(log, blocks=poster_blocks(log))


def recipes(found: Measured) -> Figure:
    """What does each loss do at the exit that a report shows?"""
    return exits.ablation(found, str(found.table["exits"].iloc[0]))


def exit_cost(found: Measured) -> Figure:
    """Does time follow the calls of blocks or the operations?"""
    return exits.exit_cost([Measured(part, found.facts) for _, part in found.table.groupby("batch", sort=False)])


def calibration(found: Measured) -> Figure:
    """Which share of the scores lies below tau?"""
    return readings(found.table, found.facts["published"], log_of(found.facts))


def scores_on_edges(found: Measured, ax: Axes | None = None) -> Axes:
    """Which block's scores follow the edges of the final picture?"""
    return block_edges(found.table, log_of(found.facts), ax)


@dataclass(frozen=True)
class Drawing:
    """A figure by name: what draws it, what of its source it needs, whether it fills axes of a given width, and whether
    it is full of text."""

    name: str
    draw: Callable[..., Axes | Figure]
    needs: str = ""
    axes: bool = True
    full: bool = False


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
    Drawing("difference_spectrum", difference_spectrum, "images"),
    Drawing("side_by_side", side_by_side, "images", axes=False),
    Drawing("difference", partial(side_by_side, difference=True), "images", axes=False),
    Drawing("sensitive_prompts", sensitive_prompts, "images", axes=False),
    Drawing("stage_pictures", stage_pictures, "previews", axes=False),
)
OF_TABLES = (  # ``needs``: the table, as a report keeps it
    Drawing("detail_share", exits.detail_share, "detail_share"),
    Drawing("detail_loss", exits.detail_loss, "detail_loss", axes=False),
    *(
        Drawing(f"layers_{name}", partial(exits.lens, measure=name), "layers")
        for name in ("similarity", "agreement", "divergence", "error")
    ),
    Drawing("exit_distance", exits.exit_tradeoff, "exit_quality"),
    Drawing("exit_accuracy", partial(exits.exit_tradeoff, measure="class_accuracy"), "exit_quality"),
    Drawing("samples_by_exit", exits.samples_by_exit, "samples_by_exit", axes=False),
    Drawing("recipes", recipes, "recipes", axes=False),
    Drawing("exit_cost", exit_cost, "exit_cost", axes=False),
    Drawing("readings", calibration, "readings", axes=False),
    Drawing("block_edges", scores_on_edges, "block_edges"),
    Drawing("control_random_weights", control_random_weights, "control_random_weights", axes=False),
)


def sources(folder: Path) -> list[Path]:
    """The folder itself, and the comparison that a report kept."""
    kinds = ("run.json", "comparison.json", "log.zarr", CLAIMS, *(f"{study}.json" for study in STUDIES))
    found = [folder] if any((folder / name).exists() for name in kinds) else []
    if (folder / "comparison" / "comparison.json").is_file():
        found.append(folder / "comparison")
    if not found:
        raise VarlabError(
            f"{folder} holds neither a run nor a comparison, a report's claims or a study: give the --out of varlab "
            "log or compare, a folder of varlab report, or a model's folder of varlab evidence."
        )
    return found


def drawings(folder: Path) -> list[Plan]:
    """What can be drawn of one of the ``sources``, each with its source bound."""
    if (folder / "comparison.json").is_file():
        return _of_comparison(folder)
    if (folder / CLAIMS).is_file():
        return [*_of_tables(folder / TABLES), *_of_claims(folder / CLAIMS)]
    studies = [study for study in STUDIES if (folder / f"{study}.json").is_file()]
    if studies:
        return [plan for study in studies for plan in _of_study(folder, study)]
    held, log = groups(folder), _once_read(folder)
    return [(one, partial(_of_log, one.draw, log)) for one in OF_LOGS if one.needs in held]


def _once_read(folder: Path) -> Callable[[], DataTree]:
    """The log of a folder, which the first of its figures opens and reads."""
    return cache(lambda: read_ahead(as_log(folder)))


def _of_log(
    draw: Callable[..., Axes | Figure], log: Callable[[], DataTree], *given: Any, **options: Any
) -> Axes | Figure:
    return draw(log(), *given, **options)


def _kept(log: Callable[[], DataTree], compared: SavedComparison, name: str) -> Figure:
    """Its pictures are opened where they are drawn: files stay open as long as that takes."""
    return keep_maps(log(), compared.images[name], compared.images["none"])


def _of_tables(folder: Path) -> list[Plan]:
    """Figures of what a report measured."""
    kept = [one for one in OF_TABLES if (folder / f"{one.needs}.csv").is_file()]
    return [(one, partial(one.draw, read_measured(folder, one.needs))) for one in kept]


def _of_claims(path: Path) -> list[Plan]:
    """The figure of each claim, in its own width."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        log, found = log_of(stored["of"]), [Verdict.read(record) for record in stored["verdicts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise VarlabError(f"{path} is damaged ({error!r}). Make its report again: varlab report --fresh.") from error
    plans: list[Plan] = []
    for number, verdict in enumerate(found, 1):
        draw = partial(forest, verdict, log)
        plans.append((Drawing(f"claim-{number}", draw, axes=False, full=True), draw))
    return plans


def _of_study(folder: Path, study: str) -> list[Plan]:
    """An ablation for each axis that was drawn, and the two pairs of axes that were crossed."""
    table = read_settings_table(folder, study)
    found: dict[str, Callable[..., Any]] = {
        f"{study}_{axis.replace(' ', '_')}": partial(ablation, table, axis)
        for axis in table.facts["axes"]
        if axis != "row" and not table.works.index.intersection([*axis_specs(table, axis).values()]).empty
    }
    if study == "sparsevar":
        found["sparsevar_tau_alpha"] = partial(anchors, table)
        if len(blocks_table(table)):
            found["sparsevar_stages_blocks"] = partial(scoring_blocks, table)
    return [(Drawing(name, draw, axes=False), draw) for name, draw in found.items()]


def _of_comparison(folder: Path) -> list[Plan]:
    compared = SavedComparison(folder)
    found: list[Plan] = [
        (one, partial(one.draw, folder if "tradeoff" in one.name else compared))
        for one in OF_COMPARISONS
        if (folder / one.needs).is_dir()  # tables alone may be kept, as those that ship
    ]
    for row, name in enumerate(compared.names):
        place = folder / "decisions" / f"{row:02d}"
        if place.is_dir():
            found += _decided(place, name, row, compared)
    return found


def _decided(folder: Path, name: str, row: int, compared: SavedComparison) -> list[Plan]:
    """Maps of the tokens that a method computed, or what it decided of each image."""
    found: list[Plan] = []
    held, log = groups(folder), _once_read(folder)
    if any(re.fullmatch(KEPT, group) for group in held):
        maps = Drawing(f"keep_maps-{row:02d}", keep_maps, axes=False)
        found.append((maps, partial(_kept, log, compared, name)))
    if "skipvar" in held:
        decided = Drawing(f"decisions-{row:02d}", decisions, axes=False)
        found.append((decided, partial(_of_log, decisions, log)))
    return found
