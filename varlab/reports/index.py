"""`reports/index.html`: every report on one offline page, with an overview, filters, and claims against models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError
from varlab.reports.cards import DRAFT, card_of, notebook_of
from varlab.reports.facts import tally
from varlab.reports.style import render

__all__ = ["DRAFT", "write_index"]


def write_index(out: Path | str = "reports") -> Path:
    """Write `<out>/index.html` over every report folder in `out`; returns its path.

    A report without facts still has a card, which says that its weights were not recorded; a folder whose
    notebook cannot be read has a card that says so, as has one whose last run stopped.

    Errors: `out` is not a folder.
    """
    place = Path(out)
    if not place.is_dir():
        raise VarlabError(f"No reports folder at {place}.")
    cards = [card_of(folder) for folder in sorted(place.iterdir()) if notebook_of(folder).is_file()]
    claims = _claims(cards)
    models = sorted({model for row in claims for model in row["models"]})
    page = render("index", {"cards": cards, "overview": _overview(cards), "claims": claims, "models": models})
    index, draft = place / "index.html", place / f".index.{os.getpid()}.html"
    draft.write_text(page, "utf-8")
    draft.replace(index)  # a reader, or a second report ending now, never sees half a page
    return index


def _overview(cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was run, on which models and weights, what came of it, and the choices of the filters."""
    weights = {
        one for card in cards for name, value in card.get("facts", ()) if name == "weights" for one in value.split("; ")
    }
    return {
        "tally": tally([row for card in cards for row in card["verdicts"]]),
        "weights": sorted(weights),
        "models": sorted({model for card in cards for model in card["filter"]["models"]}),
        "methods": sorted({method for card in cards for method in card["filter"]["methods"]}),
        "verdicts": sorted({word for card in cards for word in card["filter"]["verdicts"]}),
        "claims": sorted({row["claim"] for card in cards for row in card["verdicts"]}),
    }


def _claims(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Claim by claim what each model said: for each model the verdicts of its reports. Those of a report on no model,
    such as the ledger's, stand in that report."""
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for card in (card for card in cards if card["model"]):
        for i, row in enumerate(card["verdicts"]):
            own = card["filter"] | {"verdicts": [row["verdict"]], "text": row["claim"]}
            rows.setdefault(row["claim"], {}).setdefault(card["model"], []).append(
                row | {"of": card, "filter": own, "figure": card["claim_figures"][i]}
            )
    return [{"claim": claim, "models": models} for claim, models in rows.items()]
