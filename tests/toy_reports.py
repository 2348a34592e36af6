"""What test_reports.py and test_report_failures.py share."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """\
"What this notebook takes."
n: int = 8  # images per prompt
tau: float = 0.6  # threshold
model: str = "mini"
quick: bool = False
sizes: list[int] = [1, 2]
taus: list[float] | None = None  # none for the usual ones
limit: int | None = None
report_folder: str = "reports/toy"
"""


BODY = """\
import sys, warnings
from pathlib import Path
import matplotlib.pyplot as plt
from IPython.display import HTML, Latex, display
from varlab.claims import Outcome, Verdict
from varlab.reports import record
fig, ax = plt.subplots(figsize=(2, 1)); ax.plot([1, 2])
folder = Path(report_folder)
for kind in ("png", "pdf"):
    fig.savefig(folder / f"line_plot.{kind}")
(folder / "line_plot.csv").write_text("x")
(folder / "summary.csv").write_text("x")
plt.show()
print("kernel", sys.version_info[:2], sys.executable)
print("values", n, tau, model, quick, sizes, taus, limit)
print("places", Path.cwd(), folder.resolve())
warnings.warn("a warning with a place")
display(HTML('<script src="https://evil.example/x.js"></script><link rel="stylesheet" href="https://f.example/a">'
  '<style>@import url(https://f.example/b); p {background: url("//f.example/c")}</style><b>kept bold</b>'
  '<iframe src="//f.example/d"></iframe><p style="background:url(https://f.example/e)">kept words</p>'))
display(Latex(r"$$\\alpha^2$$"))
record(model=model, weights="toy weights", n=n, seed=0, verdicts=[
  Verdict("Late <scales> are cheap", Outcome.HOLDS, "3 %"),
  Verdict("Nothing is lost", Outcome.FAILS, "4 dB")])
"""


INTRO = """\
# Late scales & their `energy`

Residuals, e.g. those of Fig. 2, hold **little** energy $r_k^2$. A second sentence links [a
paper](https://paper.example/1).

![far](https://f.example/picture.png) ![near](dot.png)

$$\\frac{1}{N}\\sum_i x_i$$
"""


DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def write_notebook(path: Path, *cells: nbformat.NotebookNode, parameters: str | None = PARAMETERS) -> Path:
    tagged = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    metadata = {"kernelspec": {"name": "somewhere-else", "display_name": "x", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[*cells[:1], *tagged, *cells[1:]], metadata=metadata), path)
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "toy.ipynb", new_markdown_cell(INTRO), new_code_cell(BODY))
