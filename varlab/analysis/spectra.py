"""Tables of frequencies: which of them each stage adds, and when each band of the picture is done.

Sources: ``residual`` (a stage's prediction on its own grid), ``contribution`` (what it adds to the canvas, on the
final grid), ``canvas``, ``preview`` (the picture decoded after the stage), ``preview change`` (against the
preview one stage earlier; for stage 1 against mid-grey).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from varlab.analysis.logs import Log, dataset, grids, names, pick, summaries, summary, variable
from varlab.errors import VarlabError

PROBE = "residual-spectrum"
SOURCES = ("contribution", "preview change")
Q = 0.125  # cycles per sample: the default of varlab.measures.spectra.high_frequency_share


def residual_spectrum_table(log: Log, source: str = "preview change") -> pd.DataFrame:
    """Mean power of each ring: stage, cycles_per_image, nyquist (the stage's grid), mean, low, high, n.

    Rings beyond the Nyquist limit of the map are left out, and for latent sources those beyond the limit of
    the stage's own grid: interpolation cannot put anything there that the stage knows.
    """
    data = dataset(log, PROBE)
    power = pick(variable(log, PROBE, "power"), source=source)
    nyquist = dict(zip(data["stage"].values.tolist(), map(float, data.attrs["nyquist"]), strict=True))
    table = summary(power).rename(columns={"radius": "cycles_per_image"})
    table["nyquist"] = table["stage"].map(nyquist)
    limit = table["nyquist"]
    if source.startswith("preview"):
        limit = pd.Series(_preview_side(log) / 2, index=table.index)
    elif source == "canvas":
        limit = table["nyquist"].cummax()
    kept = table[(table["cycles_per_image"] <= limit) & (table["n"] > 0)]
    return kept[["stage", "cycles_per_image", "nyquist", "mean", "low", "high", "n"]].reset_index(drop=True)


def high_frequency_share_table(log: Log, sources: Sequence[str] = SOURCES) -> pd.DataFrame:
    """Power above .125 cycles per sample over all power but DC: stage, source, mean, low, high, n."""
    return _by_source(log, "high_frequency_share", sources)


def wavelet_share_table(log: Log, sources: Sequence[str] = SOURCES) -> pd.DataFrame:
    """Energy in the detail bands LH, HL, HH of one Haar step over all energy: stage, source, mean, low, high, n."""
    return _by_source(log, "detail_share", sources)


def spectral_centroid_table(log: Log, sources: Sequence[str] = SOURCES) -> pd.DataFrame:
    """Mean frequency weighted by power, in cycles per image: stage, source, mean, low, high, n."""
    return _by_source(log, "centroid", sources)


def explained_share_table(log: Log) -> pd.DataFrame:
    """1 - |missing|^2 / |final|^2 per band of the preview: stage, band, mean, low, high, n.

    Band edges are given in cycles per image; the last band is the corners of the frequency plane.
    """
    bands = band_labels(log)
    values = variable(log, PROBE, "explained_share")
    shown = dict(zip(names(values, "frequency_band"), bands, strict=True))
    table = summary(values)
    table["frequency_band"] = table["frequency_band"].map(shown)
    return table.rename(columns={"frequency_band": "band"})


def band_labels(log: Log) -> list[str]:
    """``0 to 4``, ..., ``above 32`` cycles per image."""
    side = _preview_side(log)
    bounds = [float(edge) * side for edge in dataset(log, PROBE).attrs["band_edges"]]
    return [f"above {low:g}" if np.isinf(high) else f"{low:g} to {high:g}" for low, high in pairwise(bounds)]


def _by_source(log: Log, name: str, sources: Sequence[str]) -> pd.DataFrame:
    values = variable(log, PROBE, name)
    return summaries("source", {source: pick(values, source=source) for source in sources})


def threshold(log: Log, source: str) -> str:
    """The frequency above which power counts as high, where the maps of a source are of one size."""
    if source == "residual":
        return f"{Q:g} per token"
    final = max(grids(log)[-1]) if grids(log) else int(2 * dataset(log, PROBE).attrs["nyquist"][-1])
    side = _preview_side(log) if source.startswith("preview") else final
    return f"{Q * side:g}"


def logged(log: Log, sources: Sequence[str]) -> list[str]:
    """The sources without those of previews where the probe kept none; one that is asked for alone is an error."""
    kept = [source for source in sources if _has_previews(log) or not source.startswith("preview")]
    if not kept:
        _preview_side(log)
    return kept


def _has_previews(log: Log) -> bool:
    return bool(dataset(log, PROBE).attrs["preview_pixels"])


def _preview_side(log: Log) -> int:
    """Pixels on the longer side of the previews. Raises VarlabError where the probe kept none."""
    if not _has_previews(log):
        raise VarlabError(f"This log has no previews: log it with the probe {PROBE}, without preview=off.")
    return int(max(dataset(log, PROBE).attrs["preview_pixels"]))
