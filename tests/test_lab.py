"""The start notebook in a real JupyterLab in Chromium, cell by cell, widgets included."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.toy_pages import browser  # noqa: F401
from tests.waiting import until
from varlab.reports import notebook_folder
from varlab.reports.notebooks import read_notebook

pytestmark = pytest.mark.slow
HANG = 600_000  # milliseconds
START = ("start", "start.ipynb")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab on a free port, over a folder with the start notebook and without the user's own
    settings."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    shutil.copy(notebook_folder().joinpath(*START), tmp_path)
    places = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "RUNTIME")}
    places |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    call = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [*call, "--IdentityProvider.token=t", "--LabApp.news_url=None"],
            cwd=tmp_path, env={**os.environ, **places}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            until(lambda: server.poll() is not None or [*(tmp_path / "runtime").glob("jpserver-*.json")])
            assert server.poll() is None, (tmp_path / "lab.log").read_text()
            record = json.loads(next((tmp_path / "runtime").glob("jpserver-*.json")).read_text())
            yield f"{record['url']}lab/tree/{START[-1]}?token=t"
        finally:
            server.terminate()
            server.wait(60)


def counted(prompt: Any) -> bool:
    """Whether a cell has run: ``[3]:``, not ``[*]:``."""
    return re.fullmatch(r"\[\d+\]:", prompt.inner_text().strip()) is not None


def changed(picture: Any, before: str) -> bool:
    return picture.get_attribute("src") != before


def test_the_start_notebook_runs_cell_by_cell(lab: str, browser: Any) -> None:
    source = read_notebook(notebook_folder().joinpath(*START)).cells
    page = browser.new_page(viewport={"width": 1400, "height": 4000})  # so tall that no cell is left undrawn
    page.set_default_timeout(HANG)
    page.goto(lab)
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    cells = page.locator(".jp-NotebookPanel .jp-Cell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")  # the kernel is there
    cells.first.click()
    page.keyboard.press("Escape")
    for cell, kind in ((cells.nth(i), one.cell_type) for i, one in enumerate(source)):
        page.keyboard.press("Shift+Enter")
        if kind == "code":
            number = cell.locator(".jp-InputPrompt").first
            until(partial(counted, number))
            assert cell.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0, cell.inner_text()
    explorer = page.locator(".jp-Cell", has=page.locator(".widget-vbox"))
    picture, controls = explorer.locator("img.widget-image"), explorer.locator("select")
    for control, value in ((0, "block_token_mse"), (1, "ffn")):
        before = picture.get_attribute("src")
        controls.nth(control).select_option(value)
        until(partial(changed, picture, before))
    until(
        lambda: abs(picture.evaluate("it => it.naturalWidth / it.clientWidth") - 2) < 0.01
    )  # two of its pixels to one
    assert explorer.locator(".widget-label").evaluate_all("all => all.every(it => it.scrollWidth <= it.clientWidth)")
    compared = page.locator(".jp-Cell").nth(len(source) - 4)
    assert compared.locator("table").count() == 1 and "truncate:last=1" in compared.inner_text()
    page.close()
