"""Parity of the methods on released settings and on runs of other shapes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden_files import altered, content, failed_arrays, written
from tests.parity_methods import BASE, FAST_CONFIG, WIDTHS, own_fastvar
from varlab import parity
from varlab.errors import VarlabError
from varlab.parity import fastvar, skipvar, skipvar_tables
from varlab.parity.golden import Golden
from varlab.parity.infinity_setup import setup
from varlab.parity.run import CacheWatch
from varlab.schedules import infinity


def test_released_settings_follow_from_the_widths():
    assert fastvar.released(infinity("1M", 1.0)) == ((0.4, 0.5), 2)
    assert fastvar.released(infinity("1M", 2.0)) == ((), 0)
    assert fastvar.released(infinity("0.06M", 1.0)) == ((), 0)
    with pytest.raises(VarlabError, match="not its last ones"):
        fastvar.released(infinity("1M", 0.75))


NINE = [[1, 1, 1], [1, 1, 2], [1, 2, 2], [1, 2, 3], [1, 3, 4], [1, 4, 4], [1, 4, 5], [1, 5, 5], [1, 5, 7]]


BRANCHES = {
    "base": {"skip_label": 0, "uncond_label": 0},
    "skip1": {"skip_label": 1, "uncond_label": None},
    "skip3": {"skip_label": 3, "uncond_label": None},
    "uncond2": {"skip_label": 0, "uncond_label": 2},
}


SKIP_CONFIG = BASE | {"schedule": NINE, "branches": BRANCHES, "cfg": 3, "gt_leak": 3}


SKIP_SHAPES = {
    "plain": {},
    "patchified, lists": {"patchify": 1, "cfg": [3, 1, 2, 3, 4, 2, 1, 3, 2.5], "tau": [0.5, 1, 2, 0.7] + [0.6] * 5},
    "two images, packed and thinned": {"lens": [3, 5], "logit_stride": {"6": 3, "7": 2}, "gt_leak": 0, "packed": True},
    "no guidance": {"cfg": 1, "depth": 2},
}


@torch.inference_mode()
def own_skipvar(tmp_path: Path, config: dict[str, Any]) -> Path:
    bare = Golden(tmp_path / "own.npz", "skipvar", config, {}, {})
    rebuilt, strides = setup(bare), config.get("logit_stride", {})
    tolerances = {"logits_rel": 1e-6, "features_rel": 1e-6, "preview_abs": 1e-6, "image_uint8_abs": 0}
    arrays: dict[str, Any] = {"kind": "skipvar", "config_json": json.dumps(config)}
    arrays["tolerances_json"] = json.dumps(tolerances)
    for branch in skipvar._branches(bare):
        watch = CacheWatch()
        outcome = skipvar._run(bare, rebuilt, branch, watch)
        arrays[f"{branch.name}.kv_shapes"] = [[blocks[0], blocks[-1]] for blocks in watch.shapes]
        arrays[f"{branch.name}.summed_final"] = outcome.generation.canvas.numpy()
        arrays[f"{branch.name}.image_uint8_bgr"] = outcome.image.numpy()
        for k, codes in enumerate(outcome.capture.codes):
            if branch.changed and (branch.dropped or k < len(rebuilt.stages) - branch.changed):
                continue
            bits = (codes.movedim(1, -1)[:, None] > 0).numpy()
            prefix = "common" if k < 6 else branch.name
            arrays[f"{prefix}.bits_used_{k}"] = np.packbits(bits) if config.get("packed") else bits.astype(np.int8)
            stride = int(strides.get(str(k), 1))
            arrays[f"{prefix}.logits_final_{k}"] = outcome.capture.final[k][:, ::stride].numpy()
        if not branch.changed:
            (reports,) = outcome.generation.reports.values()
            values = np.stack([reports["skipvar"][name][1] for name in ("hf_diff", "hf_ratio")], -1)
            arrays["common.features"] = np.mean(values, 0)
            canvas = rebuilt.model.resize(outcome.capture.canvas[5], rebuilt.model.latent_grid((3, 4)))
            arrays["common.preview_new"] = (rebuilt.model.decode(canvas) * 2 - 1).numpy()
    return written(bare.path, arrays)


@pytest.mark.parametrize("changes", SKIP_SHAPES.values(), ids=SKIP_SHAPES.keys())
def test_own_skipvar_runs_are_read_back(tmp_path, changes):
    report = parity.check(own_skipvar(tmp_path, SKIP_CONFIG | changes))
    assert report.passed, report.render()
    assert not any(note.startswith("NOT COMPARED") for note in report.notes)
    assert report.bits_compared > 0 and report.bit_mismatches == 0


def test_a_flipped_bit_of_a_branch_fails_there_only(tmp_path):
    path = own_skipvar(tmp_path, SKIP_CONFIG)
    bits = content(path)["uncond2.bits_used_8"]
    bits.flat[-1] ^= 1
    wrong = failed_arrays(parity.check(altered(path, tmp_path, **{"uncond2.bits_used_8": bits})))
    assert "uncond2.bits_used_8" in wrong and all(name.startswith("uncond2.") for name in wrong)


FAST_SHAPES = {
    "plain": {},
    "two images, guided, a list": {"lens": [3, 5], "cfg": [2, 1, 3, 3, 2, 1, 1], "tau": [0.5] * 7},
    "no guidance, beyond the last pruning block": {"cfg": 1, "depth": 30, "heads": 2, "lens": [4, 2]},
    "one dropped": {"schedule": WIDTHS[:6]},
    "only one pruned": {"schedule": [*WIDTHS[:3], [1, 3, 40]], "bits": 6},
    "too shallow to prune": {"depth": 3},
}


@pytest.mark.parametrize("changes", FAST_SHAPES.values(), ids=FAST_SHAPES.keys())
def test_own_fastvar_runs_are_read_back(tmp_path, changes):
    path, _ = own_fastvar(tmp_path, FAST_CONFIG | changes)
    report = parity.check(path)
    assert report.passed, report.render()
    assert not any(note.startswith("NOT COMPARED") for note in report.notes)
    masks = [row for row in report.rows if row.name.startswith("keep_")]
    config = FAST_CONFIG | changes
    pruned = sum(grid[2] in (32, 40) for grid in config["schedule"])
    assert len(masks) == pruned * 3 * max(0, min(config["depth"], 28) - 3)


def test_decisions_of_own_coefficients(tmp_path):
    """Two classes, one row of coefficients; a strategy counts the second model only where nothing is dropped."""
    values = {"mean": [0.0, 0.0], "scale": [1.0, 2.0], "intercept": [0.0], "coef": [[1.0, 0.0]]}
    x = np.array([[-1.0, 0.0], [1.0, 0.0], [2.0, 5.0]])
    arrays: dict[str, Any] = {
        f"90_{part}_{name}": value for part in ("skip", "uncond") for name, value in values.items()
    }
    arrays |= {"90_skip_classes": [0, 2], "90_uncond_classes": [1, 3], "90_uncond_coef": [[-1.0, 0.0]]}
    arrays |= {"90_skip_labels": [0, 2, 2], "90_uncond_labels": [3, 1, 1], "90_strategy": [13, 2, 2], "X": x}
    arrays |= {"kind": "skipvar_decision", "config_json": "{}", "tolerances_json": '{"abs": 1e-6}'}
    report = parity.check(written(tmp_path / "own.npz", arrays))
    assert report.passed, report.render()
    assert "NOT COMPARED" not in report.render()
    arrays["90_strategy"] = [3, 2, 2]
    assert failed_arrays(parity.check(written(tmp_path / "own.npz", arrays))) == {"90_strategy"}


def test_features_of_own_images(tmp_path):
    """Without the pair that was also run as a batch, its arrays are left aside, and said to be."""
    new, old = torch.linspace(-1, 1, 3 * 8 * 10).sin().view(1, 3, 8, 10), torch.zeros(1, 3, 8, 10)
    names = ("kind", "HF_Ratio(old,0.4)", "HF_Diff")
    row = [skipvar_tables._column(name, 1, new, old) for name in names]
    arrays = {"new_0_1": new.numpy(), "old_0_1": old.numpy(), "columns": ",".join(names), "rows": [row]}
    arrays |= {"kind": "skipvar_features", "config_json": "{}", "tolerances_json": '{"abs": 1e-7}', "batch2_l1": 1.0}
    report = parity.check(written(tmp_path / "own.npz", arrays))
    assert report.passed, report.render()
    assert any("NOT COMPARED" in note and "batch2_l1" in note for note in report.notes)
