"""Parity of the accelerators with the official ones: it passes on their goldens, and fails when anything is off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden_files import HERE, SHARED, altered, content, failed_arrays, written
from tests.parity_methods import FAST_CONFIG, TOLERANCES, own_fastvar
from varlab import parity
from varlab.accelerators.fastvar import pivotal
from varlab.engine.stage import Site
from varlab.errors import VarlabError
from varlab.parity import fastvar
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity import unpacked
from varlab.parity.report import Report

SMALL, DECISIONS, FEATURES = (HERE / f"skipvar_{name}.npz" for name in ("small", "decision", "features_small"))
FAST = HERE / "fastvar_infinity_small.npz"
SHIPPED = [SMALL, DECISIONS, FEATURES, FAST]
WHOLE_FAST = SHARED / "fastvar_infinity_d6_a.npz"
WHOLE = [
    *(SHARED / f"skipvar_{name}_a.npz" for name in ("small", "rectp", "grid1m", "features")),
    *(SHARED / f"fastvar_infinity_{name}_a.npz" for name in ("d6", "d30", "nocfg")),
]


# What must pass


SLOW_WHOLE = [pytest.param(path, marks=pytest.mark.slow) for path in WHOLE]


@pytest.mark.parametrize("path", [*SHIPPED, *SLOW_WHOLE], ids=lambda path: path.stem)
def test_goldens_pass_and_leave_nothing_out(path):
    arrays = content(path)
    report = parity.check(path)
    assert report.passed, report.render()
    assert report.bit_mismatches == report.forced_near_ties == 0
    assert not any("no check knows them" in note for note in report.notes)
    left = {name for name, array in arrays.items() if array.size} - {row.name for row in report.rows}
    given = {"kind", "config_json", "tolerances_json"}  # and what the run or the classifiers are made from:
    given |= {"logit_stride", "X", "columns", "seed", "report_json"}
    ends = ("_mean", "_scale", "_coef", "_intercept", "_classes")
    assert not [n for n in left - given if not n.endswith(ends) and not n.startswith(("new_", "old_"))]


# What must fail


def one_run(path: Path, tmp_path: Path, **changes: Any) -> Path:
    """``altered``, without the runs that the changes do not concern: FAST's dense one, SMALL's other branches."""
    named = {name.partition(".")[0] for name in changes}
    if path == SMALL:
        branches = json.loads(str(content(path)["config_json"]))["branches"]
        kept = {name: entry for name, entry in branches.items() if name in named | {"base"}}
        changes["config_json"] = changes.get("config_json", {}) | {"branches": kept}
    elif path == FAST and not any(name.startswith("dense") for name in named):
        changes |= {name: None for name in content(path) if name.startswith("dense_bits_used_")}
    return altered(path, tmp_path, **changes)


WRONG = {
    SMALL: "common.logits_uncond_9 common.preview_old common.preview_old_latent common.sobel_new common.features "
    "common.next_input_latent_10 common.summed_8 base.kv_shapes skip2.image_uint8_bgr skip1.summed_final "
    "uncond2.kv_shapes uncond3.logits_final_10 uncond1.logits_cond_12",
    FAST: "text_features logits_uncond_8 score_32_3_sa decoded_sub2 image_uint8_bgr kv_len_per_stage_block",
    DECISIONS: "84_strategy 86_uncond_gap 88_skip_labels_6dec",
    FEATURES: "rows sobel_new_3_2 batch2_ratio batch2_l1",
}
WHOLE_WRONG = "block_out_32_2 block_out_40_5 cache24_block3_ca summed_9 summed_final"


@pytest.mark.parametrize("path", [*WRONG, pytest.param(WHOLE_FAST, marks=pytest.mark.slow)], ids=lambda path: path.stem)
def test_one_wrong_number_in_an_array_fails_it(tmp_path, path):
    names, arrays = WRONG.get(path, WHOLE_WRONG).split(), content(path)
    for name in names:
        arrays[name].flat[-1] += 2
    summaries = {"report_json_86_uncond", "report_json_88_skip"}  # are made from the wrong arrays
    report = parity.check(altered(path, tmp_path, **{name: arrays[name] for name in names}))
    assert failed_arrays(report) - summaries == set(names)


@pytest.mark.parametrize(
    ("path", "name", "shows_in"),
    [
        (SMALL, "common.bits_used_8", "common.bits_used_8"),
        (SMALL, "uncond2.bits_used_11", "uncond2.bits_used_11"),
        (SMALL, "base.bits_used_12", "base.bits_used_12"),
        (FAST, "bits_used_3", "bits_used_3"),
        (FAST, "bits_used_9", "bits_used_9"),
        (FAST, "dense_bits_used_9 keep_40_4_ca logit_stride", "dense_bits_used_9 keep_40_4_ca logits_final_10"),
        (DECISIONS, "84_skip_coef", "84_skip_gap"),
        (DECISIONS, "84_skip_classes", "84_skip_labels"),
        (DECISIONS, "X", "88_uncond_gap"),
        (FEATURES, "old_2_2", "rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_one_wrong_bit_or_input_fails(tmp_path, path, name, shows_in):
    """Several at once where none of them decides what another is compared with."""
    wrong = {part: content(path)[part] for part in name.split()}
    for values in wrong.values():
        if values.dtype.kind == "f":
            values.flat[-1] -= 0.5  # stays a picture where it was one
        else:
            values.flat[-1] ^= 1
    report = parity.check(one_run(path, tmp_path, **wrong))
    assert set(shows_in.split()) <= failed_arrays(report)
    assert report.forced_near_ties == 0


@pytest.mark.parametrize(
    ("path", "name", "change", "shows_in"),
    [
        (SMALL, "config_json", {"cfg": [3.0] * 13}, "base.logits_final_11"),
        (SMALL, "config_json", {"tau": [0.5] * 13}, "common.logits_final_8"),
        (SMALL, "config_json", {"vae_seed": 533}, "common.preview_new"),
        (FAST, "config_json", {"seed": 602}, "text_features"),
        (FAST, "config_json", {"lens": [8]}, "cu_seqlens"),
        (FAST, "cut_gaps_json", {"40_3_sa": 0.1}, "cut_gaps_json"),
        (DECISIONS, "report_json", {"86skip": {"hist": [1, 2, 3, 4]}}, "report_json_86_skip"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_changed_setting_fails(tmp_path, path, name, change, shows_in):
    assert shows_in in failed_arrays(parity.check(one_run(path, tmp_path, **{name: change})))


def test_another_strategy_than_the_branch_says_fails(tmp_path):
    branches = json.loads(str(content(SMALL)["config_json"]))["branches"]
    branches["skip2"]["skip_label"] = 1
    branches["uncond1"]["uncond_label"] = 2
    wrong = failed_arrays(parity.check(altered(SMALL, tmp_path, config_json={"branches": branches})))
    assert {"skip2.kv_shapes", "skip2.summed_final", "uncond1.kv_shapes", "uncond1.logits_final_12"} <= wrong


def test_an_unknown_column_or_a_missing_branch_table_is_an_error(tmp_path):
    with pytest.raises(VarlabError, match=r"column 'HF_Sum'.*Known: H, W, kind"):
        parity.check(altered(FEATURES, tmp_path, columns="H,W,HF_Sum"))
    config = json.loads(str(content(SMALL)["config_json"]))
    del config["branches"]
    with pytest.raises(VarlabError, match="config_json lacks 'branches'"):
        parity.check(altered(SMALL, tmp_path, config_json=json.dumps(config)))


# Near ties


def swapped(tmp_path: Path, gap: float, places: tuple[int, int]) -> Path:
    """FAST with two tokens of its first mask exchanged, by rank of their scores, and ``gap`` stated for that cut."""
    arrays = {name: array for name, array in content(FAST).items() if not name.startswith("dense")}
    order = np.argsort(-arrays["score_32_3_sa"][0])
    mask = np.unpackbits(arrays["keep_32_3_sa"], axis=1)
    mask[0, order[list(places)]] ^= 1
    packed = np.packbits(mask, axis=1)
    arrays |= {"keep_32_3_sa": packed, "tolerances_json": np.array(json.dumps({"logits_rel": 1e-4} | TOLERANCES))}
    gaps = json.loads(str(arrays["cut_gaps_json"])) | {"32_3_sa": gap}
    return written(tmp_path / "swapped.npz", arrays | {"cut_gaps_json": json.dumps(gaps)})


def test_the_two_tokens_at_a_close_cut_may_swap(tmp_path):
    """They are moved and counted; what follows is then another run than the golden's."""
    report = parity.check(swapped(tmp_path, 5e-5, (614, 615)))
    assert "keep_32_3_sa" not in {row.name for row in report.failures}
    assert report.bit_mismatches >= report.forced_near_ties >= 2


@pytest.mark.parametrize(("gap", "places"), [(5e-4, (614, 615)), (5e-5, (300, 900))])
def test_a_swap_fails_at_a_clear_cut_or_away_from_it(tmp_path, gap, places):
    assert "keep_32_3_sa" in failed_arrays(parity.check(swapped(tmp_path, gap, places)))


def choice(x: Tensor, mask: Tensor, gaps: dict[str, float] | None) -> tuple[Tensor, Report]:
    """What FastVAR goes on with at one place, and what is reported, against a mask and the gaps of a golden."""
    arrays = {"keep_32_3_sa": np.packbits(mask.numpy(), axis=1)}
    if gaps is not None:
        arrays["cut_gaps_json"] = np.array(json.dumps(gaps))
    comparison = Comparison(Golden(Path("own.npz"), "fastvar_infinity", {}, {"logits_rel": 1e-5}, arrays))
    stage = type("AnyStage", (), {"grid": (1, 32)})()
    keep = fastvar.Judged(comparison, (0.5,), 0).choose(Site(stage, 3, "attention"), x, int(mask[0].sum()))
    return keep, comparison.result


@pytest.mark.parametrize(("gaps", "excused"), [({"32_3_sa": 1e-7}, True), ({"32_3_sa": 1e-3}, False), (None, False)])
def test_a_forced_choice_follows_the_golden(gaps, excused):
    x = torch.tensor([4.0, -4, 3, -3, 1, -1, 0.5, -0.5]).view(1, 8, 1)  # the third farthest is a tie
    ours = pivotal(x, 3)[0].tolist()
    theirs = [0, 1, 5 - ours[2]]
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[0, theirs] = True
    keep, report = choice(x, mask, gaps)
    assert report.passed == excused
    assert report.forced_near_ties == (2 if excused else 0)
    assert keep[0].tolist() == (theirs if excused else ours)


def test_where_no_logits_are_stored_the_stated_margin_bounds_what_is_excused(tmp_path):
    """A bit flipped where our own margin is small is excused only under a stated margin that is small as well."""
    config = FAST_CONFIG | {"gt_leak": 4}
    path, outcome = own_fastvar(tmp_path, config)
    arrays: dict[str, Any] = content(path)
    final = outcome.capture.final[4]
    apart = (final[..., 1::2] - final[..., ::2]).abs()
    shape = outcome.setup.bits_shape(4)
    bits = unpacked(arrays["bits_used_4"], shape)
    bits.reshape(apart.shape).flat[int(apart.argmin())] ^= 1  # one latent a token, so the order is the same
    noise = float(apart.min() / final.abs().max()) * 2
    for name in list(arrays):
        if name.startswith(("logits", "summed", "decoded", "image", "block_out_40", "keep_40", "score_40", "dense")):
            del arrays[name]
    arrays |= {"bits_used_4": np.packbits(bits), "cut_gaps_json": json.dumps({})}
    arrays["tolerances_json"] = json.dumps({"logits_rel": noise} | TOLERANCES)
    for stated, excused in ((noise / 100, True), (1e9, False), (None, False)):
        margins = {} if stated is None else {"min_bit_margin_per_stage": [stated] * 7}
        arrays["config_json"] = json.dumps(config | margins)
        report = parity.check(written(tmp_path / "flipped.npz", arrays))
        assert ("bits_used_4" not in {row.name for row in report.failures}) == excused
        assert report.forced_near_ties == int(excused)


# Released settings


# Runs of other shapes: a golden written from the engine's own run must be read back as the same run
