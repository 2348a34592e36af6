"""Figures drawn again from what was stored: the same bytes, fonts embedded, sizes of a page, a manifest."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import varlab as vl
from tests.minis import nano  # noqa: F401  (a fixture)
from tests.toy_logs import toy_images, toy_log
from varlab.analysis.measured import Measured, read_measured
from varlab.claims.ledger import claims_folder
from varlab.claims.verdict import Number, Outcome, Verdict
from varlab.errors import VarlabError
from varlab.figures import redraw
from varlab.figures.counterparts import IN_REPORTS, MIRRORS, WITHOUT
from varlab.figures.sources import OF_COMPARISONS, OF_LOGS, OF_TABLES, drawings
from varlab.figures.style import figure_of
from varlab.models.base import NextScaleModel
from varlab.reports import find_notebook
from varlab.reports.facts import FOLDER_VARIABLE, save_tables
from varlab.runs.folders import write_log


def stored(folder: Path, *groups: str, stages: int = 6) -> Path:
    """A toy log with some of its groups, and its pictures, as a run leaves them."""
    tree = toy_log(n=4, stages=stages)
    for name in list(tree.children):
        if groups and name not in groups:
            del tree[name]
    tree.attrs = {**tree.attrs, "n": 4}
    write_log(folder, tree)
    (folder / "images").mkdir()
    for i, picture in enumerate(toy_images(4)):
        picture.save(folder / "images" / f"{i:06d}.png")
    return folder


@pytest.fixture(scope="module")
def compared(nano: NextScaleModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    specs = ["sparsevar:keep=0.5,last=1", "truncate:last=1"]
    found = vl.compare(nano, "scenes", specs, n=2, batch=2, frontier=False, stages_of=1)
    return found.save(tmp_path_factory.mktemp("compared") / "saved")


@pytest.fixture(scope="module")
def drawn(compared: Path) -> list[Path]:
    return redraw([compared], compared.parent / "drawn", formats=["png"])


def test_a_second_call_gives_the_same_bytes(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", "step-redundancy")
    first, second = (redraw([run], tmp_path / name) for name in "ab")
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.name for path in first} == {
        *(f"{name}.{end}" for name in ("step_redundancy", "saturation") for end in ("pdf", "png", "svg")),
        "figures.json",
    }  # fmt: skip
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_nothing_is_cut_off_at_the_edges_of_a_figure(drawn: list[Path]) -> None:
    """What reaches beyond a page leaves ink on its outermost pixels."""
    paths = [path for path in drawn if path.suffix == ".png"]
    assert len(paths) > 6
    for path in paths:
        page = np.asarray(Image.open(path).convert("L"))
        assert min(edge.min() for edge in (page[0], page[-1], page[:, 0], page[:, -1])) > 200, path.name


def test_fonts_are_embedded_and_widths_those_of_a_page(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", "branch-divergence")
    for columns, width in ((1, 3.25), (2, 6.75)):
        redraw([run], tmp_path / f"{columns}", columns=columns, formats=["pdf"])
        for file in (tmp_path / f"{columns}").glob("*.pdf"):
            text = file.read_bytes()
            box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", text)
            assert box is not None and float(box[1]) / 72 == pytest.approx(width, abs=0.01), file.name
            assert b"/CIDFontType2" in text and b"/Type3" not in text  # Type 42, as conferences ask for
            assert b"CreationDate" not in text


def test_talks_and_posters_have_larger_letters(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", "step-redundancy")
    sizes = {}
    for style in ("paper", "talk", "poster"):
        redraw([run], tmp_path / style, style=style, formats=["png"])
        with Image.open(tmp_path / style / "saturation.png") as picture:
            sizes[style] = picture.width
    assert sizes["talk"] == pytest.approx(1.6 * sizes["paper"], abs=2)
    assert sizes["poster"] == pytest.approx(2.6 * sizes["paper"], abs=2)


def test_a_comparison_is_drawn_from_its_folder(drawn: list[Path]) -> None:
    names = {path.stem for path in drawn if path.suffix == ".png"}
    assert names == {"tradeoff_work", "tradeoff_speed", "difference_spectrum", "side_by_side", "difference",
                     "sensitive_prompts", "stage_pictures", "keep_maps-01"}  # fmt: skip


def test_the_manifest_says_what_each_figure_shows(drawn: list[Path]) -> None:
    record = json.loads(drawn[-1].read_text("utf-8"))
    shown = {figure["figure"]: figure for figure in record["figures"]}
    assert "method figure" in shown["keep_maps-01"]["mirrors"] and "none" in shown["difference_spectrum"]["mirrors"]
    assert shown["tradeoff_work"]["data"]["model"] == "nano-infinity"
    assert all(figure["question"].endswith((".", "?")) for figure in record["figures"])
    assert record["without"] == WITHOUT and all(WITHOUT.values())
    assert record["in reports"] == IN_REPORTS and not set(IN_REPORTS) & set(WITHOUT)


def test_what_reports_draw_is_drawn_by_them() -> None:
    """Each line names a notebook and a figure that it saves, or a table that it shows."""
    for text in IN_REPORTS.values():
        for part in text.split("; "):
            notebook = re.search(r"\d\d_\w+", part)
            assert notebook is not None, part
            source = find_notebook(notebook[0]).read_text("utf-8")
            figure = re.search(r"(samples_by_exit|tradeoff|ablation)", part)
            assert figure is None or figure[0] in source, part


def test_every_counterpart_is_a_figure() -> None:
    names = {drawing.name for drawing in (*OF_LOGS, *OF_COMPARISONS, *OF_TABLES)} | {"keep_maps", "decisions", "claim"}
    names |= {drawing.name for model in ("mini-infinity", "mini-var-freqexit") for drawing, _ in drawings(study(model))}
    assert set(MIRRORS) <= names


def study(model: str) -> Path:
    return claims_folder() / "runs" / model


def test_a_study_is_drawn_by_axis_and_by_pair_of_axes() -> None:
    names = [drawing.name for drawing, _ in drawings(study("mini-hart"))]
    assert names == [f"sparsevar_{axis}" for axis in
                     ("tau", "matched_tau", "alpha", "last", "block", "tau_alpha", "stages_blocks")]  # fmt: skip


def test_the_claims_of_a_report_are_drawn_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its page shows them, without the log: the same numbers, verdict and provenance; letters fit in every style."""
    report, log = tmp_path / "report", toy_log(n=4)
    report.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(report))
    number = Number("SSIM minus that of the best baseline", 0.015, 0.01, 0.02, 32, margin=0.002)
    claims = [Verdict(f"Claim {i} keeps more of the image than any baseline at its work", outcome, "SSIM 0.986.",
                      numbers=(number,)) for i, outcome in enumerate((Outcome.HOLDS, Outcome.WIDE))]  # fmt: skip
    vl.figures.claim_figures(claims, log)
    losses = read_measured(claims_folder().parent / "mini-var-freqexit", "ablation")
    save_tables(recipes=Measured(losses.table[losses.table.exits == "6"], losses.facts))
    shown, *again = [figure_of(draw()) for _, draw in drawings(report)]
    assert [drawing.name for drawing, _ in drawings(report)] == ["recipes", "claim-1", "claim-2"]
    assert [text.get_text() for text in shown.axes[0].get_yticklabels()] == list(dict.fromkeys(losses.table.recipe))
    first = figure_of(vl.figures.forest(claims[0], log))
    assert [text.get_text() for text in again[0].findobj(Text)] == [text.get_text() for text in first.findobj(Text)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # letters that leave no room for the axes
        redraw([report], tmp_path / "out", style="poster", formats=["png"])
    (report / "claims.json").write_text("{}")
    with pytest.raises(VarlabError, match="damaged"):
        redraw([report], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"style": "papr"}, "paper"), ({"formats": ["pfd"]}, "pdf"), ({"columns": 3}, "1")],
)
def test_unknown_options_are_refused_before_anything_is_drawn(tmp_path: Path, options: dict, message: str) -> None:
    run = stored(tmp_path / "run", "step-redundancy")
    with pytest.raises(VarlabError, match=message):
        redraw([run], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_there_stays(tmp_path: Path) -> None:
    run, out = stored(tmp_path / "run", "step-redundancy"), tmp_path / "out"
    out.mkdir()
    (out / "saturation.png").write_bytes(b"mine")
    with pytest.raises(VarlabError, match="exists"):
        redraw([run], out, formats=["png"])
    assert [path.name for path in out.iterdir()] == ["saturation.png"]
    with pytest.raises(VarlabError, match="neither a run nor a comparison"):
        redraw([out], tmp_path / "other")


def test_what_holds_nothing_to_draw_is_passed_over_and_named(tmp_path: Path) -> None:
    """All that lies in a folder of reports can be given at once; a folder of something else is refused as before."""
    run = stored(tmp_path / "run", "step-redundancy")
    for name, file in (("40_claims", "facts.json"), ("tuning/mini", "card.json"), ("mine", "notes.txt")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
    (tmp_path / "index.html").write_text("")
    ours = [tmp_path / "index.html", run, tmp_path / "40_claims", tmp_path / "tuning"]
    with pytest.warns(UserWarning, match=r"nothing of their own to draw: index.html, 40_claims, tuning\."):
        made = redraw(ours, tmp_path / "out", formats=["png"])
    assert [path.stem for path in made] == ["step_redundancy", "saturation", "figures"]
    assert json.loads(made[-1].read_text())["passed over"] == ["index.html", "40_claims", "tuning"]
    for refused in ([*ours, tmp_path / "mine"], [*ours, tmp_path / "gone"], [tmp_path / "40_claims"]):
        with pytest.raises(VarlabError, match=f"{refused[-1].name} holds neither"):
            redraw(refused, tmp_path / "other")
    assert not (tmp_path / "other").exists()


WITHOUT_TORCH = """
import sys
class Without:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "torch":
            raise ImportError("no torch here")
sys.meta_path.insert(0, Without())
from varlab.cli import main
main()
"""


def test_without_torch_the_pictures_are_the_same(compared: Path, drawn: list[Path], tmp_path: Path) -> None:
    run = stored(tmp_path / "run", "residual-spectrum", "token-mse", stages=3)
    call = [sys.executable, "-c", WITHOUT_TORCH, "figures", str(run), str(compared), "--format", "png", "--out"]
    said = subprocess.run([*call, str(tmp_path / "without")], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    names = {file.name for file in (tmp_path / "without").iterdir()}
    assert {f"run-{one.name}.png" for one in OF_LOGS if one.needs in ("residual-spectrum", "token-mse")} < names
    for file in drawn[:-1]:
        with Image.open(file) as ours, Image.open(tmp_path / "without" / f"saved-{file.name}") as other:
            assert ours.tobytes() == other.tobytes(), file.name
            assert ours.info["Description"] == other.info["Description"]
