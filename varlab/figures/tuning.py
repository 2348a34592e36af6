"""The front of a search: work against likeness to the dense image, baselines and candidates on the prompts held out."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from varlab.figures.style import BLUE, RED, own_axes, theme

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {"marker": "s", "color": "0.6", "label": "baselines"},
    "single": {"marker": "^", "color": BLUE, "label": "single methods"},
    "composition": {"marker": "o", "color": RED, "label": "compositions"},
}


@theme()
def front(table: pd.DataFrame, facts: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """SSIM to the dense image over work, with 95 % intervals; a line through what was on the front of the other half.

    ``table``, ``facts``: of ``varlab.studies.tuning.tune``.
    """
    ax = own_axes(ax, 5.2, 3.4)
    for kind, marks in KINDS.items():
        rows = table[table.kind == kind]
        ends = [rows.ssim - rows.ssim_low, rows.ssim_high - rows.ssim]
        ax.errorbar(rows.work_ratio, rows.ssim, yerr=ends, ls="", ms=3.5, elinewidth=0.7, **marks)
    best = table[table.on_front]
    ax.plot(best.work_ratio, best.ssim, lw=0.8, color="0.3", label="front of the other half")
    ax.set(xlabel="work over dense", ylabel="SSIM to the dense image")
    about = f"{facts['weights']}; {facts['reported_on']} prompts held out, seed {facts['seed']}"
    ax.set_title(about, fontsize=7)
    ax.legend(fontsize=7)
    return ax
