"""Comparisons: the dense row is the plain run, work is the ledger's, intervals pair prompts, mistakes stop early."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import varlab as vl
from varlab.accelerators.baselines import Truncate
from varlab.claims import Outcome, Verdict, methods
from varlab.claims.engagement import not_engaged
from varlab.comparison import Comparison, bench, compare, interleaved
from varlab.comparison.notes import fitted_notes
from varlab.comparison.untimed import drawn
from varlab.engine.dense import Dense
from varlab.engine.hooks import Accelerator, Compute
from varlab.engine.loop import Run
from varlab.engine.plan import StagePlan
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Site, Stage
from varlab.errors import VarlabError
from varlab.figures import difference_spectrum, difference_spectrum_table, save, side_by_side, tradeoff
from varlab.models.base import NextScaleModel
from varlab.runs import sample
from varlab.scenes.prompt_sets import dealt, digest_of

SPECS = ["truncate:last=1", "cfg-off:last=0", "oracle-tokens:keep=0.5,last=1", "truncate:last=1+cfg-off:last=2"]


@pytest.fixture(scope="module")
def model() -> NextScaleModel:
    return vl.load("nano-infinity")


@pytest.fixture(scope="module")
def beside() -> list[Sequence[int]]:
    """Images of the dense runs that were drawn for the oracle alone."""
    return []


@pytest.fixture(scope="module")
def compared(model: NextScaleModel, beside: list[Sequence[int]]) -> Comparison:
    plain = Run.dense_run

    def dense_run(run: Run, text: Any, samples: Sequence[int]) -> Dense:
        beside.append(samples)
        return plain(run, text, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "dense_run", dense_run)
        return compare(model, "scenes", SPECS, n=5, batch=2, seed=3, frontier=False)


def test_an_oracle_looks_at_the_dense_run_of_its_turn(compared: Comparison, beside: list[Sequence[int]]) -> None:
    """Drawn beside it only while the machine warms up, and in the turn that it begins itself."""
    first = compared.timings.query("turn == 0").method.tolist()
    assert beside == [[2, 3], [2, 3]] and first == [SPECS[2], SPECS[0], SPECS[1], SPECS[3], "none"]


def test_the_dense_row_is_the_plain_run(model: NextScaleModel, compared: Comparison) -> None:
    plain = sample(model, list(vl.prompts("scenes", n=5)), seed=3, batch=2)
    for ours, theirs in zip(compared.images["none"], plain.images, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    row = compared.table.loc["none"]
    assert row.work_ratio == row.speedup == row.ssim == 1 and np.isinf(row.psnr) and not row.engaged


def test_every_method_has_its_row_with_intervals(compared: Comparison) -> None:
    table = compared.table
    assert list(table.index) == ["none", *SPECS] and (table.n == 5).all() and (table.timings == 3).all()
    assert table[["speedup_low", "speedup_high", "transformer_ratio_low"]].isna().all().all()  # of three batches
    for name in ("ssim", "high_frequency_ssim", "psnr"):
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()
    assert len(compared.prompts) == 5 * 5 and len(compared.timings) == 3 * 5
    assert "score" not in table  # too few prompts to say


def test_work_is_what_the_ledger_counted(compared: Comparison) -> None:
    table = compared.table
    assert table.loc[SPECS[1]].work_ratio == 1 and not table.loc[SPECS[1]].engaged
    assert np.isnan(table.loc[SPECS[1]].efficiency)
    both, one = table.loc[SPECS[3]].work_ratio, table.loc[SPECS[0]].work_ratio
    assert both < one < 1
    dense, oracle = (compared.ledgers[name] for name in ("none", SPECS[2]))
    assert oracle.stages[-1].tokens == dense.stages[-1].tokens // 2
    assert oracle.decode_flops == dense.decode_flops  # its dense run is nobody's work


def test_decisions_of_all_batches_are_kept_and_read_back(compared: Comparison, tmp_path: Path) -> None:
    assert list(compared.logs) == [SPECS[2]]  # the others have nothing to tell
    folder = compared.save(tmp_path) / "decisions" / "03"
    for log in (compared.logs[SPECS[2]], vl.open_log(folder)):
        kept = log["oracle-tokens/stage-06"]["kept"]
        assert kept.sizes["prompt"] == 5 and (kept.mean(("y", "x")) == 0.5).all()
        assert (log["oracle-tokens"]["share"].isel(stage=-1) == 0.5).all()
        assert log.attrs["seed"] == 3 and log.attrs["accelerators"] == [SPECS[2]]


def test_it_reads_back_and_draws_from_its_folder(compared: Comparison, tmp_path: Path) -> None:
    compared.save(tmp_path)
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("method")
    assert table.loc[SPECS[0]].work_ratio == pytest.approx(compared.table.loc[SPECS[0]].work_ratio)
    facts = json.loads((tmp_path / "comparison.json").read_text())["facts"]
    assert facts["weights"].startswith("trained") and facts["seed"] == 3 and facts["batch"] == 2
    drawn = tradeoff(tmp_path)
    assert isinstance(drawn, Axes) and drawn.get_xlabel() == "speed-up over dense (n = 3 batches)"
    save(drawn, "tradeoff", folder=tmp_path)
    assert (tmp_path / "tradeoff.png").stat().st_size > 5000
    with pytest.raises(VarlabError, match="at least 100"):
        tradeoff(tmp_path, measure="score")


def test_pictures_and_their_differences_are_drawn(compared: Comparison, tmp_path: Path) -> None:
    drawn: dict[str, Axes | Figure] = {
        "side_by_side": side_by_side(compared),
        "difference": side_by_side(compared, difference=True),
        "difference_spectrum": difference_spectrum(compared),
    }
    for name, figure in drawn.items():
        save(figure, name, folder=tmp_path)
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    table = difference_spectrum_table(compared)
    assert set(table.method) == set(SPECS)
    assert (table[table.method == SPECS[1]]["mean"] == 0).all()  # the neutral setting differs nowhere


NOTES = [
    ({}, "2 of these 3 prompts"),
    ({"seed": 4}, "cannot be told"),  # its texts are others than these
    ({"prompt_set": "gone.txt"}, "cannot be told"),
    ({"prompt_set": None}, None),  # the official models do not say
]


@pytest.mark.parametrize(("changes", "noted"), NOTES)
def test_a_decision_model_that_saw_these_prompts_is_noted(changes: dict[str, object], noted: str | None) -> None:
    """Whatever the seed of the comparison, and never by an error: the pictures are drawn by then."""
    seen, unseen = dealt("scenes", 20, 5, 3)
    told = {"prompt_set": "scenes", "n": 20, "held_out": 5, "seed": 3, "texts": digest_of(seen)} | changes
    tree = xr.DataTree.from_dict({"/skipvar": xr.Dataset(), "/sparsevar": xr.Dataset()})
    tree["skipvar"].attrs["decision_model"] = {key: value for key, value in told.items() if value is not None}
    notes = fitted_notes({"skipvar:target=0.9": tree}, [*seen[:2], unseen[0]])
    assert [note.startswith("skipvar:target=0.9: ") and str(noted) in note for note in notes] == [True] * bool(noted)


def test_timings_are_counted_apart_from_prompts(model: NextScaleModel) -> None:
    found = compare(model, "scenes", ["truncate:last=1"], n=3, batch=2, timed=6, frontier=False)
    assert set(found.speed().batches) == {6} and "[" in found.speed()["speed-up"][1]  # two of three prompts, thrice
    assert (found.table.speedup_low <= found.table.speedup).all() and found.table.speedup.notna().all()
    one = compare(model, "scenes", n=3, batch=2, timed=1, frontier=False)
    assert one.timings.images.tolist() == [2]  # not the batch of one image that is left over


@pytest.mark.parametrize("timed", [1, 2, None])  # the machine warms up on a batch that is left, else on a timed one
def test_what_is_not_timed_is_drawn_the_same(model: NextScaleModel, compared: Comparison, timed: int | None) -> None:
    found = compare(model, "scenes", SPECS, n=5, batch=2, seed=3, frontier=False, timed=timed, stages_of=2)
    assert set(found.timings.turn) == {*range(timed or 3)} and (found.table.timings == (timed or 3)).all()
    assert (found.table.n == 5).all() and found.prompts.equals(compared.prompts)
    assert found.ledgers == compared.ledgers and [*found.logs] == [*compared.logs]
    for name, pictures in compared.images.items():
        assert [picture.tobytes() for picture in found.images[name]] == [picture.tobytes() for picture in pictures]
        for i, stages in enumerate(found.stages[name]):
            assert [*stages] == [*range(1, len(model.schedule) + (0 if "truncate" in name else 1))]
            assert i < 2 and stages[max(stages)].tobytes() == pictures[i].tobytes()
    (log,), (other,) = compared.logs.values(), found.logs.values()
    assert all(group.ds.drop_attrs().equals(other[group.path].ds.drop_attrs()) for group in log.subtree)


def test_progress_ends_where_the_machine_warmed_up_on_the_last_batch(model: NextScaleModel) -> None:
    seen = list[tuple[float, int]]()
    compare(model, "scenes", n=2, batch=1, timed=1, frontier=False, progress=lambda *done: seen.append(done))
    assert seen[-1] == (2, 2)


def test_methods_of_ones_own_act_without_the_clock_too(model: NextScaleModel) -> None:
    """One that wraps the sublayers with no plan of its own; one that plans each image by itself."""

    class Halved(Accelerator):
        blind = True

        def sublayer(self, site: Site, x: Tensor, compute: Compute) -> Tensor:
            return compute(x) / 2

    class Apart(Truncate):
        def plan(self, stage: Stage) -> list[StagePlan]:  # type: ignore[override]
            return [super().plan(stage)] * stage.batch

    own: dict[str, list[Accelerator]]
    own = {"none": [], "halved": [Halved()], "apart": [Apart(1)], "truncate": [Truncate(1)]}
    job, _ = bench.job_of(model, "scenes", 2, 0, {})
    found = dict(drawn(job, range(2), own))
    assert set(found) == set(own) and torch.equal(found["apart"].image, found["truncate"].image)
    alone = Run(model, job.settings, SeededNoise(0)).generate(job.text(range(2)), (0, 1), own["halved"])
    assert torch.equal(found["halved"].image, alone.image) and not torch.equal(alone.image, found["none"].image)


@pytest.mark.parametrize("timed", [0, -1])
def test_no_timed_batch_is_refused(model: NextScaleModel, tmp_path: Path, timed: int) -> None:
    with pytest.raises(VarlabError, match="timed"):
        compare(model, "scenes", SPECS, n=2, timed=timed, folder=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_decision_is_judged_by_its_held_out_prompts(compared: Comparison) -> None:
    def judged(**row: object) -> Verdict:
        tree = xr.DataTree.from_dict({"/skipvar": xr.Dataset()})
        tree["skipvar"].attrs["decision_model"] = {
            "accuracy": [{"model": "drop", "n_held_out": 100, "accuracy": 0.7} | row]
        }
        (verdict,) = methods.decisions(replace(compared, logs={"skipvar": tree}))
        return verdict

    known = judged(**{"gain": 0.1, "gain low": 0.05, "gain high": 0.2, "verdict": "holds"})
    assert known.outcome is Outcome.HOLDS and "best fixed answer is 0.10 (0.05 to 0.20)" in known.finding
    assert "fit it again" in judged().reason  # fitted before the gain was kept
    assert methods.decisions(compared) == []  # no row of SkipVAR


def test_some_rows_of_a_run_may_be_shown_apart(compared: Comparison) -> None:
    part = compared.only(SPECS[2])
    assert list(part.table.index) == list(part.images) == ["none", SPECS[2]] == list(part.prompts.method.unique())
    assert (part.speed().batches == 3).all() and (part.fidelity().n == 5).all()  # 5 prompts, two at a time
    assert list(part.logs) == [SPECS[2]] and set(part.timings.method) == {"none", SPECS[2]}
    assert part.speed().equals(compared.speed()[compared.speed().method.isin(part.table.index)].reset_index(drop=True))


def test_a_scene_score_comes_with_a_paired_interval(model: NextScaleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SCORE_FROM", 6)
    table = compare(model, "scenes", ["truncate:last=4"], n=6, batch=6, frontier=False).table
    assert table.loc["none"].score_delta == 0
    row = table.loc["truncate:last=4"]
    assert row.score_delta_low <= row.score_delta <= row.score_delta_high
    assert row.score_delta == pytest.approx(row.score - table.loc["none"].score)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["truncat"], "truncate"), (["skipvar"], "at least 8 stages"), (["sparsevar:block=8"], "not one of the 8"),
        (["fastvar+sparsevar"], "cannot run together"), (["truncate:last=6"], "leaves no stage"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_stop_before_the_first_image(
    model: NextScaleModel, specs: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaved, "Bench", None)
    with pytest.raises(VarlabError, match=message):
        compare(model, "scenes", specs, n=2)


def test_a_setting_that_hardly_leaves_anything_out_is_not_engaged(model: NextScaleModel) -> None:
    """tau near 0 excludes few tokens; the verdict names the tau at which these scores would exclude as many as the
    paper's."""
    spec = "sparsevar:tau=0.05,last=2"
    made = compare(model, "scenes", [spec, "sparsevar:keep=0.27,last=2"], n=2, batch=2, frontier=False)
    reason = not_engaged(made, spec)
    assert "It computed" in reason and "sparsevar:tau=" in reason and "keep=0.27" in reason
    assert not_engaged(made, "sparsevar:keep=0.27,last=2") == ""
    (verdict,) = [v for v in methods.verdicts(made) if v.claim.startswith(spec)]
    assert verdict.outcome is Outcome.NOT_ENGAGED and verdict.outcome.tone != "bad"
