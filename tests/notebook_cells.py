"""A notebook's code cells, run in this process: as its report runs them, without a kernel that imports all again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from varlab.reports import list_notebooks, notebook_parameters
from varlab.reports.facts import FOLDER_VARIABLE, read_facts
from varlab.reports.notebooks import read_notebook

DISPLAY = ("display.html.use_mathjax", "display.max_colwidth", "display.max_columns")  # set for a whole kernel


@dataclass(frozen=True)
class Ran:
    """``asked``: figures that the cells save; ``shown``: the Markdown that they display."""

    facts: dict[str, Any]
    asked: int
    shown: str


def run_cells(name: str, given: dict[str, Any], folder: Path) -> Ran:
    """Run a notebook with some of its parameters given; its figures, tables and facts go to ``folder``."""
    notebook = list_notebooks()[name]
    declared = notebook_parameters(notebook)
    assert given.keys() <= declared.keys()
    values = {key: parameter.default for key, parameter in declared.items()} | given
    values["report_folder"] = str(folder)
    cells = [cell for cell in read_notebook(notebook).cells if cell.cell_type == "code"]
    shown: list[Any] = []
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, pd.option_context(*_as_they_are()):
        patch.setenv(FOLDER_VARIABLE, str(folder))
        patch.setattr("IPython.display.display", lambda *things: shown.extend(things))
        for cell in cells:
            if "parameters" not in cell.metadata.get("tags", []):
                exec(compile(cell.source, name, "exec"), values)
    plt.close("all")
    facts = read_facts(folder)
    asked = sum(cell.source.count("figures.save(") for cell in cells)
    if any("claim_figures(" in cell.source for cell in cells):
        asked += len(facts["verdicts"])
    texts = (getattr(thing, "data", None) for thing in shown)  # of a picture: bytes
    return Ran(facts, asked, "\n".join(text for text in texts if isinstance(text, str)))


def _as_they_are() -> list[Any]:
    return [part for name in DISPLAY for part in (name, pd.get_option(name))]
