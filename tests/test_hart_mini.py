"""An untrained mini of HART through everything that a mini is for: notebooks, comparison, calibration, benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import varlab as vl
from tests.conftest import hart_features, tiny_hart
from tests.minis import refused
from tests.notebook_cells import run_cells
from varlab.accelerators import build
from varlab.accelerators.sparsevar import SparseVAR
from varlab.engine.hooks import Probe
from varlab.engine.loop import Run
from varlab.engine.plan import Selection
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.evaluation.command import score_command
from varlab.models.hart_model import Hart
from varlab.models.hart_settings import HartSettings
from varlab.probes import PROBES
from varlab.reports import run_report
from varlab.schedules import square
from varlab.studies.calibration import skipvar
from varlab.studies.calibration.command import calibrate_command
from varlab.training.recipes import MINI_HART
from varlab.weights import zoo
from varlab.weights.embedded import save_mini

NOTEBOOKS = ("01_residual_spectra", "02_block_token_mse", "03_branch_divergence", "04_step_redundancy", "20_compare")
SMALL = replace(
    MINI_HART,
    schedule=square((1, 2, 3, 4, 5, 6, 7, 8), "small"),
    transformer=replace(
        MINI_HART.transformer, depth=4, width=32, heads=2, stages=8, diffusion_width=16, diffusion_depth=1
    ),
    tokenizer=replace(MINI_HART.tokenizer, channels=8),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    parts = SMALL.parts(SMALL.new_tokenizer(), SMALL.new_transformer())
    save_mini(folder / "mini-hart", parts, SMALL.schedule, SMALL.settings, {"image_size": 32})
    return folder


@pytest.fixture(autouse=True)
def place(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARLAB_DATA", str(data))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def logged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with all probes, which all motivation notebooks open."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARLAB_DATA", str(data))
        tree = vl.log("mini-hart", n=4, folder=folder)
    assert set(tree.attrs["probes"]) == set(PROBES) and len(tree.children) >= len(PROBES)
    return folder


@pytest.mark.parametrize("name", NOTEBOOKS[1:3])
def test_a_notebook_runs_on_it_and_saves_its_figures(name: str, logged: Path, tmp_path: Path) -> None:
    """The slow test takes the runner."""
    maps = {"map_prompts": [1]} if name.startswith("02") else {}
    ran = run_cells(name, {"model": "mini-hart", "n": 4, "run_folder": str(logged), **maps}, tmp_path)
    assert ran.asked and len(list(tmp_path.glob("*.png"))) == ran.asked and ran.facts["model"] == "mini-hart"


def test_a_finished_run_knows_the_familys_own_settings(logged: Path) -> None:
    own = SMALL.settings.smooth
    assert vl.log("mini-hart", n=4, folder=logged, smooth=own).attrs["n"] == 4
    refused(lambda: vl.log("mini-hart", n=4, folder=logged, smooth=not own), "another run", "settings")
    refused(lambda: vl.log("mini-hart", n=4, folder=logged, smoth=True), "Did you mean smooth")


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_report_on_it_has_its_page(name: str, tmp_path: Path) -> None:
    notebook = Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb"
    report = run_report(notebook, {"model": "mini-hart", "n": 6}, tmp_path / "reports")
    assert "mini-hart" in report.html.read_text()


def test_methods_and_controls_in_one_table() -> None:
    specs = [
        "sparsevar:keep=0.4,last=2", "fastvar:ratios=0.5,drop=1,first=1", "skipvar-hybrid",
        "random-tokens:keep=0.4,last=2", "truncate:last=1", "cfg-off:last=2",
        "sparsevar:keep=0.4,last=2+cfg-off:last=1",
    ]  # fmt: skip
    found = vl.compare("mini-hart", "scenes", specs, n=2, batch=2, frontier=False)
    assert found.table.engaged.drop("none").all() and (found.table.work_ratio.drop("none") < 1).all()
    assert found.facts["family"] == "hart" and found.table.psnr.drop("none").notna().all()


def test_calibrations_say_what_fits(tmp_path: Path) -> None:
    """SparseVAR's scoring block, which no source gives for HART, and own decision models of SkipVAR."""
    model = zoo.load("mini-hart")
    texts = tmp_path / "four.txt"
    texts.write_text("a red star\na blue ring\na star\na green circle\n")
    given = "sparsevar", model, str(texts), None, None, 0, tmp_path / "sparse"
    tables, text = calibrate_command(*given, lambda *_: None)
    assert "at block" in text and set(tables[-1].block) == {1, 2, 3, 4}
    tables, _ = calibrate_command("skipvar", model, "scenes", 6, 2, 0, tmp_path / "skip", lambda *_: None)
    assert json.loads((tmp_path / "sparse" / "sparsevar-edges.json").read_text())["n"] == 4  # also where none was given
    assert json.loads((tmp_path / "skip" / "skipvar-accuracy.json").read_text())["targets"] == [*skipvar.TARGETS]
    written = json.loads((tmp_path / "skip" / "skipvar.json").read_text()).values()
    assert {entry["family"] for entry in written} == {"hart"}
    decided = vl.sample(model, ["a red star"] * 3, accelerators=f"skipvar:model={tmp_path / 'skip' / 'skipvar.json'}")
    assert len(decided.images) == 3


@pytest.mark.parametrize("text", ["features", "random", "flan-t5-xl", lambda prompts: prompts])
def test_no_other_text_encoder_is_taken(text: object) -> None:
    refused(lambda: zoo.load("mini-hart", text=text), "captions of its card", "leave text=")  # type: ignore[arg-type]
    assert zoo.load("mini-hart", text="captions").text is not None


def test_the_scene_score_of_an_untrained_one_is_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame, _ = score_command("scenes", zoo.load("mini-hart"), 6, 1, 0, None, lambda *_: None)
    overall = frame[frame.category == "overall"].set_index("source")
    assert overall["mean"]["samples"] < 0.1 < overall["mean"]["ground truth"]
    assert overall.n["samples"] == 6


# Fills reach the diffusion head


class Codes(Probe):
    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.maps.append(codes.flatten(2).mT)


class Watching(SparseVAR):
    """SparseVAR that keeps what it chose at the last stage."""

    name = "watching"
    filled: tuple[Selection, Tensor]

    def complete(self, stage: Stage, codes: Tensor, selection: Selection) -> Tensor:
        self.filled = (selection, codes)
        return super().complete(stage, codes, selection)


def hart(**changes: object) -> Hart:
    return tiny_hart("long", settings=replace(HartSettings(cfg=2.0, top_k=20), **changes))  # type: ignore[arg-type]


def test_sparsevar_fills_code_and_residual_from_the_anchor() -> None:
    """A filled position shows its anchor's whole value, the discrete code with the diffusion residual, before phi."""
    model, probe, method = hart(), Codes(), Watching(keep=0.3, last=2)
    Run(model, model.settings, SeededNoise(1), [probe]).generate(hart_features(3), (0,), [method])
    selection, computed = method.filled
    table = model.tokenizer.quantize.embedding.weight
    assert torch.cdist(computed[0], table).min(-1).values.min() > 1e-3  # no bare code: each carries a residual
    mask = selection.mask if selection.mask.ndim == 2 else selection.mask[None]
    source, _ = method._sources(Stage(7, model.schedule, (0,), None, None, True), mask)  # type: ignore[arg-type]
    last, place = probe.maps[-1][0], (mask.cumsum(-1) - 1)[0]
    assert torch.equal(last, computed[0][place[source[0]]])
    assert (~mask).any() and torch.equal(last[~mask[0]], last[source[0][~mask[0]]])


def test_replacing_the_unconditional_branch_reaches_the_diffusion_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hart()
    seen: list[tuple[int, float]] = []
    draw = model.transformer.diffloss.sample

    def watched(hidden: Tensor, batch: int, extra: float, *rest: object) -> Tensor:
        seen.append((len(hidden) // batch, extra))
        return draw(hidden, batch, extra, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model.transformer.diffloss, "sample", watched)
    for specs in ((), ("cfg-off:last=1",), ("skipvar-hybrid:drop=0,replace=1",)):
        Run(model, model.settings, SeededNoise(1)).generate(hart_features(3), (0,), build(specs))
    assert [rows for rows, _ in seen] == [2, 1, 1]
    assert seen[0][1] > 0 and seen[1][1] == seen[2][1] == 0.0
