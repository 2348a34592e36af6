"""A legend under its axes, where it covers nothing: right below the name of the x axis at every size of the letters."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import ScaledTranslation

from varlab.figures.style import THEME, figure_of

BELOW = "below"  # the mark of such a legend


def legend_below(ax: Axes, columns: int = 3, **options: Any) -> None:
    """The legend under the name of the x axis, where it covers no line."""
    legend = ax.legend(ncols=columns, fontsize=6, columnspacing=1.2, borderaxespad=0.3, **options)
    put_below(legend, ax)


def put_below(legend: Legend, ax: Axes) -> None:
    """A legend of the axes that stands elsewhere."""
    legend.set_gid(BELOW)
    legend.set_loc("upper center")
    _lower(legend, ax, 3 * (THEME["xtick.labelsize"] + THEME["axes.labelsize"]) / 72)  # about, until it is laid out


def hanging(figure: Figure) -> bool:
    """Whether a legend reaches below its axes."""
    legends = [(ax, ax.get_legend()) for ax in figure.axes]
    return any(legend is not None and legend.get_window_extent().y0 < ax.bbox.y0 - 1 for ax, legend in legends)


def settle_legends(figure: Figure) -> None:
    """Puts each ``legend_below`` right under the name of its axis, once a layout has given its axes their place."""
    for ax in figure.axes:
        legend = ax.get_legend()
        if legend is not None and legend.get_gid() == BELOW:
            ax.xaxis.get_tightbbox()  # has it move its name
            _lower(legend, ax, (ax.bbox.y0 - ax.xaxis.label.get_window_extent().y0) / figure.dpi)


def _lower(legend: Legend, ax: Axes, inches: float) -> None:
    """Its upper edge so far below the axes, however high these are."""
    shift = ScaledTranslation(0, -inches, figure_of(ax).dpi_scale_trans)
    legend.set_bbox_to_anchor((0.5, 0), transform=ax.transAxes + shift)
