"""Tables of the command line lose nothing, however narrow the terminal, and files hold them in full width."""

import pandas as pd
from rich.console import Console
from typer.testing import CliRunner

from varlab.cli import app
from varlab.cli.options import as_table

FRAME = pd.DataFrame({f"column {i}": ["abcdefghijklmnopqrstuvwxyz"] for i in range(10)})


def shown(width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(as_table(FRAME))
    return captured.get()


def test_a_narrow_terminal_wraps_cells_and_drops_no_letter() -> None:
    narrow = shown(80)
    assert "…" not in narrow and max(map(len, narrow.splitlines())) <= 80
    assert sum(narrow.count(letter) for letter in "qxyz") == 4 * 10


def test_models_end_no_line_in_blanks() -> None:
    lines = CliRunner().invoke(app, ["models"]).output.splitlines()
    assert len(lines) > 20 and not [line for line in lines if line != line.rstrip()]
