"""Speed against fidelity of compared methods, the controls drawn as lines to beat."""

from pathlib import Path

from matplotlib.axes import Axes

from varlab.analysis.comparisons import CONTROLS, Compared, family, log_of, read_comparison
from varlab.errors import VarlabError, unknown
from varlab.figures.style import CYCLE, MARKERS, SOFT, finish, own_axes, theme
from varlab.figures.text import as_typed

MEASURES = {
    "ssim": "SSIM to the dense image",
    "high_frequency_ssim": "SSIM of the detail",
    "psnr": "PSNR (dB)",
    "lpips": "LPIPS to the dense image (lower is closer)",
    "score": "scene score",
}


@theme()
def tradeoff(
    source: Compared | Path | str, measure: str = "ssim", against: str = "speedup", ax: Axes | None = None
) -> Axes:
    """Each method's fidelity (``measure``) over its speed-up, or over ``work_ratio``; bars are 95 % intervals.

    Settings of one control are joined by a dashed line: a method below it is beaten by leaving work out blindly.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    table, facts = read_comparison(source)
    if measure not in table:
        needs = "weights of LPIPS" if measure == "lpips" else "a scene set of at least 100 prompts"
        raise VarlabError(f"This comparison has no {measure}: that needs {needs}.")
    ax = own_axes(ax)
    shown = table.drop(index="none", errors="ignore")
    for i, kind in enumerate(dict.fromkeys(map(family, shown.index))):
        part = shown[[family(name) == kind for name in shown.index]].sort_values(against)
        control = kind in CONTROLS
        colour = SOFT if control else CYCLE[i % len(CYCLE)]
        ax.plot(
            part[against], part[measure], marker=MARKERS[i % len(MARKERS)], color=colour, label=as_typed(kind),
            mec="white", mew=0.5, ls="--" if control else "-", lw=0.9, zorder=2 if control else 3,
        )  # fmt: skip
        if f"{measure}_low" in part:
            ax.vlines(part[against], part[f"{measure}_low"], part[f"{measure}_high"], color=colour, lw=0.9, zorder=1)
        if against == "speedup":
            ax.hlines(part[measure], part["speedup_low"], part["speedup_high"], color=colour, lw=0.9, zorder=1)
    ax.set(xlabel="speed-up over dense" if against == "speedup" else "work over dense", ylabel=MEASURES[measure])
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=6, columnspacing=1.0)
    finish(ax, log_of(facts), f"tradeoff-{measure}", shown.reset_index())
    return ax
