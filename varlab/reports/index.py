"""`reports/index.html`: every report on one offline page, one entry each: its data, claim, verdicts, figures."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from varlab.errors import VarlabError
from varlab.reports.facts import as_text, fact_rows, read_facts, verdict_rows
from varlab.reports.headings import heading
from varlab.reports.style import INDEX_STYLE
from varlab.reports.templates import INDEX_TEMPLATE

DRAFT = "draft"  # the folder, within a report's own, of a run that goes on or stopped
FIRST = ("model", "weights", "n", "seed")  # what tells reports of one notebook apart


def write_index(out: Path | str = "reports") -> Path:
    """Write `<out>/index.html` over every report folder in `out`; returns its path.

    A report without facts still has a card, which says that its weights were not recorded; a folder whose
    notebook cannot be read has a card that says so, as has one whose last run stopped.

    Errors: `out` is not a folder.
    """
    from jinja2 import Environment

    place = Path(out)
    if not place.is_dir():
        raise VarlabError(f"No reports folder at {place}.")
    folders = [folder for folder in sorted(place.iterdir()) if _notebook(folder).is_file()]
    template = Environment(autoescape=True).from_string(INDEX_TEMPLATE)
    page = template.render(style=INDEX_STYLE, cards=[_card(folder) for folder in folders])
    index, draft = place / "index.html", place / f".index.{os.getpid()}.html"
    draft.write_text(page, "utf-8")
    draft.replace(index)  # a reader, or a second report ending now, never sees half a page
    return index


def _notebook(folder: Path) -> Path:
    """The executed notebook of a report, or the draft of one that never succeeded."""
    path = folder / f"{folder.name}.ipynb"
    return path if path.is_file() else folder / DRAFT / path.name


def _stopped(folder: Path) -> str:
    """Why the last run stopped and where its draft is; nothing when it succeeded, or still goes on."""
    path = folder / DRAFT / f"{folder.name}.ipynb"
    try:
        error = json.loads(path.read_text("utf-8"))["metadata"]["varlab"]["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"{error} (half-run notebook: {folder.name}/{DRAFT}/{path.name})"


def _card(folder: Path) -> dict[str, Any]:
    """What the index shows of one report."""
    name, path = folder.name, _notebook(folder)
    link = _href(folder, path.relative_to(folder).as_posix())
    card: dict[str, Any] = {"name": name, "notebook": link, "title": name}
    try:
        notebook = json.loads(path.read_text("utf-8"))
        title, claim = heading(notebook["cells"])
    except (ValueError, KeyError, TypeError):
        return card | {"error": "its notebook cannot be read."}
    run, facts = notebook.get("metadata", {}).get("varlab", {}), read_facts(folder)
    asked, verdicts = run.get("parameters", {}), verdict_rows(facts)
    files = [file for file in run.get("files", []) if (folder / file).is_file()]
    known = {"weights": "not recorded"} | {name: asked[name] for name in FIRST if name in asked} | facts
    shown = fact_rows({name: known[name] for name in FIRST if name in known})
    figures = _figures(folder, files, ", ".join(f"{name} {value}" for name, value in shown))
    rest = {name: value for name, value in facts.items() if name not in FIRST}
    return card | {
        "title": title or name,
        "claim": _rendered(claim),
        "html": _href(folder, f"{name}.html") if (folder / f"{name}.html").is_file() else "",
        "error": _stopped(folder),
        "verdicts": verdicts,
        "tally": [(*words, n) for words, n in Counter((row["verdict"], row["tone"]) for row in verdicts).items()],
        "contents": _contents(len(verdicts), len(figures)),
        "figures": figures,
        "files": [(file, _href(folder, file)) for file in _other_files(files)],
        "facts": [*shown, *([("date", run["date"])] if "date" in run else []), ("report", name)],
        "settings": [*fact_rows(rest), *((key, as_text(value)) for key, value in asked.items())],
        "versions": list(run.get("versions", {}).items()),
    }


def _rendered(markdown: str) -> str:
    from varlab.reports.page import markdown_html, take_offline  # nbconvert takes a second

    return take_offline(markdown_html(markdown)) if markdown else ""


def _contents(verdicts: int, figures: int) -> str:
    """What the folded part of an entry holds."""
    counted = [(verdicts, "verdict"), (figures, "figure")]
    return ", ".join([*(f"{n} {kind}{'s' * (n > 1)}" for n, kind in counted if n), "settings"]).capitalize()


def _figures(folder: Path, files: list[str], data: str) -> list[dict[str, Any]]:
    """The PNG files, each with the same figure's PDF and numbers; `data` tells what they are drawn from."""
    figures = []
    for png in (file for file in files if file.endswith(".png")):
        kinds = [(suffix.upper(), png.removesuffix("png") + suffix) for suffix in ("pdf", "svg", "csv")]
        links = [(kind, _href(folder, file)) for kind, file in kinds if file in files]
        title = Path(png).stem.replace("_", " ").replace("-", " ")
        figures.append({"png": _href(folder, png), "title": title, "alt": f"{title}: {data}", "links": links})
    return figures


def _other_files(files: list[str]) -> list[str]:
    """Tables and documents that belong to no figure."""
    drawn = {file.removesuffix(".png") for file in files if file.endswith(".png")}
    return [file for file in files if file.endswith((".csv", ".pdf")) and file.rsplit(".", 1)[0] not in drawn]


def _href(folder: Path, file: str) -> str:
    return quote(f"{folder.name}/{file}")
