"""Pictures of compared methods stage by stage, and the prompts that a method changes least and most."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from varlab.analysis.comparisons import is_baseline, log_of
from varlab.analysis.logs import grids
from varlab.analysis.pictures import Pictured, late_pictures, sensitivity_table
from varlab.figures.sidebyside import few
from varlab.figures.style import PAGE, SOFT, fields, finish, stage_title, theme
from varlab.figures.text import wrapped
from varlab.markup import brief

LABEL = 1.5  # inches for the names of the rows
FAINT = 0.25  # of a picture after whose stage nothing was drawn


@theme()
def stage_pictures(compared: Pictured, prompt: int = 0, methods: Sequence[str] | None = None, last: int = 3) -> Figure:
    """What do the last stages change, and how long does it take? One row per method, one column per late stage.

    Left of a row stands the measured time of a whole image, of n timed batches. A stage that a method left out
    is empty, or, after its last one, shows faintly the picture that it ended with. The comparison must hold the
    pictures after each stage (``stages_of=``).
    """
    rows = late_pictures(compared, prompt, methods or few(compared))
    log = log_of(compared.facts)
    sides = grids(log)
    stages = list(range(max(1, len(sides) - last + 1), len(sides) + 1))
    figure, axes = _fields(len(rows), len(stages))
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(_timed(compared, name), rotation=0, ha="right", va="center", fontsize=5.5)
        for ax, k in zip(line, stages, strict=True):
            if k in pictures:
                ax.imshow(np.asarray(pictures[k]), interpolation="nearest")
            else:
                if k > max(pictures, default=0):
                    ax.imshow(np.asarray(compared.images[name][prompt]), interpolation="nearest", alpha=FAINT)
                ax.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=6.5, color=SOFT, transform=ax.transAxes)
    for ax, k in zip(axes[0], stages, strict=True):
        ax.set_title(f"after stage {stage_title(k, sides)}", fontsize=6.5, pad=3, loc="center")
    text = compared.facts["prompts"][prompt]
    figure.suptitle(wrapped(f"prompt {prompt}: {text}", 100, lines=2), fontsize=6.5, x=0.01, ha="left")
    table = compared.table.loc[list(rows), ["seconds", "speedup", "work_ratio"]].reset_index()
    return finish(figure, log, "stage_pictures", table.assign(prompt=prompt, text=text))


@theme()
def sensitive_prompts(compared: Pictured, method: str | None = None, each: int = 3) -> Figure:
    """Which prompts can do without the work, and which cannot? Left the images that a method changes least, right most.

    Upper row dense, lower row the method, with the SSIM of the two; by default a method that leaves out stages.
    """
    chosen = method or _leaves_stages_out(compared)
    order = sensitivity_table(compared, chosen)
    each = max(1, min(each, len(order) // 2))
    shown = pd.concat([order.head(each).assign(kind="robust"), order.tail(each).assign(kind="sensitive")])
    figure, axes = _fields(2, len(shown))
    for (upper, lower), row in zip(axes.T, shown.itertuples(), strict=True):
        number = int(row.prompt)
        for ax, name in ((upper, "none"), (lower, chosen)):
            ax.imshow(np.asarray(compared.images[name][number]), interpolation="nearest")
        upper.set_title(wrapped(row.text, 16, lines=3), fontsize=5, fontweight="normal", pad=2)
        lower.set_xlabel(f"{row.kind}: SSIM {row.ssim:.2f}", fontsize=6)
    for ax, name in zip(axes[:, 0], ("dense", chosen), strict=True):
        ax.set_ylabel(wrapped(brief(name), 26, lines=3), rotation=0, ha="right", va="center", fontsize=5.5)
    figure.suptitle("The prompts that lose least (left) and most (right)", x=0.01, ha="left", fontsize=6.5)
    return finish(figure, log_of(compared.facts), "sensitive_prompts", shown)


def _leaves_stages_out(compared: Pictured) -> str:
    names = [name for name in compared.images if name != "none"]
    stages = [name for name in names if name.startswith(("truncate", "skipvar"))]
    return (stages or [name for name in names if is_baseline(name)] or names)[0]


def _timed(compared: Pictured, name: str) -> str:
    row = compared.table.loc[name]
    text = wrapped("dense" if name == "none" else brief(name), 26, lines=3)
    return f"{text}\n{1000 * row.seconds:.0f} ms per image,\n{row.speedup:.2f}x (n = {row.timings:.0f} batches)"


def _fields(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    side = min((PAGE - LABEL) / columns, 1.25)
    return fields(rows, columns, (columns * side + LABEL, rows * (side + 0.06) + 0.8))
