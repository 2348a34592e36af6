"""Pictures of compared methods stage by stage, and the prompts that a method changes least and most."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from varlab.analysis.comparisons import is_baseline, log_of
from varlab.analysis.logs import grids
from varlab.analysis.pictures import Pictured, late_pictures, sensitivity_table
from varlab.figures.mosaic import METHOD, PROMPT, Mosaic, mosaic
from varlab.figures.sidebyside import few
from varlab.figures.style import INK, PAGE, finish, stage_title, theme
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
    sheet = _fields(len(rows), len(stages), compared)
    for row, (name, pictures) in enumerate(rows.items()):
        sheet.name(row, _timed(compared, name), **METHOD)
        for column, k in enumerate(stages):
            if k in pictures:
                sheet.picture(row, column, pictures[k])
            else:
                if k > max(pictures, default=0):
                    sheet.picture(row, column, compared.images[name][prompt], alpha=FAINT)
                sheet.not_run(row, column)
    for column, k in enumerate(stages):
        sheet.title(column, f"after stage {stage_title(k, sides)}")
    text = compared.facts["prompts"][prompt]
    sheet.figure.suptitle(wrapped(f"prompt {prompt}: {text}", 100, lines=2), fontsize=6.5, x=0.01, ha="left")
    table = compared.table.loc[list(rows), ["seconds", "speedup", "work_ratio"]].reset_index()
    return finish(sheet.figure, log, "stage_pictures", table.assign(prompt=prompt, text=text))


@theme()
def sensitive_prompts(compared: Pictured, method: str | None = None, each: int = 3) -> Figure:
    """Which prompts can do without the work, and which cannot? Left the images that a method changes least, right most.

    Upper row dense, lower row the method, with the SSIM of the two; by default a method that leaves out stages.
    """
    chosen = method or _leaves_stages_out(compared)
    order = sensitivity_table(compared, chosen)
    each = max(1, min(each, len(order) // 2))
    shown = pd.concat([order.head(each).assign(kind="robust"), order.tail(each).assign(kind="sensitive")])
    sheet = _fields(2, len(shown), compared)
    for column, one in enumerate(shown.itertuples()):
        for row, name in enumerate(("none", chosen)):
            sheet.picture(row, column, compared.images[name][int(one.prompt)])
        sheet.title(column, wrapped(one.text, 16, lines=3), **PROMPT)
        sheet.below(1, column, f"{one.kind}: SSIM {one.ssim:.2f}", color=INK)
    for row, name in enumerate(("dense", chosen)):
        sheet.name(row, wrapped(brief(name), 26, lines=3), **METHOD)
    sheet.figure.suptitle("The prompts that lose least (left) and most (right)", x=0.01, ha="left", fontsize=6.5)
    return finish(sheet.figure, log_of(compared.facts), "sensitive_prompts", shown)


def _leaves_stages_out(compared: Pictured) -> str:
    names = [name for name in compared.images if name != "none"]
    stages = [name for name in names if name.startswith(("truncate", "skipvar"))]
    return (stages or [name for name in names if is_baseline(name)] or names)[0]


def _timed(compared: Pictured, name: str) -> str:
    row = compared.table.loc[name]
    text = wrapped("dense" if name == "none" else brief(name), 26, lines=3)
    return f"{text}\n{1000 * row.seconds:.0f} ms per image,\n{row.speedup:.2f}x (n = {row.timings:.0f} batches)"


def _fields(rows: int, columns: int, compared: Pictured) -> Mosaic:
    side = min((PAGE - LABEL) / columns, 1.25)
    width, height = next(iter(compared.images.values()))[0].size
    return mosaic(rows, columns, side, LABEL, shape=(height, width), frame=0)
