"""Pictures with their prompts."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from varlab.analysis.logs import Images, Log, as_log, images_of, prompt_count
from varlab.figures.style import PAGE, finish, theme
from varlab.figures.text import wrapped


def contact_sheet_table(log: Log, prompts: Sequence[int] | None = None) -> pd.DataFrame:
    """prompt (its number), text."""
    texts = as_log(log).attrs.get("prompts", [])
    shown = range(prompt_count(log)) if prompts is None else prompts
    return pd.DataFrame([(i, texts[i] if i < len(texts) else "") for i in shown], columns=["prompt", "text"])


@theme()
def contact_sheet(log: Log, images: Images = None, prompts: Sequence[int] | None = None, columns: int = 8) -> Figure:
    """What does the model draw? Final images with number and text of their prompts."""
    table = contact_sheet_table(log, prompts)
    pictures = images_of(log, images)
    columns = min(columns, len(table))
    rows = -(-len(table) // columns)
    side = PAGE / columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(PAGE, rows * (side + 0.3) + 0.2), layout="constrained", squeeze=False
    )
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.03)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (number, text) in zip(axes.flat, table.itertuples(index=False), strict=False):
        ax.imshow(np.asarray(pictures[number]), interpolation="nearest")
        title = wrapped(f"{number}: {text}", max(10, int(side * 19)), lines=3)
        ax.set_title(title, fontsize=5.5, fontweight="normal", loc="left", pad=2)
    return finish(figure, log, "contact_sheet", table)
