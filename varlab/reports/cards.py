"""What the index shows of one report: its data, claim, verdicts, figures, and what it is filtered by."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from varlab.analysis.comparisons import BASELINES, family
from varlab.reports.facts import CLAIM_FIGURE, VIEWER, as_text, claim_figure, fact_rows, read_facts, tally, verdict_rows
from varlab.reports.headings import heading

DRAFT = "draft"  # the folder, within a report's own, of a run that goes on or stopped
FIRST = ("model", "weights", "n", "seed")  # what tells reports of one notebook apart
SPECS = ("methods", "shown", "dropping", "pruning")  # inputs of a notebook that are specs
PAPERS = ("SparseVAR", "SkipVAR", "FastVAR", "FreqExit")


def notebook_of(folder: Path) -> Path:
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


def card_of(folder: Path) -> dict[str, Any]:
    """All that the index shows of one report."""
    name, path = folder.name, notebook_of(folder)
    link = _href(folder, path.relative_to(folder).as_posix())
    card: dict[str, Any] = {"name": name, "notebook": link, "title": name, "model": "", "date": "", "verdicts": []}
    try:
        notebook = json.loads(path.read_text("utf-8"))
        title, claim = heading(notebook["cells"])
    except (ValueError, KeyError, TypeError):
        return card | {"error": "its notebook cannot be read.", "filter": _filter(card, {})}
    run, facts = notebook.get("metadata", {}).get("varlab", {}), read_facts(folder)
    asked, verdicts = run.get("parameters", {}), verdict_rows(facts)
    files = [file for file in run.get("files", []) if (folder / file).is_file()]
    known = {"weights": "not recorded"} | {name: asked[name] for name in FIRST if name in asked} | facts
    shown = fact_rows({name: known[name] for name in FIRST if name in known})
    figures = _figures(
        folder, files, [row["claim"] for row in verdicts], ", ".join(f"{name} {value}" for name, value in shown)
    )
    rest = {name: value for name, value in facts.items() if name not in FIRST}
    card |= {
        "title": title or name,
        "model": as_text(known.get("model", "")),
        "date": run.get("date", ""),
        "claim": _rendered(claim),
        "html": _href(folder, f"{name}.html") if (folder / f"{name}.html").is_file() else "",
        "viewers": [_href(folder, viewer.relative_to(folder).as_posix()) for viewer in _viewers(folder)],
        "error": _stopped(folder),
        "verdicts": verdicts,
        "tally": tally(verdicts),
        "contents": _contents(len(verdicts), len(figures)),
        "figures": figures,
        "claim_figures": [_claim_href(folder, i) for i in range(len(verdicts))],
        "files": [(file, _href(folder, file)) for file in _other_files(files)],
        "facts": [*shown, *([("date", run["date"])] if "date" in run else []), ("report", name)],
        "settings": [*fact_rows(rest), *((key, as_text(value)) for key, value in asked.items())],
        "versions": list(run.get("versions", {}).items()),
    }
    return card | {"filter": _filter(card, asked)}


def _viewers(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/{VIEWER}"))


def _filter(card: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the filters of the index look at."""
    claims = [row["claim"] for row in card["verdicts"]]
    words = {row["verdict"] for row in card["verdicts"]} | ({"stopped"} if card.get("error") else set())
    return {
        "models": card["model"].split(", ") if card["model"] else [],
        "methods": methods_of([card["title"], *claims], asked),
        "verdicts": sorted(words),
        "date": card["date"][:10],
        "text": " \n".join([card["title"], *claims]),
    }


def methods_of(texts: Sequence[str], asked: Mapping[str, Any]) -> list[str]:
    """The methods that a report is about: those of its specs, and those that its title and its claims name."""
    specs = [spec for name in SPECS if isinstance(asked.get(name), str) for spec in asked[name].split()]
    found = {family(part) for spec in specs for part in spec.split("+")} - {"none"}
    words = {word.lower() for word in re.findall(r"[A-Za-z][\w-]*", "\n".join(texts))}
    return sorted(found | {name for name in (*map(str.lower, PAPERS), *BASELINES) if name in words})


def _rendered(markdown: str) -> str:
    from varlab.reports.page import markdown_html, take_offline  # nbconvert takes a second

    return take_offline(markdown_html(markdown)) if markdown else ""


def _contents(verdicts: int, figures: int) -> str:
    """What the folded part of an entry holds."""
    counted = [(verdicts, "verdict"), (figures, "figure")]
    return ", ".join([*(f"{n} {kind}{'s' * (n > 1)}" for n, kind in counted if n), "settings"]).capitalize()


def _claim_href(folder: Path, row: int) -> str:
    path = claim_figure(folder, row)
    return _href(folder, path.name) if path else ""


def _is_claim(file: str) -> bool:
    return re.fullmatch(CLAIM_FIGURE.format(r"\d+") + ".png", file) is not None


def _figures(folder: Path, files: list[str], claims: list[str], data: str) -> list[dict[str, Any]]:
    """The PNG files, those of the claims first, each with the same figure's PDF and numbers; `data` tells what they are
    drawn from."""
    figures = []
    for png in sorted((file for file in files if file.endswith(".png")), key=lambda file: not _is_claim(file)):
        kinds = [(suffix.upper(), png.removesuffix("png") + suffix) for suffix in ("pdf", "svg", "csv")]
        links = [(kind, _href(folder, file)) for kind, file in kinds if file in files]
        title = Path(png).stem.replace("_", " ").replace("-", " ")
        if _is_claim(png) and (row := int(title.split()[-1]) - 1) < len(claims):
            title = claims[row]
        figures.append({"png": _href(folder, png), "title": title, "alt": f"{title}: {data}", "links": links})
    return figures


def _other_files(files: list[str]) -> list[str]:
    """Tables and documents that belong to no figure."""
    drawn = {file.removesuffix(".png") for file in files if file.endswith(".png")}
    tables = [file for file in files if file.endswith((".csv", ".pdf"))]
    return [file for file in tables if file.rsplit(".", 1)[0] not in drawn]


def _href(folder: Path, file: str) -> str:
    return quote(f"{folder.name}/{file}")
