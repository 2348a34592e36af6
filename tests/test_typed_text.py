"""Texts of users stand in figures as typed: no formulas, no empty boxes, no lost ends."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import varlab as vl
from tests.toy_logs import toy_log
from varlab.figures import text as texts
from varlab.figures.style import figure_of

PROMPTS = [
    "$5 note and a $10",
    r"$\blue$",
    "a <b>bold</b> | pipe & `tick` *star* _under_",
    "红色的星星",
    "🦊 fox",
    "שלום עולם",
    "a very long prompt " * 16,
    "line one\nline two\ttab",
    "a lone \udce4 surrogate",
]
SPEC = r"sparsevar:keep=0.5,model=$\blue$"


def compared() -> Any:
    """A comparison of noise under prompts and specs that are hard to draw."""
    noise = np.random.default_rng(0).integers(0, 255, (2, len(PROMPTS), 16, 16, 3), dtype=np.uint8)
    images = {name: [Image.fromarray(one) for one in part] for name, part in zip(("none", SPEC), noise, strict=True)}
    facts = {"model": "my $x$ mini", "weights": r"named $\blue$.pth", "seed": 0, "n": len(PROMPTS), "prompts": PROMPTS}
    table = pd.DataFrame({"ssim": [1, 0.5], "speedup": [1, 2], "speedup_low": [1, 2], "speedup_high": [1, 2]},
                         index=pd.Index(["none", SPEC], name="method"))  # fmt: skip
    return SimpleNamespace(images=images, facts=facts, table=table)


FIGURES: dict[str, Callable[[], Any]] = {
    "contact sheet": lambda: vl.figures.contact_sheet(vl.figures.log_of(compared().facts), compared().images["none"]),
    "side by side": lambda: vl.figures.side_by_side(compared(), range(len(PROMPTS))),
    "spectrum": lambda: vl.figures.difference_spectrum(compared()),
    "trade-off": lambda: vl.figures.tradeoff(compared()),
    "trade-off on own axes": lambda: vl.figures.tradeoff(compared(), ax=plt.subplots()[1]),
    "another title": lambda: _retitled(),
}


def _retitled() -> Figure:
    ax = plt.subplots()[1]
    vl.figures.retitle(ax, r"$\blue$ of 红")
    return figure_of(ax)


def written(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]  # type: ignore[attr-defined]


@pytest.fixture
def one_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "FALLBACKS", ())


@pytest.mark.usefixtures("one_font")
@pytest.mark.parametrize("name", FIGURES)
def test_every_text_of_a_user_is_drawn_as_typed(name: str) -> None:
    figure = figure_of(FIGURES[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that is missing, a formula that cannot be parsed
        figure.draw_without_rendering()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        assert "$" not in text.get_text() or not text.get_parse_math()
        assert "mathdefault" not in text.get_text()
    if name != "another title":
        assert r"my $x$ mini · weights: named $\blue$.pth" in "\n".join(written(figure)).replace("\xa0", " ")
    plt.close(figure)


@pytest.mark.usefixtures("one_font")
def test_formulas_on_other_axes_of_a_caller_stay() -> None:
    _, (own, others) = plt.subplots(1, 2)
    title = others.set_title(r"$\alpha$")
    vl.figures.high_frequency_share(toy_log(n=2), ax=own)
    assert title.get_parse_math() and not own.xaxis.label.get_parse_math()
    plt.close("all")


def test_titles_are_the_prompts() -> None:
    figure = vl.figures.side_by_side(compared(), range(len(PROMPTS)))
    words = [text.get_text().replace("\n", "") for text in figure.axes[0].texts]
    titles = words[-len(PROMPTS) :]
    assert titles[0].replace(" ", "") == "$5noteanda$10"
    assert titles[1] == r"$\blue$"
    assert titles[3].replace(" ", "") == "⟨U+7EA282727684661F661F⟩"
    assert titles[4:6] == ["⟨U+1F98A⟩ fox", "שלום עולם"]
    assert titles[6].endswith("…") and len(titles[6]) < 60
    assert titles[7].replace(" ", "") == "lineone↵linetwo⇥tab"
    assert "⟨U+DCE4⟩" in titles[8]
    assert SPEC in words
    assert "\n".join(written(figure)).count("no installed font") == 1
    assert vl.figures.contact_sheet_table(vl.figures.log_of(compared().facts)).text.tolist() == PROMPTS
    plt.close(figure)


def test_a_font_that_has_the_letter_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = "\u1d81"  # in STIX, which comes with matplotlib, and not in DejaVu Sans
    monkeypatch.setattr(texts, "FALLBACKS", ())
    assert texts.as_typed(letter) == f"⟨U+{ord(letter):04X}⟩"
    monkeypatch.setattr(texts, "FALLBACKS", ("A font that is not here", "STIXGeneral"))
    assert texts.as_typed(letter) == letter
    figure = vl.figures.contact_sheet(vl.figures.log_of({"n": 1, "prompts": [letter]}), compared().images["none"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    assert f"0: {letter}" in written(figure)
    assert "no installed font" not in "".join(written(figure))
    plt.close(figure)


def test_wide_letters_take_two_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "as_typed", str)
    assert texts.wrapped("红" * 12, 12).split("\n") == ["红" * 6, "红" * 6]
    assert texts.wrapped("star " * 5, 12).split("\n") == ["star star", "star star", "star"]
