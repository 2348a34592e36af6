"""The notebooks of the repository carry no results and say what they take: outputs live in reports, not in git."""

from pathlib import Path

import pytest

from varlab.reports import notebook_parameters
from varlab.reports.notebooks import read_notebook

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.rglob("*.ipynb"))
REPORTS = sorted(FOLDER.glob("*.ipynb"))  # what lies deeper is to be worked in, not run as a report


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped(path: Path) -> None:
    cells = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    left = [cell.source[:60] for cell in cells if cell.outputs or cell.execution_count is not None]
    assert not left, f"{path.name} has results; run `nbstripout {path}`. Cells: {left}"


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_notebook_declares_its_parameters(path: Path) -> None:
    parameters = notebook_parameters(path)  # refuses a notebook without a well-formed `parameters` cell
    assert "report_folder" in parameters, f"{path.name}: add `report_folder: str = 'reports/{path.stem}'`"
