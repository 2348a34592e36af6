"""Parity of VAR and FreqExit: passes on the official goldens, fails when anything in a golden or a model is off."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden_files import HERE, SHARED, altered, content, failed, nudge, passes, written
from varlab import parity
from varlab.accelerators.freqexit import FreqExit
from varlab.engine.hooks import Accelerator
from varlab.errors import VarlabError
from varlab.parity.golden import Golden
from varlab.parity.run import generate
from varlab.parity.var_setup import setup
from varlab.training.freqexit import curriculum, losses

MODEL, LOSSES = HERE / "var_nol2_small.npz", HERE / "freqexit_losses_small.npz"
EXITS = HERE / "freqexit_model_small.npz"
NAMES = ["var_base", "var_saln", "var_nol2", "var_full10", "var_sampling"]
NAMES += ["freqexit_model", "freqexit_losses", "freqexit_fgsr_legacy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shared_goldens_pass_and_leave_nothing_out(name):
    passes(SHARED / f"{name}.npz")


# What must fail


@pytest.mark.parametrize(
    ("key", "shows_in"),
    [
        ("blocks.2.attn.v_bias", "ar_s*_logits_cond"),
        ("class_emb.weight", "ar_s*_hidden_last"),
        ("quantize.quant_resi.qresi.weight", "ar_f_hat_final"),
        ("encoder.mid.attn_1.qkv.weight", "enc_f"),
    ],
)
def test_a_changed_weight_fails(monkeypatch, key, shows_in):
    nudge(monkeypatch, "var_rule", key)
    assert shows_in in failed(parity.check(MODEL))


@pytest.mark.parametrize(
    ("change", "shows_in"),
    [
        ({"cfg": 0.01}, "ar_s*_logits_cfg"),
        ({"l2": True}, "ar_s*_logits_cond"),
        ({"seed": 28}, "tf_gt_ids"),
        ({"labels": [3]}, "labels"),
        ({"heads": 4}, "ar_s*_logits_uncond"),
        ({"imgs": 2}, "enc_f"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_changed_setting_fails(tmp_path, change, shows_in):
    assert shows_in in failed(parity.check(altered(MODEL, tmp_path, config_json=change)))


@pytest.mark.parametrize("name", ["ar_s2_ids", "enc_ids"])
def test_a_flipped_index_fails(tmp_path, name):
    ids = content(MODEL)[name]
    ids.flat[3] ^= 1
    assert name in {row.name for row in parity.check(altered(MODEL, tmp_path, **{name: ids})).failures}


def test_a_flip_at_a_near_tie_is_forced_and_counted(tmp_path):
    """The two likeliest codes of the last stage's least certain token change places, and its logits nearly tie."""
    arrays = content(MODEL)
    logits, ids = arrays["ar_s3_logits_cfg"], arrays["ar_s3_ids"]
    order = np.sort(logits, -1)
    token = int((order[..., -1] - order[..., -2]).argmin())
    second = int(logits[0, token].argsort()[-2])
    ids[0, token] = second
    logits[0, token, second] = logits[0, token].max() + 1e-5
    changes: dict[str, Any] = {name: None for name in arrays if "f_hat_final" in name or "s3_f_hat" in name}
    changes |= {"ar_s3_logits_cfg": logits, "ar_s3_ids": ids}
    report = parity.check(altered(MODEL, tmp_path, **changes))
    assert report.forced_near_ties == 1
    assert "ar_s3_ids" not in {row.name for row in report.failures}


@pytest.mark.parametrize("name", ["hf_value", "fgsr_zero_value_step7_l19", "dwt13_H", "hf_grad_l6", "ee_value"])
def test_one_wrong_loss_fails(tmp_path, name):
    values = content(LOSSES)[name] * 1.001
    assert name in {row.name for row in parity.check(altered(LOSSES, tmp_path, **{name: values})).failures}


def test_a_wrong_table_entry_fails(tmp_path):
    table = content(LOSSES)["trainstep_table"]
    table[4, 6] *= 1.001
    assert failed(parity.check(altered(LOSSES, tmp_path, trainstep_table=table))) == {"trainstep_table_hf_scale"}


def test_the_corrected_switches_are_not_the_official_values(monkeypatch):
    monkeypatch.setattr(losses.FrequencyLoss, "__init__", _transposed(losses.FrequencyLoss.__init__))
    assert "hf_value" in failed(parity.check(LOSSES))


def _transposed(init):
    def changed(self, sides, layout="transposed", *rest, **options):
        init(self, sides, "transposed", *rest, **options)

    return changed


def test_other_masks_and_caches_fail(monkeypatch):
    rates = curriculum.drop_rates
    monkeypatch.setattr(curriculum, "drop_rates", lambda depth, most=0.1: rates(depth, 2 * most))
    monkeypatch.setattr(FreqExit, "plan", Accelerator.plan)  # of the images, which no training mask reaches
    wrong = failed(parity.check(EXITS))
    assert "train_step*_pmax*_sample_masks" in wrong and any("kv_len_per_block" in family for family in wrong)


def test_what_the_run_cannot_be_rebuilt_without_is_named(tmp_path):
    arrays = content(MODEL)
    config = json.loads(str(arrays["config_json"]))
    for name in ("seed", "depth", "patch_nums", "labels", "cfg"):
        less = {key: value for key, value in config.items() if key != name}
        with pytest.raises(VarlabError, match=f"config_json lacks '{name}'"):
            parity.check(written(tmp_path / "less.npz", arrays | {"config_json": json.dumps(less)}))


# Runs of other shapes: a golden written from the engine's own run must be read back as the same run

BASE = {"seed": 5, "B": 2, "labels": [1, 0], "cfg": 2.0, "num_classes": 3, "depth": 3, "heads": 2, "embed": 32,
        "shared_aln": False, "l2": True, "patch_nums": [1, 2, 4], "V": 24, "Cvae": 4,
        "ch": 32, "qsr": 4, "imgs": 1}  # fmt: skip
SHAPES = {
    "base": {},
    "one convolution a stage, shared modulation": {"qsr": 0, "shared_aln": True, "depth": 1},
    "three convolutions, plain products": {"qsr": 3, "l2": False, "labels": [2], "patch_nums": [1, 1, 2, 3]},
    "one stage": {"patch_nums": [1], "qsr": 1},
}
TOLERANCES = {"logits_abs": 1e-5, "latents_abs": 1e-5, "image_abs": 1e-5, "smooth_abs": 1e-3}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_other_shapes_run(tmp_path, changes):
    config = BASE | changes
    rebuilt = setup(Golden(tmp_path / "own.npz", "var", config, TOLERANCES, {}))
    outcome = generate(rebuilt, {})
    arrays: dict[str, Any] = {
        "kind": "var",
        "config_json": json.dumps(config),
        "tolerances_json": json.dumps(TOLERANCES),
    }
    for k in rebuilt.stages:
        arrays[f"ar_s{k}_ids"] = outcome.capture.labels[k].numpy().astype(np.int32)
        arrays[f"ar_s{k}_logits_cfg"] = outcome.capture.final[k].numpy()
    arrays["image"] = outcome.generation.image.numpy()
    with torch.inference_mode():
        arrays["enc_f"] = rebuilt.tokenizer.latent(rebuilt.image()).numpy()
    report = parity.check(written(tmp_path / "own.npz", arrays))
    assert report.passed, report.render()
