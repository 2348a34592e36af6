"""Baselines are drawn once and kept; methods are judged by the best of them, listed or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import varlab as vl
from tests.conftest import tiny_hart, tiny_infinity
from tests.minis import nano  # noqa: F401  (a fixture)
from varlab.analysis.comparisons import is_baseline, read_frontier
from varlab.analysis.frontier import Frontier
from varlab.claims.methods import against_baselines, other_notes, verdicts
from varlab.claims.verdict import Outcome, Verdict
from varlab.comparison import Comparison, baselines, compare, frontier
from varlab.comparison.baselines import baseline_specs
from varlab.errors import VarlabError
from varlab.figures import save, tradeoff
from varlab.models.base import NextScaleModel
from varlab.models.guidance import Settings

METHOD, LISTED, UNLISTED = "sparsevar:keep=0.5,last=1", "random-tokens:keep=0.5,last=1", "truncate:last=1"


# --- judged -------------------------------------------------------------------------------------------------


def constructed(
    method: float, unlisted: float, n: int = 8, drawn: bool = True, engaged: bool = True, work: float = 0.6
) -> Comparison:
    """A method that keeps ``method`` at work .6, a listed baseline that it beats, and one on the frontier alone.

    Every prompt has its own level, shared by all, and a little noise of its own in each.
    """
    rng, levels = np.random.default_rng(0), {"none": 1.0, METHOD: method, LISTED: 0.7}
    works = {"none": 1.0, METHOD: work, LISTED: 0.6}

    def values(spec: str, level: float) -> np.ndarray:
        return np.ones(n) if spec == "none" else level + 0.002 * rng.normal(size=n)

    rows = [{"method": spec, "ssim": value} for spec, level in levels.items() for value in values(spec, level)]
    table = pd.DataFrame({"work_ratio": works, "n": n, "timings": 3, "engaged": engaged})
    table = table.assign(
        speedup=1.5, speedup_low=1.4, speedup_high=1.6, ssim=pd.Series(levels), ssim_low=0.0, ssim_high=1.0
    )
    kept = [
        {"baseline": spec, "prompt": i, "flops": flops, "ssim": value}
        for spec, flops, level in [("none", 100, 1.0), (UNLISTED, 50, unlisted)]
        for i, value in enumerate(values(spec, level))
    ]
    line = Frontier(pd.DataFrame(kept), {}) if drawn else None
    return Comparison(table, pd.DataFrame(rows), pd.DataFrame(), {}, {}, {}, {}, line)


def only(compared: Comparison) -> Verdict:
    (verdict,) = verdicts(compared)
    return verdict


def test_an_unlisted_baseline_that_keeps_more_decides() -> None:
    verdict = only(constructed(0.9, 0.93))
    assert verdict.outcome is Outcome.FAILS
    assert (
        "] below truncate:last=1, the best baseline at equal or less work (work 0.50 against 0.60)" in verdict.finding
    )
    assert ", 0.03" in verdict.finding and "-0.0" not in verdict.finding  # how far below, not a negative way
    assert verdict.numbers[0].estimate == pytest.approx(-0.03, abs=0.003) and verdict.numbers[0].high < 0


def test_a_distance_that_rounds_to_none_is_neither_above_nor_below() -> None:
    finding = only(constructed(0.9, 0.9, n=1000)).finding
    assert "level (0.000 [0.000, 0.000]) with truncate:last=1, the best baseline" in finding and "-0.000" not in finding


def test_a_method_must_beat_the_mix_at_its_work_too() -> None:
    """.91 against .90 at less work; but .6 of the work is truncate on 80 % of the images: .92."""
    verdict = only(constructed(0.91, 0.9))
    assert verdict.outcome is Outcome.FAILS
    assert (
        verdict.finding.count("above truncate:last=1") == 1
        and ". Against the best mix at equal work" in verdict.finding
    )
    assert "below: truncate:last=1 on 80 % of the images, dense on the rest" in verdict.finding
    assert [round(number.estimate, 2) for number in verdict.numbers] == [0.01, -0.01] and "mix of two" in verdict.reason
    assert only(constructed(0.95, 0.9)).outcome is Outcome.HOLDS
    assert only(constructed(0.92, 0.9)).outcome is Outcome.NO_DIFFERENCE  # within .002 of the mix


def test_where_nothing_can_be_told() -> None:
    assert only(constructed(0.95, 0.9, n=5)).outcome is Outcome.TOO_FEW
    assert only(constructed(0.95, 0.9, engaged=False)).outcome is Outcome.NOT_ENGAGED
    cheap = only(constructed(0.95, 0.9, work=0.4))
    assert cheap.outcome is Outcome.NOT_COMPARABLE and "No baseline computes as little" in cheap.reason
    wide = constructed(0.92, 0.9)
    spread = wide.prompts.ssim + np.where(wide.prompts.method == METHOD, 0.1 * np.tile([1, -1], 12), 0)
    assert only(replace(wide, prompts=wide.prompts.assign(ssim=spread))).outcome is Outcome.WIDE


def test_listed_baselines_alone_do_not_carry_a_yes() -> None:
    kept = only(constructed(0.95, 0.9, drawn=False))
    assert kept.outcome is Outcome.NOT_COMPARABLE and "was not drawn" in kept.reason
    assert only(constructed(0.65, 0.9, drawn=False)).outcome is Outcome.FAILS


def test_a_finding_says_that_its_decision_model_knows_these_prompts() -> None:
    """What flatters a method stands with its numbers; what concerns no single method is left for the reader."""
    compared, own = (
        constructed(0.9, 0.93),
        "6 of these 8 prompts are among the 300 that its decision model was fitted on.",
    )
    compared.facts["notes"] = [f"{METHOD}: {own}", "sparsevar:keep=0.25: other", "Timed in 2 sittings."]
    assert only(compared).finding.endswith(f" n = 8. {own}")
    assert other_notes(compared) == ["sparsevar:keep=0.25: other", "Timed in 2 sittings."]


def test_who_is_a_baseline() -> None:
    assert all(map(is_baseline, ["none", "truncate:last=1+cfg-off:last=3", LISTED]))
    assert not any(map(is_baseline, [METHOD, "truncate:last=1+sparsevar", "oracle-tokens:keep=0.5,last=1"]))
    assert is_baseline("oracle-tokens:keep=0.5", "oracle-tokens")


# --- drawn and kept -----------------------------------------------------------------------------------------


def test_the_grid_is_what_schedule_and_guidance_allow() -> None:
    square, long = tiny_infinity(), tiny_infinity("long")  # four and eight stages
    found = baseline_specs(long, long.settings)
    assert len(found) == len(set(found)) == 18 + 6 and found[0] == "none"
    assert "truncate:last=3+cfg-off:last=5" in found and "truncate:last=3+cfg-off:last=3" not in found
    few = baseline_specs(square, square.settings)
    assert "truncate:last=3" in few and not any("last=4" in spec or "last=5" in spec for spec in few)
    plain = baseline_specs(long, Settings(cfg=1.0))
    assert not any("cfg-off" in spec for spec in plain) and sum("truncate" in spec for spec in plain) == 3
    hart = tiny_hart()
    assert "cfg-off:last=3" in baseline_specs(hart, hart.settings)


def test_a_comparison_draws_its_frontier_once(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "AT_ONCE", 4)
    found = compare(nano, "scenes", [METHOD, "truncate:last=2"], n=6, batch=3, seed=5)
    assert found.frontier is not None and set(found.frontier.specs) == set(baseline_specs(nano, nano.settings))
    place = Path(found.frontier.facts["folder"])
    assert place.parent == Path("runs") and sorted(path.name for path in place.iterdir()) == [
        "baselines-000000.csv", "baselines-000003.csv", "frontier.json",
    ]  # fmt: skip
    listed = found.prompts[found.prompts.method == "truncate:last=2"]
    for measure in ("ssim", "psnr", "high_frequency_ssim"):
        kept = found.frontier.values(measure).loc["truncate:last=2"]
        assert kept.to_numpy() == pytest.approx(listed[measure].to_numpy(), rel=1e-4)
    work = found.table.work_ratio["truncate:last=2"]  # of other batches, whose texts are padded to other lengths
    assert found.frontier.works()["truncate:last=2"] == pytest.approx(work, abs=0.002)
    assert found.frontier.facts["weights"] == nano.weights and found.frontier.facts["seed"] == 5
    pairs = against_baselines(found)
    assert set(pairs.method) == {METHOD} and (pairs.work_baseline <= pairs.work + 0.005).all()
    (verdict,) = verdicts(found)
    assert verdict.outcome in (Outcome.HOLDS, Outcome.FAILS, Outcome.WIDE, Outcome.NO_DIFFERENCE)
    monkeypatch.setattr(baselines, "shared_runs", None)  # nothing is drawn again
    again = frontier(nano, "scenes", n=6, seed=5)
    assert again.prompts.equals(found.frontier.prompts)
    folder = found.save(tmp_path / "saved")
    saved = read_frontier(folder)
    assert saved is not None
    pd.testing.assert_frame_equal(saved.prompts, found.frontier.prompts)
    save(tradeoff(folder, against="work_ratio"), "tradeoff", folder=folder)
    assert (folder / "tradeoff.png").stat().st_size > 5000


def test_a_frontier_is_kept_by_all_that_decides_it(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "baseline_specs", lambda model, settings: ["none", "truncate:last=3"])
    monkeypatch.chdir(tmp_path)
    kept = {
        frontier(nano, "scenes", n=2, **given).facts["folder"]
        for given in ({}, {"seed": 1}, {"cfg": 4.0}, {"tau": 0.5})
    }
    kept.add(frontier(nano, ["a red star", "a blue ring"], n=2).facts["folder"])
    kept.add(frontier(vl.load("nano-infinity", init="random"), "scenes", n=2).facts["folder"])
    assert len(kept) == 6
    with pytest.raises(VarlabError, match="another frontier"):
        frontier(nano, "scenes", n=2, seed=2, folder=next(iter(kept)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(VarlabError, match="holds no frontier"):
        frontier(nano, "scenes", n=2, folder=tmp_path / "mine")


def test_only_what_is_missing_is_drawn(nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    plain = baselines.shared_runs

    def noted(run, text, samples, methods):  # type: ignore[no-untyped-def]
        asked.append(set(methods))
        return plain(run, text, samples, methods)

    def drawn(*specs: str) -> Frontier:
        monkeypatch.setattr(baselines, "baseline_specs", lambda model, settings: ["none", *specs])
        return frontier(nano, "scenes", n=3, folder=tmp_path / "kept")

    monkeypatch.setattr(baselines, "shared_runs", noted)
    monkeypatch.setattr(baselines, "AT_ONCE", 2)
    first = drawn("truncate:last=3")
    more = drawn("truncate:last=3", "truncate:last=4")
    assert asked == [{"none", "truncate:last=3"}] * 2 + [{"none", "truncate:last=4"}] * 2
    assert more.prompts[more.prompts.baseline != "truncate:last=4"].reset_index(drop=True).equals(first.prompts)
    (tmp_path / "kept" / "baselines-000002.csv").unlink()  # as if the run had ended in between
    asked.clear()
    assert drawn("truncate:last=3").prompts.equals(first.prompts) and len(asked) == 1
    damaged = tmp_path / "kept" / "baselines-000000.csv"
    damaged.write_text(damaged.read_text()[:-40])
    with pytest.raises(VarlabError, match="damaged"):
        drawn("truncate:last=3")
    damaged.unlink()
    assert drawn("truncate:last=3").prompts.equals(first.prompts)


def test_no_more_images_at_once_than_asked_for(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a larger batch began the folder; the numbers are those of any batch."""
    sizes: list[int] = []
    plain = baselines.shared_runs

    def noted(run, text, samples, methods):  # type: ignore[no-untyped-def]
        sizes.append(len(samples))
        return plain(run, text, samples, methods)

    monkeypatch.setattr(baselines, "shared_runs", noted)
    monkeypatch.setattr(baselines, "baseline_specs", lambda model, settings: ["none", "truncate:last=3"])
    texts = ["a red star", "a blue ring", "a star"]
    whole = frontier(nano, texts, folder=tmp_path / "whole")
    one = frontier(nano, texts, folder=tmp_path / "one", batch=1)
    assert sizes == [3, 1, 1, 1] and sorted(path.name for path in (tmp_path / "one").glob("*.csv"))[-1][-5] == "2"
    assert one.values("ssim").to_numpy() == pytest.approx(whole.values("ssim").to_numpy(), abs=1e-4)
    sizes.clear()
    (tmp_path / "whole" / "baselines-000000.csv").unlink()
    again = frontier(nano, texts, folder=tmp_path / "whole", batch=2)
    assert sizes == [2, 1] and len(again.prompts) == 6
    compare(nano, texts, ["truncate:last=3"], batch=1, frontier=tmp_path / "compared")
    assert sizes[2:] == [1, 1, 1]
    with pytest.raises(VarlabError, match="batch must be at least 1"):
        frontier(nano, texts, batch=0)


def test_a_second_process_finds_what_the_first_has_drawn(
    nano: NextScaleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[range] = []
    plain, lock = baselines.shared_runs, baselines.one_writer

    def noted(run, text, samples, methods):  # type: ignore[no-untyped-def]
        drawn.append(samples)
        return plain(run, text, samples, methods)

    def asked() -> Frontier:
        return frontier(nano, "scenes", n=2, folder=tmp_path / "kept")

    @contextmanager
    def waited(place: Path) -> Iterator[None]:
        monkeypatch.setattr(baselines, "one_writer", lock)
        asked()  # the other process, while this one waits
        with lock(place):
            yield

    monkeypatch.setattr(baselines, "baseline_specs", lambda model, settings: ["none", "truncate:last=3"])
    monkeypatch.setattr(baselines, "shared_runs", noted)
    monkeypatch.setattr(baselines, "one_writer", waited)
    assert asked().specs == ["none", "truncate:last=3"] and len(drawn) == 1
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["baselines-000000.csv", "frontier.json"]
