"""The viewer of compared pictures in a real browser: what it shows, keys, addresses, thousands of prompts."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

import varlab as vl
from tests.toy_pages import PROMPTS, browser, faults_of, opened, until  # noqa: F401
from varlab.errors import VarlabError
from varlab.reports import write_viewer
from varlab.runs.folders import write_log

METHODS = ("none", "sparsevar:keep=0.27", "truncate:last=1")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> $x^2$"
TEXTS = [HOSTILE, *PROMPTS]
GREY = 100  # of the dense pictures; those of method m are 10 m lighter


def write_comparison(folder: Path, texts: Sequence[str], pictures: bool = True) -> Path:
    """A saved comparison of grey pictures, its tokens left out on the left half, with two pictures after stages."""
    facts = {"model": "mini-infinity", "weights": "trained (x)", "n": len(texts), "seed": 0, "precision": "fp32",
             "device": "cpu", "prompt_set": "custom", "settings": {"cfg": 3.0}, "schedule": [[1, 1], [4, 4]],
             "prompts": list(texts)}  # fmt: skip
    rows = [{"method": name, "work_ratio": 1 - m / 4, "speedup": 1 + m / 2} for m, name in enumerate(METHODS)]
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(json.dumps({"facts": facts, "rows": rows}), "utf-8")
    scores = [{"method": name, "prompt": text, "ssim": 1 - m / 10} for m, name in enumerate(METHODS) for text in texts]
    pd.DataFrame(scores).to_csv(folder / "prompts.csv", index=False)
    for m in range(len(METHODS)):
        for place, names in (
            (f"images/{m:02d}", range(len(texts) if pictures else 1)),
            (f"previews/{m:02d}", range(2)),
        ):
            (folder / place).mkdir(parents=True)
            for i in names:
                for end in ("-01.png", "-02.png") if place.startswith("previews") else (".png",):
                    Image.new("RGB", (16, 16), (GREY + 10 * m,) * 3).save(folder / place / f"{i:04d}{end}")
    kept = np.ones((len(texts), 4, 4), np.float32)
    kept[:, :, :2] = 0
    stage = xr.Dataset({"kept": (("prompt", "y", "x"), kept), "score": (("prompt", "y", "x"), kept)})
    write_log(folder / "decisions" / "01", xr.DataTree.from_dict({"/sparsevar/stage-02": stage}))
    return folder


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viewer(write_comparison(tmp_path_factory.mktemp("viewer") / "ein Vergleich 比較", TEXTS))


@pytest.fixture
def page(viewer: Path, browser: Any) -> Iterator[Any]:
    with opened(browser, viewer, viewport={"width": 1280, "height": 900}) as page:
        page.wait_for_selector(".cell")
        yield page


def grey(page: Any, what: str, x: float = 0.5) -> int:
    """The brightness of what is drawn at a place of an element, from the left 0 to the right 1."""
    until(page, "[...document.images].every(image => image.complete || image.loading === 'lazy')")
    shot = np.asarray(Image.open(io.BytesIO(page.locator(what).first.screenshot())).convert("L"))
    return int(shot[shot.shape[0] // 2, int(x * (shot.shape[1] - 1))])


def test_texts_read_as_typed(page: Any) -> None:
    for i, text in enumerate(TEXTS):
        page.locator("#rows li").nth(i).scroll_into_view_if_needed()
        assert page.locator("#rows li p bdi").nth(i).evaluate("one => one.textContent") == text
    assert page.locator("#prompt bdi").evaluate("one => one.textContent") == HOSTILE
    assert page.locator("main script").count() == 0


def test_every_prompt_has_each_method_with_words(page: Any) -> None:
    row = page.locator("#rows li").first
    assert row.locator(".cell span").all_inner_texts() == [
        "dense",
        f"{METHODS[1]} · SSIM 0.900",
        f"{METHODS[2]} · SSIM 0.800",
    ]
    words = [image.get_attribute("alt") for image in row.locator("img").all()]
    assert words == [f"{name}: {HOSTILE}" for name in ("dense", *METHODS[1:])]
    assert [grey(page, f"#rows li:first-child .cell:nth-child({m + 1}) .frame") for m in range(3)] == [100, 110, 120]


def test_differences_are_shown_by_their_factor(page: Any) -> None:
    for seen in (10, 30, 100):
        page.keyboard.press("d")
        assert grey(page, "#frames .frame") == pytest.approx(seen, abs=1)
        assert grey(page, "#rows li:first-child .cell:nth-child(2) .frame") == pytest.approx(seen, abs=1)
    assert "What differs from dense" in page.locator("#frames img").first.get_attribute("alt")


def test_the_slider_parts_dense_from_method(page: Any) -> None:
    page.keyboard.press("ArrowRight")
    page.check("text=slider")
    page.fill("#split", "25")
    assert (grey(page, "#frames .frame", 0.1), grey(page, "#frames .frame", 0.6)) == (100, 120)
    page.focus("#split")
    page.keyboard.press("ArrowRight")
    assert "split=26" in page.url and "method=2" in page.url  # an arrow within the slider moves the slider


def test_blinking_shows_one_and_then_the_other(page: Any) -> None:
    page.keyboard.press("b")
    for name in ("dense", METHODS[1], "dense"):
        until(page, f"document.querySelector('#frames figcaption').textContent === {name!r}")
    page.keyboard.press("n")
    assert page.locator("#frames figure").count() == 2


def test_no_picture_blinks_for_those_who_want_less_motion(viewer: Path, browser: Any) -> None:
    with opened(browser, viewer, "#mode=blink", reduced_motion="reduce") as page:
        first = page.inner_text("#frames figcaption")
        page.wait_for_timeout(800)
        assert page.inner_text("#frames figcaption") == first
        page.click("#frames")
        assert page.inner_text("#frames figcaption") != first


def test_tokens_left_out_are_veiled(page: Any) -> None:
    page.select_option("[name=map]", label="tokens left out, stage 2")
    left, right = (grey(page, "#frames figure:nth-child(2) .frame", x) for x in (0.25, 0.75))
    assert (left, right) == (pytest.approx(0.85 * 242 + 0.15 * 110, abs=2), 110)
    assert page.locator("#rows li").nth(3).locator("[role=img]").count() == 1  # of one method in three
    page.keyboard.press("Escape")
    page.locator("body").click(position={"x": 1, "y": 1})
    page.keyboard.press("o")
    assert page.input_value("[name=map]") == "score, stage 2"


def test_keys_and_the_address_lead_to_the_same_view(page: Any) -> None:
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "]", "+"):
        page.keyboard.press(key)
    assert page.url.partition("#")[2] == "prompt=2&method=2&stage=1&zoom=2"
    assert page.locator("#rows li").nth(2).locator(".cell").nth(2).get_attribute("aria-pressed") == "true"
    assert page.locator("#frames img").first.evaluate(
        "one => one.getBoundingClientRect().width / one.offsetWidth"
    ) == pytest.approx(2, abs=0.02)
    again = page.url
    page.goto("about:blank")
    page.goto(again)
    assert page.inner_text("#prompt").startswith("2: ") and page.input_value("[name=stage]") == "1"
    page.goto(again.partition("#")[0] + "#prompt=99&method=-3&mode=x&zoom=1e9&map=<b>")
    assert page.inner_text("#prompt").startswith(f"{len(TEXTS) - 1}: ")


def test_all_pictures_zoom_in_step(page: Any) -> None:
    page.click("[aria-label='Zoom in']")
    scales = page.eval_on_selector_all(
        ".zoomed", "all => all.map(one => new DOMMatrix(getComputedStyle(one).transform).a)"
    )
    assert set(scales) == {2} and len(scales) > 6


def test_stages_stand_under_the_pair_where_they_were_kept(page: Any) -> None:
    assert page.locator("#strip button:enabled").count() == 4  # two lines of two stages
    page.locator("#strip button").first.click()
    assert "previews/00/0000-01.png" in page.locator("#frames img").first.get_attribute("src")
    page.click("#rows li:nth-child(4) .cell")
    assert page.locator("#strip button").count() == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])  # colours and layout do not meet
def test_the_viewer_is_accessible(viewer: Path, browser: Any, scheme: str, width: int) -> None:
    with opened(browser, viewer, color_scheme=scheme, viewport={"width": width, "height": 844}) as page:
        page.wait_for_selector(".cell")
        assert faults_of(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_thousands_of_prompts_are_drawn_as_they_come_near(tmp_path: Path, browser: Any) -> None:
    texts = [f"prompt number {i}" for i in range(2000)]
    made = write_viewer(write_comparison(tmp_path / "many", texts, pictures=False))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # of a busy machine; alone it takes a second or two
    page.goto(made.as_uri())
    page.wait_for_selector(".cell")
    assert page.locator("#rows li").count() == 2000
    assert page.locator("#rows img").count() < 150
    page.fill("#find", "number 1999")
    assert page.inner_text("#count") == "1 of 2000 prompts"
    page.wait_for_selector("#rows li:nth-child(2000) .cell")
    assert page.locator("#rows img").count() < 300
    page.close()


# Without a browser -------------------------------------------------------------------------------------------


def test_a_run_has_a_viewer_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    vl.log("nano-infinity", ["a red star", "a blue ring"], seed=0, folder=folder, probes=["residual-spectrum"])
    text = write_viewer(folder).read_text("utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["prompts"] == ["a red star", "a blue ring"] and data["methods"][0]["name"] == "dense"
    kinds = {sheet["kind"] for sheet in data["methods"][0]["maps"]}
    assert kinds == {"energy of the change"}
    assert all((folder / sheet["source"]).is_file() for sheet in data["methods"][0]["maps"])
    with pytest.raises(VarlabError, match="exists"):
        write_viewer(folder)
    write_viewer(folder, overwrite=True)


def test_a_folder_that_holds_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match="neither a comparison nor a run"):
        write_viewer(tmp_path)
    assert not list(tmp_path.iterdir())
