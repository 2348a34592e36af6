"""Parity passes on the official goldens, and fails when anything in a golden or in the model is off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden_files import HERE, SHARED, altered, content, failed, nudge, passes, written
from tests.parity_files import MODEL, VAE
from varlab import parity
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden

# What must pass


OWN = [path for path in sorted(HERE.glob("*.npz")) if not path.stem.startswith(("skipvar", "fastvar_infinity"))]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_own_copies_pass_and_leave_nothing_out(path):
    report = passes(path, ties=1 if path.stem == "fastvar_hart_small" else 0)  # rounding sways one of its residuals
    assert report.render().endswith(f"PASS: {len(report.rows)} arrays within tolerance")


def test_a_canvas_that_rounding_does_not_explain_fails(tmp_path):
    """Its last stage adds what the diffusion head drew, of which rounding excuses single elements, not these."""
    path = HERE / "fastvar_hart_small.npz"
    canvas = content(path)["f_hat_final"]
    canvas[0, 0, :2, :2] += 1e-3
    assert failed(parity.check(altered(path, tmp_path, f_hat_final=canvas))) == {"f_hat_final"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E", "vae_sq", "vae_f16", "vae_f8_wide", "sampling", "rope"])
def test_shared_goldens_pass_and_leave_nothing_out(name):
    path = SHARED / f"infinity_{name}.npz"
    report = passes(path)
    compared = {row.name for row in report.rows}
    left = {name for name, array in content(path).items() if array.size and name not in compared}
    assert {n for n in left if not n.startswith(("idx_", "schedules_json"))} <= {
        "kind", "config_json", "tolerances_json", "logits", "square_rows"
    }  # fmt: skip


def test_every_bit_is_counted_and_the_free_run_reported():
    report = parity.check(MODEL)
    assert (report.bits_compared, report.bit_mismatches, report.forced_near_ties) == (185 * 24, 0, 0)
    assert any("unforced run: all bits reproduced" in note for note in report.notes)


# What must fail


@pytest.mark.parametrize(
    ("key", "shows_in"),
    [
        ("block_chunks.1.module.1.ffn.fc2.weight", "logits_cond_*"),
        ("text_proj_for_sos.ca.mat_q", "cond_BD"),
        ("lvl_embed.weight", "first_block0_in"),
        ("decoder.conv_out.conv.bias", "decoded"),
    ],
)
def test_a_changed_weight_fails(monkeypatch, key, shows_in):
    nudge(monkeypatch, "infinity_rule", key, 1.001)
    assert shows_in in failed(parity.check(MODEL))


@pytest.mark.parametrize(
    ("change", "shows_in"),
    [
        ({"cfg": [3.0, 3.0, 3.0, 3.001, 3.0, 3.0]}, "logits_final_*"),
        ({"tau": 1.001}, "logits_final_*"),
        ({"insert": [-1]}, "logits_uncond_*"),
        ({"seed": 154}, "text_features"),
        ({"vae_seed": 204}, "decoded"),
        ({"neg_lens": None}, "text_normed"),
        ({"gt_leak": 1}, "bits_used_*"),
        ({"schedule": [[1, 1, 1], [1, 2, 2], [1, 2, 3], [1, 4, 6], [1, 6, 9], [1, 8, 11]]}, "logits_cond_*"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_changed_setting_fails(tmp_path, change, shows_in):
    assert shows_in in failed(parity.check(altered(MODEL, tmp_path, config_json=change)))


@pytest.mark.parametrize("name", ["bits_sampled_2", "bits_used_5"])
def test_a_flipped_bit_fails(tmp_path, name):
    bits = content(MODEL)[name]
    bits.flat[3] ^= 1
    report = parity.check(altered(MODEL, tmp_path, **{name: bits}))
    assert name.replace(name[-1], "*") in failed(report)
    assert report.forced_near_ties == 0


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (MODEL, "logits_uncond_3"),
        (MODEL, "block_stats"),
        (MODEL, "last_block0_sa_out"),
        (VAE, "h"),
        (VAE, "recon_from_bits"),
        (HERE / "infinity_sampling.npz", "probs_k0_p09"),
        (HERE / "infinity_rope.npz", "cos_stage_sum_1.5"),
        (HERE / "infinity_rope.npz", "x_0.75"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_one_wrong_number_fails(tmp_path, path, name):
    for wrong in (1, np.nan):
        values = content(path)[name]
        if wrong is np.nan and values.dtype.kind != "f":
            continue
        values.flat[-1] += wrong
        report = parity.check(altered(path, tmp_path, **{name: values}))
        failed(report)
        assert [row.name for row in report.failures] == [name]


def test_a_wrong_schedule_fails(tmp_path):
    path = HERE / "infinity_rope.npz"
    tables = json.loads(str(content(path)["schedules_json"]))
    tables["0.5"]["0.25M"][3] = [1, 3, 7]
    assert failed(parity.check(altered(path, tmp_path, schedules_json=json.dumps(tables)))) == {"schedules_json_*"}


def test_nothing_to_compare_is_no_pass(tmp_path):
    arrays = {name: array for name, array in content(MODEL).items() if name.endswith("_json") or name == "kind"}
    report = parity.check(written(tmp_path / "bare.npz", arrays))
    assert not report.passed
    assert "nothing was compared" in report.render()


# Near ties


def with_flips(tmp_path: Path, count: int, logits_tolerance: float) -> Path:
    """The model golden with its ``count`` least certain bits of the last stage flipped, and nothing after them."""
    arrays = content(MODEL)
    z = arrays["logits_final_5"].reshape(*arrays["bits_sampled_5"].shape, 2)
    least = np.abs(z[..., 1] - z[..., 0]).argsort(axis=None)[:count]
    sampled = arrays["bits_sampled_5"]
    sampled.flat[least] ^= 1
    # Labels in token order to the latent grid, as pixel shuffle does it: channel = 4 * bit + 2 * dy + dx.
    used = sampled.reshape(1, 8, 12, 6, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(arrays["bits_used_5"].shape)
    return altered(
        MODEL, tmp_path, bits_sampled_5=sampled, bits_used_5=used, tolerances_json={"logits_rel": logits_tolerance},
        summed_final=None, decoded=None, image_uint8_bgr=None,
    )  # fmt: skip


def test_a_flip_at_a_near_tie_is_forced_and_counted(tmp_path):
    report = parity.check(with_flips(tmp_path, 3, logits_tolerance=0.02))
    assert report.passed, report.render()
    assert (report.bit_mismatches, report.forced_near_ties) == (3, 3)
    assert "forced near ties: 3" in report.render()
    assert any("bits first differ at stage 5" in note for note in report.notes)


def test_without_the_sampled_bits_the_used_ones_are_judged(tmp_path):
    flipped = with_flips(tmp_path, 3, logits_tolerance=0.02)
    report = parity.check(altered(flipped, tmp_path, **{f"bits_sampled_{k}": None for k in range(6)}))
    assert report.passed, report.render()
    assert (report.bits_compared, report.forced_near_ties) == (185 * 24, 3)


def test_the_same_flip_fails_where_the_margin_is_above_the_tolerance(tmp_path):
    report = parity.check(with_flips(tmp_path, 3, logits_tolerance=1e-5))
    assert failed(report) == {"bits_sampled_*", "bits_used_*"}
    assert report.forced_near_ties == 0


def test_more_than_five_near_ties_fail(tmp_path):
    report = parity.check(with_flips(tmp_path, 6, logits_tolerance=0.02))
    assert not report.failures
    assert not report.passed
    assert "too many near ties" in report.render()


def test_without_the_golden_margin_no_flip_is_excused():
    arrays = {"bits": np.array([0, 1, 1], dtype=np.int8)}
    golden = Golden(Path("made-up.npz"), "infinity", {}, {}, arrays)
    ours, margin = np.array([False, True, False]), np.array([1.0, 1.0, 1e-9])
    excused, strict = Comparison(golden), Comparison(golden)
    assert excused.labels("bits", ours, margin, 1e-6).tolist() == [False, True, True]
    assert strict.labels("bits", ours, None, 1e-6).tolist() == [False, True, False]
    assert excused.finish().passed
    assert not strict.finish().passed


def test_a_near_tie_of_the_tokenizer_does_not_cascade(tmp_path):
    """A latent value that rounds to the other side of zero flips its bit; later stages follow the golden's."""
    arrays = content(VAE)
    tolerance = 2.0 * float(np.abs(arrays["h"].mean((2, 3))).min())
    bits = arrays["bits_0"]
    bits.flat[np.abs(arrays["h"].mean((2, 3))).argmin()] ^= 1
    dropped: dict[str, Any] = {
        name: None for name in arrays if name.startswith(("var_", "summed", "recon", "z", "bits_"))
    }
    changes = dropped | {"bits_0": bits, "tolerances_json": {"abs": tolerance}}
    report = parity.check(altered(VAE, tmp_path, **changes))
    assert report.passed, report.render()
    assert report.forced_near_ties == 1


# Files that cannot be checked


# Runs of other shapes: a golden written from the engine's own run must be read back as the same run


# The report
