"""Sheets of pictures: what stands around them is whole and covers nothing, in every style and however long it is."""

from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import Normalize
from matplotlib.transforms import Bbox

from tests.minis import refused
from tests.toy_logs import toy_log
from varlab.figures.mosaic import METHOD, Mosaic, mosaic
from varlab.figures.save import save
from varlab.figures.sheets import contact_sheet
from varlab.figures.sizes import STYLES, resize
from varlab.figures.style import finish, theme


def drawn(columns: int, name: str, title: str, shape: tuple[int, int] = (8, 8), bar: bool = True) -> Mosaic:
    with theme():
        sheet = mosaic(3, columns, min(5.5 / columns, 1.25), 1.3, shape=shape, between=0.11)
        for row in range(3):
            sheet.name(row, name, **METHOD)
            for column in range(columns):
                sheet.picture(row, column, np.zeros((*shape, 3)))
                sheet.below(row, column, "sensitive: SSIM 0.94")
        over = [sheet.title(column, title) for column in range(columns)]
        sheet.heading(columns // 2, "the second half", over[columns // 2])
        if bar:
            sheet.bar(Normalize(0, 1), "mako", "a long name for a short bar in several lines", "both")
        sheet.figure.suptitle("What they show " * 12, x=0.01, ha="left")
        finish(sheet.figure, toy_log(), "sheet", pd.DataFrame({"n": [1]}))
    return sheet


CASES: dict[str, tuple[int, str, str, tuple[int, int]]] = {
    "few": (3, "dense", "stage 9", (8, 8)),
    "many": (10, "sparsevar:\nkeep=0.27", "stage 10 · 16²\ncomputed", (8, 8)),
    "long names": (
        4,
        "random-tokens:keep=0.27,\nlast=3+truncate:last=1",
        "a large red triangle\nbeside a star",
        (8, 8),
    ),
    "wide": (6, "random-tokens:\nkeep=0.27,last=3\n1000 ms per image,\n1.00x (n = 3)", "stage 10", (8, 20)),
    "high": (6, "dense", "stage 10", (20, 8)),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_cut_and_nothing_touches(case: str, style: str) -> None:
    sheet = drawn(*CASES[case])
    with theme():
        resize(sheet.figure, style)
    page = sheet.figure.bbox
    pictures = [image.get_window_extent() for image in sheet.ax.images]
    words = [text for text in sheet.ax.texts if text.get_text()]
    around = [text for text in (*words, *sheet.figure.texts) if text.get_text()]
    bar = sheet.ax.child_axes[0].get_tightbbox()
    assert bar is not None
    assert bar.height <= 1.1 * sheet.ax.bbox.height  # names of its first and last tick reach beyond its ends
    boxes = {f"{i} {text.get_text()}": text.get_window_extent() for i, text in enumerate(around)} | {"bar": bar}
    for name, box in boxes.items():
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, name
        assert not any(_overlap(box, picture) for picture in pictures), name
    touching = [pair for pair in combinations(boxes, 2) if _overlap(boxes[pair[0]], boxes[pair[1]])]
    assert not touching
    plt.close(sheet.figure)


def test_fields_keep_their_shape_and_pictures_theirs() -> None:
    sheet = drawn(4, "dense", "stage", shape=(4, 8), bar=False)
    with theme():
        resize(sheet.figure, "paper")
    for image in sheet.ax.images:
        box = image.get_window_extent()
        assert box.width == pytest.approx(2 * box.height, rel=1e-6)
    assert box.width <= 1.25 * sheet.figure.dpi + 1
    gap = sheet.titles[0].get_window_extent().y0 - sheet.ax.images[0].get_window_extent().y1
    assert gap < 0.1 * sheet.figure.dpi  # no blank over a wide picture
    plt.close(sheet.figure)


def test_a_second_layout_changes_nothing() -> None:
    sheet = drawn(*CASES["many"])
    engine = sheet.figure.get_layout_engine()
    assert engine is not None
    engine.execute(sheet.figure)
    size, place = sheet.figure.get_size_inches().copy(), sheet.ax.get_position().bounds
    engine.execute(sheet.figure)
    assert np.allclose(sheet.figure.get_size_inches(), size, rtol=2e-3)
    assert np.allclose(sheet.ax.get_position().bounds, place, atol=2e-3)
    plt.close(sheet.figure)


@pytest.mark.filterwarnings("error")
def test_a_picture_may_have_no_title() -> None:
    sheet = drawn(3, "dense", "")
    with theme():
        resize(sheet.figure, "paper")
    assert {title.get_fontsize() for title in sheet.titles} == {6.5}
    plt.close(sheet.figure)


def test_notes_under_the_last_row_keep_their_letters() -> None:
    with theme():
        sheet = mosaic(2, 3, 1.25, 0.5)  # no room between the rows
        for column in range(3):
            sheet.below(1, column, "robust: SSIM 0.99")
        resize(sheet.figure, "paper")
    assert {note.get_fontsize() for note in sheet.notes} == {6}
    plt.close(sheet.figure)


def test_a_sheet_of_no_pictures_is_refused() -> None:
    refused(lambda: contact_sheet(toy_log(), prompts=[]), "needs pictures")


def _overlap(one: Bbox, two: Bbox) -> bool:
    """By more than a pixel: letters stand in boxes with room for accents."""
    return min(one.x1, two.x1) - max(one.x0, two.x0) > 1 and min(one.y1, two.y1) - max(one.y0, two.y0) > 1


def test_each_picture_can_be_taken_out_of_a_vector_file(tmp_path: Path) -> None:
    sheet = drawn(4, "dense", "stage 9", bar=False)
    save(sheet.figure, "sheet", folder=tmp_path)
    assert (tmp_path / "sheet.pdf").read_bytes().count(b"/Subtype /Image") == len(sheet.ax.images) == 12
    plt.close(sheet.figure)
