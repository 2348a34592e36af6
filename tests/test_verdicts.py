"""Every verdict comes out either way, from the log alone, with the numbers it rests on."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from tests.toy_logs import toy_images, toy_log
from varlab import claims, figures
from varlab.analysis import logs
from varlab.claims import Outcome, Side, Verdict, freqexit, rules, skipvar, sparsevar
from varlab.claims.methods import _decision
from varlab.claims.verdict import Number
from varlab.measures.statistics import bootstrap_interval
from varlab.studies.calibration.sparsevar import _with_bounds

STAGES = np.arange(1, 7)
LATE = STAGES >= 5


def word(verdict: Verdict) -> str:
    return str(verdict.outcome)


def by_stage(early: float, late: float) -> np.ndarray:
    return np.where(LATE, late, early)


def on_own_edges(log: xr.DataTree, pictures: list[Image.Image]) -> xr.DataTree:
    """The preview changes exactly where the image has edges."""
    own = logs.edges(np.stack([np.asarray(p, np.float32) / 255 for p in pictures]), (16, 16))
    for k in STAGES:
        log[f"residual-spectrum/stage-{k:02d}"]["energy_preview"].data[:] = own
    return log


# --- SparseVAR ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"), [(0.8, "holds"), (0.4, "partly"), (0.1, "does not hold"), (0.25, "cannot be told")]
)
def test_residuals_on_edges(share: float, expected: str) -> None:
    log = toy_log({"residual-spectrum.concentration": by_stage(0.3, share)})
    if share == 0.25:
        log["residual-spectrum"]["concentration"].data[::2] += 0.05
        log["residual-spectrum"]["concentration"].data[1::2] -= 0.05
    verdict = sparsevar.changes_on_edges(log)
    assert word(verdict) == expected
    assert f"{share:.2f}" in verdict.finding and "stages 5 and 6" in verdict.finding


def test_an_edge_that_any_image_would_have_does_not_count() -> None:
    pictures, given = toy_images(8), {"residual-spectrum.concentration": by_stage(0.3, 0.8)}
    assert word(sparsevar.changes_on_edges(on_own_edges(toy_log(given), pictures), pictures)) == "holds"
    same = [pictures[0]] * 8  # every image has the edges of every other
    assert word(sparsevar.changes_on_edges(on_own_edges(toy_log(given), same), same)) == "does not hold"


def focus(edge: float, ground: float) -> dict[str, Any]:
    """Block 2 at one correlation with edges, block 3 at another, the rest between."""
    blocks = np.full(4, (edge + ground) / 2)
    blocks[1:3] = edge, ground
    return {"token-mse.edges": np.broadcast_to(blocks[None, :, None], (6, 4, 4))}


@pytest.mark.parametrize(
    ("edge", "ground", "expected"),
    [(0.6, -0.4, "holds"), (0.6, 0.2, "partly"), (0.3, 0.3, "no difference")],
)
def test_blocks_differ(edge: float, ground: float, expected: str) -> None:
    verdict = sparsevar.blocks_differ(toy_log(focus(edge, ground), n=16))
    assert word(verdict) == expected
    if expected != "no difference":
        assert f"block 2 {edge:.2f}" in verdict.finding and f"block 3 {ground:.2f}" in verdict.finding


def test_blocks_are_not_measured_on_the_prompts_that_chose_them() -> None:
    """Pure noise: the extremes of 32 blocks look different on the prompts that chose them, not on the others."""
    log = toy_log(n=40, blocks=32)
    log["token-mse"]["edge_correlation_rows"].data[:] = np.random.default_rng(1).normal(0, 0.15, (40, 6, 32, 4))
    assert word(sparsevar.blocks_differ(log)) in ("no difference", "cannot be told")
    flattered = log["token-mse"]["edge_correlation_rows"].data[:, 4:, :, 0].mean(1)
    best, worst = flattered.mean(0).argmax(), flattered.mean(0).argmin()
    assert bootstrap_interval(flattered[:, best] - flattered[:, worst]).low > 0  # what the split prevents


def test_the_two_halves_mix_the_categories() -> None:
    for n in (4, 5, 48, 553):
        choosing, measuring = sparsevar.halves(n)
        assert sorted([*choosing, *measuring]) == list(range(n)) and len(choosing) - len(measuring) in (0, 1)
    choosing, measuring = sparsevar.halves(48)  # categories come in turn
    assert set(choosing % 6) == set(measuring % 6) == set(range(6))


def test_a_sign_needs_more_than_the_least_worth_naming() -> None:
    def judged(low: float, high: float, margin: float = 0.0, n: int = 8) -> Outcome:
        return rules.judged(Number("gain", (low + high) / 2, low, high, n, margin))

    assert judged(0.001, 0.009, 0.02) is Outcome.NO_DIFFERENCE and judged(-0.05, 0.009, 0.02) is Outcome.FAILS
    assert judged(0.01, 0.05, 0.02) is Outcome.HOLDS and judged(-0.01, 0.05, 0.02) is Outcome.WIDE
    assert judged(0.1, 0.9) is Outcome.HOLDS and judged(-0.9, -0.1) is Outcome.FAILS
    assert judged(0.0, 0.0) is Outcome.NO_DIFFERENCE  # and not a wide interval
    assert judged(np.nan, np.nan) is Outcome.TOO_FEW and judged(0.1, 0.9, n=5) is Outcome.TOO_FEW


def test_a_focus_on_a_place_is_only_part_of_the_claim() -> None:
    verdict = sparsevar.blocks_differ(toy_log(focus(0.6, -0.4), n=16), toy_images(16))  # maps without the images' edges
    assert word(verdict) == "partly"


def test_residuals_and_changes_of_the_picture_are_two_claims() -> None:
    log = toy_log()
    spectrum = log["residual-spectrum"]
    shares, names = spectrum["concentration"], spectrum["spread"].data.tolist()
    shares.data[..., names.index("contribution")] = 0.24
    shares.data[..., names.index("preview change")] = 0.8
    assert (
        word(sparsevar.residuals_on_edges(log)) == "does not hold" and word(sparsevar.changes_on_edges(log)) == "holds"
    )
    assert "latent canvas" in sparsevar.residuals_on_edges(log).finding


# --- FreqExit -----------------------------------------------------------------------------------------------


def bands(low: float, high: float) -> np.ndarray:
    """Explained share [stage, band] at every stage."""
    return np.broadcast_to(np.linspace(low, high, 5), (6, 5))


@pytest.mark.parametrize(
    ("late", "high_band", "expected"),
    [(0.6, 0.2, "holds"), (0.1, 0.2, "partly"), (0.6, 0.95, "partly"), (0.1, 0.95, "does not hold")],
)
def test_high_frequency_rises(late: float, high_band: float, expected: str) -> None:
    given = {"residual-spectrum.hf": by_stage(0.3, late), "residual-spectrum.explained": bands(0.8, high_band)}
    verdict = freqexit.high_frequency_rises(toy_log(given))
    assert word(verdict) == expected
    assert "0 to 2" in verdict.finding and "8 to 16" in verdict.finding  # cycles per image of 32 pixels


def test_the_rise_of_random_weights_is_named_as_such() -> None:
    control = toy_log({"residual-spectrum.hf": by_stage(0.3, 0.5)}, n=4, weights="random (seed 1)")
    finding = freqexit.high_frequency_rises(toy_log(), control).finding
    assert "With weights random (seed 1) and 4 prompts the share rises by 0.20" in finding


# --- SkipVAR ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "kl", "expected"), [(0.1, 0.1, "holds"), (0.1, 0.9, "partly"), (0.9, 0.9, "does not hold")]
)
def test_gap_shrinks(hidden: float, kl: float, expected: str) -> None:
    given = {"branch-divergence.hidden": by_stage(0.5, hidden), "branch-divergence.kl": by_stage(0.5, kl)}
    assert word(skipvar.gap_shrinks(toy_log(given))) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.02, "holds"), (0.3, "does not hold"), (0.05, "cannot be told")])
def test_gap_minimal(share: float, expected: str) -> None:
    verdict = skipvar.gap_minimal(toy_log({"branch-divergence.guidance_changes": by_stage(0.3, share)}))
    assert word(verdict) == expected and "cfg 3.0" in verdict.finding


def test_labels_have_their_own_word_and_bound() -> None:
    """A label of 4096 has 12 bits: one of them in twenty changes .46 of the labels."""
    log = toy_log({"branch-divergence.guidance_changes": by_stage(0.3, 0.3)})
    assert skipvar.gap_minimal(log).outcome is Outcome.FAILS and "of the bits" in skipvar.gap_minimal(log).finding
    log["branch-divergence"]["kl"].attrs["units"] = "nats/label"
    log["branch-divergence"].attrs["values"] = 4096
    verdict = skipvar.gap_minimal(log)
    assert verdict.outcome is Outcome.HOLDS and "of the labels (minimal: below 46 %" in verdict.finding
    assert "bits" not in verdict.finding.split("(minimal")[0] and "per label" in skipvar.gap_shrinks(log).finding
    axes = figures.guidance_effect(log)
    assert axes.get_ylabel() == "share of labels" and "Labels" in axes.get_title(loc="left") + axes.get_title()


def test_without_guidance_there_is_no_gap_to_judge() -> None:
    log = toy_log()
    for name in ("relative_mse", "kl", "guidance_changes", "flip_share"):
        log["branch-divergence"][name].data[:, 3:] = np.nan
    for judge in (skipvar.gap_shrinks, skipvar.gap_minimal):
        assert judge(log).outcome is Outcome.NOT_MEASURED
        assert judge(log).finding.startswith("Without guidance only") and "not measured" not in judge(log).finding


def test_guidance_within_the_network_has_no_effect_on_logits_to_judge() -> None:
    log = toy_log()
    for name in ("kl", "guidance_changes", "flip_share"):
        log["branch-divergence"][name].data[:] = np.nan
    assert skipvar.gap_minimal(log).outcome is Outcome.NOT_MEASURED
    assert skipvar.gap_shrinks(log).outcome is not Outcome.FAILS


@pytest.mark.parametrize(
    ("before", "late_cost", "expected"),
    [
        (0.95, 9, "holds"),
        (0.5, 9, "partly"),
        (0.95, 1, "partly"),
        (0.5, 1, "does not hold"),
        (0.88, 9, "cannot be told"),
    ],
)
def test_late_steps_redundant(before: float, late_cost: float, expected: str) -> None:
    cost = by_stage(2, late_cost)
    given = {"step-redundancy.ssim": by_stage(before, 0.99), "step-redundancy.flops": cost}
    verdict = skipvar.late_steps_redundant(toy_log(given, stage_seconds=[cost.tolist()]))
    assert word(verdict) == expected
    assert f"{100 * 2 * late_cost / cost.sum():.0f} % of FLOP" in verdict.finding


# --- all of them --------------------------------------------------------------------------------------------

JUDGES = [
    sparsevar.residuals_on_edges,
    sparsevar.changes_on_edges,
    freqexit.high_frequency_rises,
    sparsevar.blocks_differ,
    skipvar.gap_shrinks,
    skipvar.gap_minimal,
    skipvar.late_steps_redundant,
]


@pytest.mark.parametrize("judge", JUDGES)
def test_one_prompt_is_not_enough(judge: Any) -> None:
    alone = judge(toy_log(n=1), toy_images(1)) if judge in (sparsevar.changes_on_edges,) else judge(toy_log(n=1))
    assert alone.outcome is Outcome.TOO_FEW and not {"nan", "not measured"} & set(alone.text.split())
    assert "1 prompts" not in claims.account(toy_log(n=1), [alone]) and "differs by" not in alone.text


@pytest.mark.parametrize("judge", JUDGES)
def test_a_verdict_has_its_parts_and_n(judge: Any) -> None:
    verdict = judge(toy_log(n=5))
    assert verdict.finding.endswith("n = 5.") and Verdict.read(json.loads(json.dumps(verdict.record()))) == verdict


def test_a_verdict_is_written_as_json_and_read_back() -> None:
    number = Number("gain", 0.5, float("nan"), float("nan"), 1, 0.1)
    verdict = Verdict("c", Outcome.TOO_FEW, "f.", "r.", (number,))
    record = json.loads(json.dumps(verdict.record(), allow_nan=False))
    assert record["verdict"] == "too few" and record["numbers"][0]["low"] is None and verdict.text == "f. r."
    assert str(Verdict.read(record)) == str(verdict) and str(number) == "0.50 (no interval)"
    del record["numbers"][0]["supports"]  # an earlier version's, of which nobody knows the side
    assert Verdict.read(record).numbers[0].supports is Side.NEITHER


def test_the_account_names_weights_and_limits() -> None:
    trained = claims.account(toy_log(), [skipvar.gap_minimal(toy_log())])
    assert "weights: **trained (toy, 123)**" in trained and "n = 8" in trained and "| claim |" in trained
    assert "not the official checkpoints" in trained and "learnt" not in trained
    assert "nothing of it was learnt" in claims.account(toy_log(weights="random (seed 0)"), [])
    named = claims.limits(toy_log(weights="official (infinity_2b_reg.pth)"))  # as logs said before content was read
    assert any("not verified" in limit for limit in named)
    doubted = claims.limits(toy_log(weights="named as official, not verified (a.pth 1, tokenizer b.pth 2) [x: all 3]"))
    assert any("not verified" in limit for limit in doubted) and "Doubt about the weights: x: all 3." in doubted
    official = claims.limits(toy_log(weights="official, verified by content (infinity_2b_reg.pth)"))
    assert not any("verified" in limit for limit in official)
    assert not any("not the official" in limit for limit in official)
    assert any("texture" in limit for limit in claims.limits(toy_log(model="nano-infinity")))


def test_one_prompt_has_no_interval_in_any_sentence() -> None:
    row: dict[Any, Any] = {"accuracy": 1.0, "n_held_out": 1, "gain": 0.25, "gain low": np.nan, "gain high": np.nan}
    told = _decision("the decision", row)
    assert told.outcome is Outcome.TOO_FEW and "0.25 (no interval). n = 1." in told.text
    shares = pd.Series({"below 0.5": 0.25, "below 0.5 low": np.nan, "below 0.5 high": np.nan})
    assert _with_bounds(shares, "below 0.5") == "0.25"
