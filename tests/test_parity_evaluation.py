"""Parity of the scorers passes on what the official ones gave, and fails when anything in a golden or here is off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden_files import HERE, SHARED, altered, failed_arrays, passes
from varlab import parity
from varlab.errors import VarlabError
from varlab.evaluation import adm_scores, dpg, geneval, hps, imagereward
from varlab.evaluation.scripts import geneval_detect, hps_score, imagereward_score
from varlab.parity.golden import load

OWN = ["geneval_small.jsonl", "geneval_crops.npz", "dpg.json", "hps_preprocess_small.npz", "imagereward_small.npz",
       "adm.npz"]  # fmt: skip
WHOLE = ["geneval_a.jsonl", "geneval_crops_a.npz", "dpg_a.json", "hps_preprocess_a.npz", "imagereward_a.npz",
         "adm_a.npz"]  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_own_copies_pass_and_leave_nothing_out(name: str) -> None:
    assert len(passes(HERE / name).rows) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_shared_goldens_pass_and_leave_nothing_out(name: str) -> None:
    passes(SHARED / name)


# What must fail


def changed(name: str, tmp_path: Path, change: Any) -> Path:
    """A copy of a golden of JSON whose content went through ``change``."""
    path = tmp_path / name
    lines = (HERE / name).read_text().splitlines() if name.endswith("l") else [(HERE / name).read_text()]
    found = [json.loads(line) for line in lines]
    change(found if name.endswith("l") else found[0])
    path.write_text("\n".join(json.dumps(item) for item in found) + "\n")
    return path


def set_in(found: Any, *way: Any, value: Any) -> None:
    for step in way[:-1]:
        found = found[step]
    assert found[way[-1]] != value
    found[way[-1]] = value


@pytest.mark.parametrize(
    ("way", "value", "shows_in"),
    [
        ((5, "correct"), None, "correct"),
        ((5, "reason_lines"), ["expected dog>=1, found 0"], "reason_lines"),
        ((350, "kept"), {"dog": [0]}, "kept"),
        ((352, "details"), {}, "details"),
        ((1, "colour_calls"), [], "colour_calls"),
        ((1, "error"), "KeyError", "error"),
        ((-1, "overall"), 0.4982, "summary_overall"),
        ((-1, "per_tag", "counting", "total"), 65, "summary_counting"),
        ((0, "file_filter", 0, "read_by_official"), True, "file_filter"),
        ((0, "defaults", "max_objects"), 15, "defaults"),
    ],
)
def test_a_changed_verdict_fails(tmp_path: Path, way: tuple[Any, ...], value: Any, shows_in: str) -> None:
    path = changed("geneval_small.jsonl", tmp_path, lambda found: set_in(found, *way, value=value))
    assert shows_in in failed_arrays(parity.check(path))


@pytest.mark.parametrize(
    ("way", "value", "shows_in"),
    [
        (("overall",), 54.566812, "overall [main_pic4]"),
        (("per_image", "163.png", "mean"), 0.6071, "per_image_mean [main_pic4]"),
        (("per_image", "163.png", "crops", 3), 0.4286, "per_image_crops [main_pic4]"),
        (("l1", "other"), 80.0001, "l1 [main_pic4]"),
        (("l2", "global -"), 80.0, "l2 [main_pic4]"),
        (("dropped", "not_in_csv.png"), "1", "dropped [main_pic4]"),
        (("crash",), "ValueError", "crash [main_pic4]"),
        (("detail_lines",), 1290, "detail_lines [main_pic4]"),
    ],
)
def test_a_changed_run_fails(tmp_path: Path, way: tuple[Any, ...], value: Any, shows_in: str) -> None:
    path = changed(
        "dpg.json", tmp_path, lambda found: set_in(found, "bundles", 0, "official_runs", 0, *way, value=value)
    )
    assert failed_arrays(parity.check(path)) == {shows_in}


@pytest.mark.parametrize(
    ("name", "array", "shows_in"),
    [
        ("hps_preprocess_small.npz", "small_odd_aa", "small_odd_aa"),
        ("hps_preprocess_small.npz", "agg_scores", "chunk_means [all_present, anime]"),
        ("imagereward_small.npz", "small_grey_t_sub", "small_grey_t_sub"),
        ("imagereward_small.npz", "head_raw", "head_raw"),
        ("geneval_crops.npz", "crop_0", "crop_0"),
        ("adm.npz", "ref_sigma", "ref_sigma"),
        ("adm.npz", "radii_ref_half", "radii_ref_half"),
        ("adm.npz", "logits", "inception_score_100"),
    ],
)
def test_a_changed_array_fails(tmp_path: Path, name: str, array: str, shows_in: str) -> None:
    with np.load(HERE / name) as file:
        values = file[array].copy()
    values.flat[::3] += np.asarray(1, values.dtype)
    assert shows_in in failed_arrays(parity.check(altered(HERE / name, tmp_path, **{array: values})))


@pytest.mark.parametrize(
    ("module", "name", "value", "golden", "shows_in"),
    [
        (geneval, "LEAST_OFFSET", 1.0, "geneval_small.jsonl", "reason_lines"),
        (geneval_detect, "BACKGROUND", "#998", "geneval_crops.npz", "crop_0"),
        (dpg, "OFFICIAL", dpg.CORRECTED, "dpg.json", "overall [main_pic4]"),
        (hps, "CHUNK", 79, "hps_preprocess_small.npz", "chunk_sizes [all_present, anime]"),
        (hps_score, "MEAN", (0.48, 0.4578275, 0.40821073), "hps_preprocess_small.npz", "small_odd_noaa"),
        (imagereward, "DEVIATION", 1.03, "imagereward_small.npz", "head_reward"),
        (imagereward_score, "SIDE", 223, "imagereward_small.npz", "palette_t_sub"),
        (adm_scores, "SPLIT", 100, "adm.npz", "inception_score_default"),
    ],
)
def test_a_changed_rule_fails(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, golden: str, shows_in: str
) -> None:
    monkeypatch.setattr(module, name, value)
    assert shows_in in failed_arrays(parity.check(HERE / golden))


# Files


def test_a_field_that_no_check_knows_is_said(tmp_path: Path) -> None:
    path = changed("geneval_small.jsonl", tmp_path, lambda found: found[1].update(new_field=1))
    assert "NOT COMPARED, no check knows them: new_field" in parity.check(path).render()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1 is not valid JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "no kind and no tolerances"),
        ("", "no kind and no tolerances"),
        ('{"golden": "geneval", "tolerances": {}}\n{"kind":', "line 2 is not valid JSON"),
    ],
)
def test_damaged_text_is_refused_by_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(VarlabError, match=says):
        load(path)


def test_tolerances_in_words() -> None:
    golden = load(HERE / "imagereward_small.npz")
    assert golden.stated("tall_crop_u8") == 1
    assert golden.stated("head_*", "float32") == 2e-5
    assert golden.stated("head_*", "float64") == 1e-12
    assert load(HERE / "adm.npz").stated("fid", "singular cases") == 1e-3
    with pytest.raises(VarlabError, match="parity assumes none"):
        golden.stated("unheard")


def test_a_tolerance_is_asked_for_only_of_what_the_file_holds() -> None:
    golden = parity.load(HERE / "adm.npz")
    del golden.arrays["ref_mu"], golden.arrays["sample_mu"], golden.tolerances["mu"]
    assert parity.check(golden).passed
