"""What test_pages.py, test_site.py and test_viewer.py share: odd texts, a report of them, and a browser."""

import base64
import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import varlab as vl
from varlab import claims, reports
from varlab.claims import Outcome, Verdict
from varlab.reports.page import notebook_page
from varlab.reports.parameters import Parameter

PROMPTS = [
    "$5 note and a $10",
    r"$\blue$ and \$5",
    "a <b>bold</b> | pipe & `tick` *star* _under_ ~~gone~~ [link](x) <!-- no -->",
    "红色的星星",
    "🦊 fox",
    "שלום עולם",
    "a very long prompt " * 16 + "ends here",
    "&amp; stays",
]
SPEC = r"sparsevar:keep=0.27,model=C:\$HOME\a_very_long_folder_name_without_any_blank_in_it_at_all\red|blue.json"
VERDICT = Verdict(f"{SPEC} keeps <more>", Outcome.FAILS, "SSIM $5 to $10 | *all*")
FACTS = {"model": "mini-infinity", "weights": f"trained ({SPEC})", "n": len(PROMPTS), "seed": 3}
DECLARED = {"methods": Parameter("methods", "str", "none", "specs")}


def picture() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (1600, 600)).save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()


def write_report(
    folder: Path,
    model: str = "mini-infinity",
    verdict: Verdict = VERDICT,
    date: str = "2026-01-02",
    n: int = len(PROMPTS),
) -> Path:
    """A report as a run leaves it, with everything that was ever too wide or read as markup."""
    folder.mkdir(parents=True)
    log = vl.figures.log_of({**FACTS, "model": model, "prompts": PROMPTS, "prompt_set": "my $set$ of $10"})
    table = pd.DataFrame({"text": PROMPTS, **{f"column {i}": i / 3 for i in range(20)}}).set_index("text")
    outputs = [new_output("display_data", {"image/png": picture()}), html_output(table)]
    account = new_output("display_data", {"text/markdown": claims.account(log, [verdict])})
    cells = [
        new_markdown_cell("# Costs: from \\$5 to `$10`\n\nA claim of a method, said in one sentence. More."),
        new_code_cell("methods = ''", metadata={"tags": ["parameters"]}),
        new_code_cell('# What it draws.\nvl.figures.save(figure, "pictures")', outputs=outputs),
        new_markdown_cell("A wide formula: $" + "+".join(f"x_{{{i}}}" for i in range(40)) + "$, and\n\n$$"
                          + "+".join(f"x_{{{i}}}" for i in range(90)) + "$$"),
        new_code_cell("x", outputs=[account, new_output("stream", text="word " * 80)]),
    ]  # fmt: skip
    run = {"date": date, "parameters": {"methods": SPEC, "model": model}, "files": ["pictures.png"]}
    notebook = new_notebook(cells=cells, metadata={"varlab": run})
    nbformat.write(notebook, folder / f"{folder.name}.ipynb")
    Image.new("RGB", (1600, 600)).save(folder / "pictures.png")
    pd.DataFrame({"prompt": range(len(PROMPTS)), "text": PROMPTS}).to_csv(folder / "pictures.csv", index=False)
    reports.record(report_folder=folder, **{**FACTS, "model": model, "n": n, "verdicts": [verdict]})
    page = folder / f"{folder.name}.html"
    page.write_text(notebook_page(folder / f"{folder.name}.ipynb", DECLARED, folder), "utf-8")
    return page


def html_output(table: pd.DataFrame) -> Any:
    with pd.option_context("display.max_colwidth", None):
        return new_output("display_data", {"text/html": table._repr_html_()})  # type: ignore[operator]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, where it and playwright are installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the width of pages is measured by playwright")
    program = next(
        (path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None
    )
    if program is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


LOCAL = ("file:", "data:", "about:")


@contextmanager
def opened(browser: Any, path: Path, hash: str = "", **options: Any) -> Iterator[Any]:
    """A page from the disk, which may ask for nothing of the network and say nothing on the console."""
    page = browser.new_page(**options)
    wrong: list[str] = []

    def dismiss(dialog: Any) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", dismiss)
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on("request", lambda asked: wrong.extend([] if asked.url.startswith(LOCAL) else [asked.url]))
    page.goto(path.as_uri() + hash)
    yield page
    page.close()
    assert not wrong


def until(page: Any, condition: str, seconds: float = 30) -> None:
    """Wait for a condition; playwright's own way needs an ``eval``, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def faults_of(page: Any) -> list[str]:
    """What axe-core finds wrong with names, roles, contrast and structure."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{fault['id']}: {[node['target'] for node in fault['nodes']][:3]}" for fault in found]
