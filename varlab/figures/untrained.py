"""The control of the spectra: the same measures on random weights, from a table that a report keeps."""

import pandas as pd
from matplotlib.figure import Figure

from varlab.analysis.comparisons import log_of
from varlab.analysis.logs import PROVENANCE, Log, as_log, prompt_count
from varlab.analysis.measured import Measured
from varlab.analysis.spectra import PROBE, SOURCES, high_frequency_share_table, logged, threshold
from varlab.figures.spectra import share_lines
from varlab.figures.spread import concentration_lines, concentration_table
from varlab.figures.style import figure_of, panels, retitle

ALSO = ("settings", "schedule", "preview", "preview_pixels")  # what else figures say of a log
SHARE, EDGES = "high_frequency_share", "concentration"


def control_table(log: Log) -> Measured:
    """What ``control_random_weights`` draws, of the log of ``vl.control``.

    Examples
    --------
    >>> vl.figures.control_table(vl.control(vl.log("nano-infinity", n=32), n=8))
    """
    tree, sources = as_log(log), logged(log, SOURCES)
    parts = {SHARE: high_frequency_share_table(log, sources), EDGES: concentration_table(log)}
    known = {**tree.attrs, **tree[PROBE].attrs}
    facts = {name: known[name] for name in (*PROVENANCE, *ALSO) if name in known}
    facts |= {"n": prompt_count(log), "above": {source: threshold(log, source) for source in sources}}
    return Measured(pd.concat([part.assign(measure=name) for name, part in parts.items()], ignore_index=True), facts)


def control_random_weights(found: Measured) -> Figure:
    """Do untrained weights put detail late and energy on edges too? What shows here was not learnt.

    Examples
    --------
    >>> untrained = vl.control(vl.log("nano-infinity", n=32), n=8)
    >>> vl.figures.control_random_weights(vl.figures.control_table(untrained))
    """
    log, (left, right) = log_of(found.facts), panels(2, height=2.5)
    parts = {name: part.drop(columns="measure") for name, part in found.table.groupby("measure")}
    shares = parts[SHARE].drop(columns="edges")
    retitle(share_lines(log, shares, found.facts["above"], left), "High-frequency share, random weights")
    retitle(concentration_lines(log, parts[EDGES], right), "Energy on edges, random weights")
    return figure_of(left)
