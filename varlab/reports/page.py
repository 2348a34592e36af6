"""One executed notebook as one HTML file that loads nothing: figures and text first, code folded away.

nbconvert's own templates load MathJax and require.js from the network and bring half a megabyte of style;
this one keeps its markup small, draws formulas itself, drops scripts, and forbids loading in a content
security policy.
"""

import csv
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
from traitlets.config import Config

from varlab.reports.facts import VIEWER, as_text, claim_figure, fact_rows, read_facts, tally, verdict_rows
from varlab.reports.headings import heading
from varlab.reports.mathematics import block_formula, inline_formula
from varlab.reports.nbformats import nbformat
from varlab.reports.notebooks import read_notebook
from varlab.reports.parameters import REPORT_FOLDER, Parameter
from varlab.reports.style import page_style
from varlab.reports.tables import arrange_tables
from varlab.reports.templates import PAGE_TEMPLATE

REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
REMOTE_STYLE = re.compile(r"@import[^;]*;?|url\(\s*['\"]?\s*(?:https?:)?//[^)]*\)", re.IGNORECASE)
LOADING = ("src", "srcset", "poster", "data", "background", "xlink:href")
TEXTS = ["text/latex", "text/plain"]
SAVED = re.compile(r"""\bsave\([^\n]*,\s*["']([^"'\n]+)["']\s*\)""")  # the name that a cell saves its figure under
FOLDED = 20  # verdicts: of more a page begins with their counts, and the table is folded
ABOUT = ("model", "weights", "n", "seed")  # what the words for an image say of its data
PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", *TEXTS]


def notebook_page(path: Path, declared: Mapping[str, Parameter], pictures: Path) -> str:
    """The page of an executed notebook; `pictures` is where its text finds images by relative path."""
    notebook = read_notebook(path)
    facts = read_facts(path.parent)
    run = notebook.metadata.get("varlab", {})
    title, _ = heading(notebook.cells)
    _describe_images(notebook, path.parent, facts)
    exporter = _Exporter(config=Config(NbConvertBase={"display_data_priority": PRIORITY}))
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    verdicts = verdict_rows(facts)
    resources = {
        "metadata": {"name": path.stem, "path": str(pictures)},
        "title": " · ".join([title or path.stem, *([str(facts["model"])] if "model" in facts else [])]),
        "style": page_style(),
        "run": run,
        "viewers": [file.relative_to(path.parent).as_posix() for file in sorted(path.parent.glob(f"*/{VIEWER}"))],
        "facts": fact_rows(facts),
        "verdicts": [row | {"figure": _claim_data(path.parent, i)} for i, row in enumerate(verdicts)],
        "many": tally(verdicts) if len(verdicts) > FOLDED else [],
        "parameters": _parameter_rows(declared, run.get("parameters", {})),
    }
    html, _ = exporter.from_notebook_node(notebook, resources)
    soup = BeautifulSoup(take_offline(html), "html.parser")
    _arrange(soup)
    return str(soup)


def markdown_html(source: str, attachments: Mapping[str, Any] | None = None, pictures: str = "") -> str:
    """Markdown as HTML with drawn formulas; local images are embedded."""
    renderer = _Renderer(escape=False, attachments=dict(attachments or {}), embed_images=bool(pictures), path=pictures)
    return MarkdownWithMath(renderer=renderer).render(source)


def take_offline(html: str) -> str:
    """The page without what a browser would run or fetch: scripts, remote images, frames, styles, fonts.

    A remote image or frame becomes a plain link; links that a reader follows stay.
    """
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup.find_all(["script", "link", "base"]):
        tag.decompose()
    for tag in soup.find_all(lambda tag: any(REMOTE.match(str(tag.get(key, ""))) for key in LOADING)):
        _replace_by_link(soup, tag)
    for tag in soup.find_all("style"):
        tag.string = REMOTE_STYLE.sub("", tag.get_text())
    for tag in soup.find_all(style=REMOTE_STYLE):
        tag["style"] = REMOTE_STYLE.sub("", str(tag["style"]))
    return str(soup)


def _replace_by_link(soup: BeautifulSoup, tag: Tag) -> None:
    address = next(str(tag[key]) for key in LOADING if REMOTE.match(str(tag.get(key, ""))))
    link = soup.new_tag("a", href=address.split()[0])
    link.string = f"[not embedded: {tag.get('alt') or address.split()[0]}]"
    tag.replace_with(link)


def _claim_data(folder: Path, row: int) -> str:
    """The figure of a verdict as an address that holds it; none where there is none."""
    path = claim_figure(folder, row)
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}" if path else ""


def _describe_images(notebook: nbformat.NotebookNode, folder: Path, facts: Mapping[str, Any]) -> None:
    """Give each code cell the words that stand for its images: what it draws, of which data, and the whole prompts."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            first = cell.source.strip().partition("\n")[0]
            drawn = first.removeprefix("#").strip() if first.startswith("#") else "Figure."
            rows = _rows(cell.source, folder)
            about = {**facts, **_number(rows)}
            data = ", ".join(f"{name} {as_text(about[name])}" for name in ABOUT if name in about)
            cell.metadata["alt"] = " ".join(part for part in (drawn, data, *_prompts(rows)) if part)


def _number(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The n of a figure, where all of its table has one."""
    found = {row["n"] for row in rows if row.get("n")}
    return {"n": found.pop()} if len(found) == 1 else {}


def _prompts(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The prompts of a figure of pictures, each with its number."""
    return [f"Prompt {row['prompt']}: {row['text']}" for row in rows if row.keys() >= {"prompt", "text"}]


def _rows(source: str, folder: Path) -> list[dict[str, str]]:
    """The table beside the figure that a cell saves."""
    name = SAVED.search(source)
    table = folder / f"{name[1]}.csv" if name else None
    if table is None or not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _arrange(soup: BeautifulSoup) -> None:
    """Put the summary under the title, let tables scroll, and list the sections where there are enough to need it."""
    arrange_tables(soup)
    for table in soup.find_all("table"):
        if table.find_parent("table") is None:
            box = soup.new_tag(
                "div", attrs={"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Table"}
            )
            table.wrap(box)
    title, summary = soup.select_one("main > h1"), soup.select_one("main > section.summary")
    if title is not None and summary is not None:
        title.insert_after(summary.extract())
    place, heads = soup.select_one("nav.contents"), soup.select("main > h2[id]")
    if place is None or len(heads) < 3:
        return
    for head in heads:
        text = head.get_text().removesuffix("¶").strip()
        link = soup.new_tag("a", href=f"#{head['id']}")
        link.string = text
        place.append(link)


def _parameter_rows(declared: Mapping[str, Parameter], used: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, value, help of each parameter, and its default where the run chose another value."""
    return [
        {
            "name": name,
            "value": as_text(used.get(name, parameter.default)),
            "default": as_text(parameter.default) if used.get(name) != parameter.default else "",
            "changed": used.get(name) != parameter.default,
            "help": parameter.help,
        }
        for name, parameter in declared.items()
        if name != REPORT_FOLDER
    ]


def _first_line(source: str) -> str:
    """What a folded cell shows: its first line, without the comment sign and the marks of code."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return lines[0].lstrip("# ").replace("`", "") if lines else ""


class _Renderer(IPythonRenderer):
    """nbconvert's markdown with formulas drawn in place."""

    def inline_math(self, body: str) -> str:
        return inline_formula(body)

    def block_math(self, body: str) -> str:
        return block_formula(body)

    def multiline_math(self, text: str) -> str:
        return block_formula(text.strip().strip("$"))

    def latex_environment(self, name: str, body: str) -> str:
        return block_formula(f"\\begin{{{name}}}{body}\\end{{{name}}}")


class _Exporter(HTMLExporter):
    """nbconvert's HTML exporter with varlab's template and markdown."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(raw_template=PAGE_TEMPLATE, **arguments)

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """Markdown in a cell or an output; images lie beside the notebook."""
        attachments = context.get("cell", {}).get("attachments", {})
        return markdown_html(source, attachments, context["resources"]["metadata"]["path"])

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        """nbconvert's filters and those of this template."""
        yield from super().default_filters()
        yield "first_line", _first_line
        yield "formula", lambda tex: block_formula(tex.strip().strip("$"))
