"""Frequencies: which of them each stage adds, and when each band of the picture is done.

Sources: ``residual`` (a stage's prediction on its own grid), ``contribution`` (what it adds to the canvas, on the
final grid), ``canvas``, ``preview`` (the picture decoded after the stage), ``preview change`` (against the
preview one stage earlier; for stage 1 against mid-grey).
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from varlab.analysis.logs import Log, as_log, dataset
from varlab.analysis.spectra import (
    PROBE,
    SOURCES,
    band_labels,
    explained_share_table,
    high_frequency_share_table,
    logged,
    residual_spectrum_table,
    spectral_centroid_table,
    threshold,
    wavelet_share_table,
)
from varlab.figures.legends import legend_below
from varlab.figures.style import (
    COLOURS,
    MARKERS,
    SOFT,
    decades,
    finish,
    halo,
    line,
    note_below,
    own_axes,
    reference,
    stage_axis,
    stage_bar,
    stage_colours,
    theme,
)

LEAST_EXPLAINED = -1.0  # lowest share drawn: all below 0 is worse than nothing


@theme()
def residual_spectrum(
    log: Log, source: str = "preview change", ax: Axes | None = None, stages: Sequence[int] | None = None
) -> Axes:
    """Which frequencies does each stage add? Radial power against cycles per image, one line per stage.

    A tick on the frequency axis in a stage's colour is the Nyquist limit of its grid. Previews go on beyond it,
    as a thin line: a decoder turns one latent cell into many pixels. Early stages are drawn over late ones, and those
    of one frequency as points beside each other.
    """
    table = residual_spectrum_table(log, source)
    table = table[(table["cycles_per_image"] > 0) & (table["mean"] > 0)]
    count = int(as_log(log)[PROBE].sizes["stage"])
    shown = list(stages or range(1, count + 1))
    ax = own_axes(ax)
    lone = 0  # stages of one frequency are points at the same place: each is set a little further to the left
    for k in reversed(shown):
        rows, colour = table[table["stage"] == k], stage_colours(count)[k - 1]
        if len(rows) == 1:
            lone += 1
            rows = rows.assign(cycles_per_image=rows["cycles_per_image"] * 2.0 ** (-0.09 * lone))
        _stage_spectrum(ax, rows, colour)
    _logarithmic(ax)
    ax.set(
        xlabel="frequency (cycles per image)\nticks: Nyquist limit of each stage's grid",
        ylabel="power",
        title=f"Frequencies of the {source}",
    )
    limits = dataset(log, PROBE).attrs["nyquist"]
    for k in shown:
        ax.plot([float(limits[k - 1])], [0], marker=2, ms=7, mew=1.6, color=stage_colours(count)[k - 1], clip_on=False,
                transform=ax.get_xaxis_transform(), zorder=5)  # fmt: skip
    stage_bar(ax, shown, count)
    if lone > 1:
        note_below(ax, "lone points: all at the same frequency")
    return finish(ax, log, f"residual_spectrum of {source}", table)


def _stage_spectrum(ax: Axes, rows: pd.DataFrame, colour: object) -> None:
    """Bold up to the stage's own Nyquist limit, thin beyond."""
    inside = rows[rows["cycles_per_image"] <= rows["nyquist"]]
    marked = [0, len(inside) - 1] if len(inside) else []
    line(ax, inside, "cycles_per_image", "", colour, markevery=marked, path_effects=halo(2.6), lw=1.2, ms=3.2)
    beyond = rows[rows["cycles_per_image"] >= rows["nyquist"].clip(lower=1).map(np.floor)]
    if len(beyond) > 1:
        ax.plot(beyond["cycles_per_image"], beyond["mean"], color=colour, lw=0.9, zorder=2)
        ax.fill_between(beyond["cycles_per_image"], beyond["low"], beyond["high"], color=colour, alpha=0.08, lw=0)


def _logarithmic(ax: Axes) -> None:
    """Octaves on x, whole decades on y."""
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(mpl.ticker.LogLocator(2, numticks=16))
    ax.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = np.log10(ax.get_ylim())
    if np.ceil(low) >= np.floor(high):
        ax.set_ylim(10.0 ** np.floor(low), 10.0 ** np.ceil(high))
    decades(ax.yaxis)


@theme()
def high_frequency_share(log: Log, sources: Sequence[str] = SOURCES, ax: Axes | None = None) -> Axes:
    """How much of the power is high-frequency? Above a quarter of the Nyquist limit of the map, by stage.

    A latent and a picture have different limits, which the legend states; compare stages, not sources.
    """
    sources = logged(log, sources)
    table = high_frequency_share_table(log, sources)
    return share_lines(log, table, {source: threshold(log, source) for source in sources}, ax)


def share_lines(log: Log, table: pd.DataFrame, above: Mapping[str, str], ax: Axes | None) -> Axes:
    """The table of ``high_frequency_share``; ``above``: from which frequency on, by source; of the log its schedule."""
    labels = {source: f"{source}, above {limit} cycles per image" for source, limit in above.items()}
    ax = _lines(log, table, labels, "share of power", "Share of power in high frequencies", ax)
    legend_below(ax, columns=1)
    return finish(ax, log, "high_frequency_share", table)


@theme()
def wavelet_share(log: Log, sources: Sequence[str] = SOURCES, ax: Axes | None = None) -> Axes:
    """How much of the energy is detail, by a Haar wavelet instead of Fourier's rings?"""
    sources = logged(log, sources)
    table = wavelet_share_table(log, sources)
    ax = _lines(log, table, {s: s for s in sources}, "share of energy", "Wavelet detail share", ax)
    return finish(ax, log, "wavelet_share", table)


@theme()
def spectral_centroid(log: Log, sources: Sequence[str] = SOURCES, ax: Axes | None = None) -> Axes:
    """Where is the centre of the power, in cycles per image?"""
    sources = logged(log, sources)
    table = spectral_centroid_table(log, sources)
    ax = _lines(log, table, {s: s for s in sources}, "cycles per image", "Spectral centroid", ax)
    return finish(ax, log, "spectral_centroid", table)


def _lines(log: Log, table: pd.DataFrame, labels: dict[str, str], unit: str, title: str, ax: Axes | None) -> Axes:
    ax = own_axes(ax, 3.9, 2.7)
    for (source, label), marker in zip(labels.items(), MARKERS, strict=False):
        line(ax, table[table["source"] == source], "stage", label, COLOURS[source], marker)
    stage_axis(ax, log, sorted(table["stage"].unique()))
    ax.set(ylim=(0, None), ylabel=unit, title=title)
    legend_below(ax)
    return ax


@theme()
def explained_share(log: Log, ax: Axes | None = None) -> Axes:
    """When is each frequency band of the picture done? 1: as in the final preview; 0: no better than nothing."""
    table = explained_share_table(log)
    bands = band_labels(log)
    ax = own_axes(ax, 4.2, 2.7)
    colours = mpl.colormaps["cividis"](np.linspace(0, 0.8, len(bands)))
    for band, colour, marker in zip(bands, colours, MARKERS, strict=False):
        line(ax, table[table["band"] == band], "stage", band, colour, marker)
    stage_axis(ax, log, sorted(table["stage"].unique()))
    ax.axhline(0, color=SOFT, lw=0.8, zorder=1)
    reference(ax, 1, "")
    if ax.get_ylim()[0] < LEAST_EXPLAINED:
        ax.set_ylim(bottom=LEAST_EXPLAINED)
        note_below(ax, "lower values are cut off")
    ax.set(ylim=(None, 1.06), ylabel="explained share of the band")
    ax.set_title("How much of each band is there after each stage")
    ax.legend(title="cycles per image", loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(ax, log, "explained_share", table)
