"""Looking around in a notebook: widgets over figure functions, a still picture beside them, objects as tables."""

import builtins
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from PIL import Image

import varlab as vl
from tests.toy_logs import toy_images, toy_log
from varlab.engine.ledger import Ledger
from varlab.engine.plan import StagePlan
from varlab.errors import VarlabError
from varlab.markup import Shown, as_html, summary
from varlab.reports.notebooks import read_notebook
from varlab.resources import shipped
from varlab.runs import RunResult

PROMPT = "<b>a red</b> star & $5 to $10"


@pytest.fixture(scope="module")
def run() -> RunResult:
    log = toy_log(n=4)
    log.attrs = {**log.attrs, "prompts": [PROMPT] * 4}
    return RunResult(toy_images(4), log, Ledger.of(6))


def test_every_choice_draws(run: RunResult) -> None:
    explorer = vl.explore(run)
    assert {"high_frequency_share", "energy_maps", "token_maps", "step_redundancy"} <= set(explorer.drawings)
    for name, (_, known) in explorer.drawings.items():
        explorer.choose(name, **{option: values[-1] for option, values in known.items()})
        png, width = explorer.picture()
        with Image.open(BytesIO(png)) as picture:
            assert picture.format == "PNG" and picture.width == pytest.approx(2 * width, abs=1), name


def test_widgets_choose_what_is_drawn(run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    widgets = pytest.importorskip("ipywidgets")
    explorer = vl.explore(run)
    drawn: list[tuple[str, dict[str, Any]]] = []

    def picture() -> tuple[bytes, int]:
        drawn.append((explorer.chosen, explorer.options))
        return b"", 100 * len(drawn)

    monkeypatch.setattr(explorer, "picture", picture)
    box = explorer.widgets()
    figure, panel, image = box.children
    assert isinstance(image, widgets.Image) and list(figure.options) == list(explorer.drawings)
    figure.value = "block_token_mse"
    panel.children[0].value = "ffn"
    assert drawn[-1] == ("block_token_mse", {"sublayer": "ffn", "guidance_row": "both"})
    assert image.layout.width == f"{100 * len(drawn)}px"  # its own, whatever the page's


def test_without_widgets_stands_a_picture(run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "ipywidgets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    bundle = vl.explore(run)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    (image,) = BeautifulSoup(bundle["text/html"], "html.parser").find_all("img")
    assert str(image["src"]).startswith("data:image/png")


def test_what_is_not_there_is_refused(run: RunResult) -> None:
    explorer = vl.explore(run)
    with pytest.raises(VarlabError, match="no figure 'x'"):
        explorer.choose("x")
    with pytest.raises(VarlabError, match="no prompts = 9"):
        explorer.choose("energy_maps", prompts=9)
    empty = toy_log(n=2)
    for name in list(empty.children):
        del empty[name]
    with pytest.raises(VarlabError, match="nothing to explore"):
        vl.explore(empty)


def test_objects_are_tables_with_texts_as_typed(run: RunResult) -> None:
    page = BeautifulSoup(run._repr_html_(), "html.parser")
    assert [image["alt"] for image in page.find_all("img")] == [PROMPT] * 4
    assert not page.find_all("b") and page.table is not None
    html = BeautifulSoup(as_html(summary("A <title>", some_fact=PROMPT)), "html.parser")
    assert html.p is not None and html.p.get_text() == "A <title>"
    assert html.td is not None and html.td.get_text() == PROMPT
    assert "<code>StagePlan(" in StagePlan()._repr_html_()
    assert "<table" in Ledger.of(3)._repr_html_()
    assert issubclass(vl.load("nano-infinity").__class__, Shown)
    assert isinstance(run.images[0], Image.Image)


def test_the_start_notebook_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in read_notebook(shipped("notebooks") / "start" / "start.ipynb").cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert (tmp_path / "runs" / "compared-start" / "viewer.html").is_file()
    assert (tmp_path / "runs" / "compared-start" / "previews" / "01").is_dir()
