"""Pictures with their prompts."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from varlab.analysis.logs import Images, Log, as_log, images_of, prompt_count
from varlab.errors import VarlabError
from varlab.figures.mosaic import PROMPT, mosaic
from varlab.figures.style import PAGE, finish, theme
from varlab.figures.text import wrapped

GAP, TEXT = 0.05, 0.34  # inches: between pictures, and over them for three lines


def contact_sheet_table(log: Log, prompts: Sequence[int] | None = None) -> pd.DataFrame:
    """prompt (its number), text."""
    texts = as_log(log).attrs.get("prompts", [])
    shown = range(prompt_count(log)) if prompts is None else prompts
    return pd.DataFrame([(i, texts[i] if i < len(texts) else "") for i in shown], columns=["prompt", "text"])


@theme()
def contact_sheet(log: Log, images: Images = None, prompts: Sequence[int] | None = None, columns: int = 8) -> Figure:
    """What does the model draw? Final images with number and text of their prompts.

    Errors: no prompts.
    """
    table = contact_sheet_table(log, prompts)
    if table.empty:
        raise VarlabError("A contact sheet needs pictures: give prompts=[0, ...], or None for all.")
    pictures = images_of(log, images)
    columns = min(columns, len(table))
    rows = -(-len(table) // columns)
    side = PAGE / columns
    shape = pictures[table.prompt.iloc[0]].shape
    sheet = mosaic(rows, columns, side - GAP, GAP, shape=shape, gap=GAP, between=TEXT, frame=0)
    for place, (number, text) in enumerate(table.itertuples(index=False)):
        row, column = divmod(place, columns)
        sheet.picture(row, column, pictures[number])
        title = wrapped(f"{number}: {text}", max(10, int(side * 19)), lines=3)
        sheet.title(column, title, row=row, **PROMPT | {"fontsize": 5.5, "ha": "left"})
    return finish(sheet.figure, log, "contact_sheet", table)
