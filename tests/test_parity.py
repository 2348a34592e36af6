"""Parity passes on the official goldens, and fails when anything in a golden or in the model is off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden_files import HERE, SHARED, altered, content, failed, nudge, passes, written
from varlab import parity
from varlab.errors import VarlabError
from varlab.parity import golden as golden_files
from varlab.parity import infinity, weights
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity_setup import setup
from varlab.parity.report import ArrayCheck, Report
from varlab.parity.run import generate

MODEL, VAE = HERE / "infinity_C_small.npz", HERE / "infinity_vae_sq.npz"


# What must pass


OWN = [path for path in sorted(HERE.glob("*.npz")) if not path.stem.startswith(("skipvar", "fastvar_infinity"))]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_own_copies_pass_and_leave_nothing_out(path):
    report = passes(path)
    assert report.render().endswith(f"PASS: {len(report.rows)} arrays within tolerance")


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


def test_an_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(VarlabError, match=r"kind of golden 'infinty'\. Did you mean infinity.*infinity_rope"):
        parity.check(altered(MODEL, tmp_path, kind="infinty"))


def test_damaged_files_say_so(tmp_path):
    broken = tmp_path / "broken.npz"
    data = MODEL.read_bytes()
    for damage in (b"", b"not an archive", data[: len(data) // 2], data[:60] + b"\0" * 40_000 + data[40_060:]):
        broken.write_bytes(damage)
        with pytest.raises(VarlabError, match=r"broken\.npz .*(cannot be read|no 'kind')"):
            parity.check(broken)
    with pytest.raises(VarlabError, match="There is no golden file"):
        parity.check(tmp_path / "absent.npz")
    with pytest.raises(VarlabError, match="cannot be read"):
        parity.check(written(tmp_path / "pickled.npz", content(MODEL) | {"extra": np.array([{}], dtype=object)}))


@pytest.mark.parametrize("name", ["kind", "config_json", "tolerances_json"])
def test_a_missing_header_is_named(tmp_path, name):
    with pytest.raises(VarlabError, match=f"has no '{name}' array"):
        parity.check(altered(MODEL, tmp_path, **{name: None}))


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "must be a JSON object")])
def test_a_header_that_is_no_object_is_refused(tmp_path, text, message):
    with pytest.raises(VarlabError, match=f"config_json.*{message}"):
        parity.check(altered(MODEL, tmp_path, config_json=text))


def test_what_the_run_cannot_be_rebuilt_without_is_named(tmp_path):
    arrays = content(MODEL)
    config = json.loads(str(arrays["config_json"]))
    for name in ("seed", "depth", "schedule", "lens"):
        less = {key: value for key, value in config.items() if key != name}
        with pytest.raises(VarlabError, match=f"config_json lacks '{name}'"):
            parity.check(written(tmp_path / "less.npz", arrays | {"config_json": json.dumps(less)}))
    with pytest.raises(VarlabError, match="no number for 'logits_rel'"):
        parity.check(altered(MODEL, tmp_path, tolerances_json='{"hidden_rel": 1e-5}'))
    with pytest.raises(VarlabError, match="neither official nor custom"):
        parity.check(altered(MODEL, tmp_path, config_json={"table": "mine"}))
    with pytest.raises(VarlabError, match="neither random nor vae"):
        parity.check(altered(MODEL, tmp_path, config_json={"gt_leak": 1, "leak_kind": "mine"}))


def test_an_array_that_no_check_knows_is_noted(tmp_path):
    report = parity.check(altered(VAE, tmp_path, mystery=np.zeros(3), bits_4=np.zeros(0)))
    assert report.passed
    assert any(note.startswith("NOT COMPARED") and "mystery" in note for note in report.notes)
    assert any(note.startswith("empty") and "bits_4" in note for note in report.notes)


# Runs of other shapes: a golden written from the engine's own run must be read back as the same run

BASE = {"seed": 7, "depth": 3, "dim": 64, "heads": 4, "chunks": 3, "Ct5": 128, "bits": 4, "lens": [3],
        "schedule": [[1, 1, 1], [1, 2, 3], [1, 3, 5]], "table": "custom", "text_maxlen": 12,
        "vae": {"base_ch": 24, "ch_mult": [1, 1], "nres": 1, "patch": 2}}  # fmt: skip
SHAPES = {
    "defaults": {},
    "grids without t": {"schedule": [[1, 1], [2, 2]], "cfg": 1, "tau": 0.5},
    "guided on logits and a layer": {"insert": [0, -2], "cfg": [2.0, 1.0, 3.0, 9.0], "lens": [3, 5, 2]},
    "layer 1 guides nothing": {"insert": [1]},
    "leaked through the tokenizer, patchified": {"patchify": 1, "gt_leak": 2, "leak_kind": "vae", "lens": [4, 2]},
    "all stages leaked, negative prompts": {"gt_leak": 9, "neg_lens": [2, 6], "lens": [5, 1], "keep_rows": [0, 3]},
    "no leak": {"gt_leak": -1, "ca_bf16": True},
    "released table, wide": {
        "table": "official",
        "schedule": [[1, 1, 1], [1, 2, 2], [1, 2, 4], [1, 3, 6], [1, 5, 10]],
    },
}
TOLERANCES = {"hidden_rel": 1e-6, "logits_rel": 1e-6, "decoded_abs": 1e-6, "uint8_abs": 0, "labels": "exact"}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_other_shapes_run(tmp_path, changes):
    config = BASE | changes
    bare = Golden(tmp_path / "own.npz", "infinity", config, TOLERANCES, {})
    rebuilt = setup(bare)
    model = rebuilt.model
    outcome = generate(rebuilt, {k: model.labels_of(bits) for k, bits in rebuilt.leaked.items()})
    arrays: dict[str, Any] = {
        "kind": "infinity", "config_json": json.dumps(config), "tolerances_json": json.dumps(TOLERANCES),
        "image_uint8_bgr": outcome.image.numpy(), "summed_final": outcome.generation.canvas.numpy(),
    }  # fmt: skip
    rows = config.get("keep_rows", slice(None))
    arrays["last_block_out_2"] = outcome.capture.blocks[-1][2][rows].numpy()
    for k in rebuilt.stages:
        arrays[f"bits_sampled_{k}"] = outcome.capture.labels[k].numpy().astype(np.int8)
        arrays[f"logits_final_{k}"] = outcome.capture.final[k].numpy()
        arrays[f"bits_used_{k}"] = (outcome.capture.codes[k].movedim(1, -1)[:, None] > 0).numpy().astype(np.int8)
    report = parity.check(written(bare.path, arrays))
    assert report.passed, report.render()
    assert len(report.rows) == 3 * len(rebuilt.stages) + 3


def test_the_path_follows_what_the_golden_used():
    """Used bits first, then leaked ones, then sampled ones; of a wrong shape none."""
    stored = golden_files.load(MODEL)
    rebuilt = setup(stored)
    path = infinity.path(stored, rebuilt, 3)
    del stored.arrays["bits_used_3"]
    again = infinity.path(stored, rebuilt, 3)
    assert path is not None and again is not None and torch.equal(path, again)
    stored.arrays["bits_sampled_3"] = stored.arrays["bits_sampled_3"][:, :-1]
    assert infinity.path(stored, rebuilt, 3) is None


def test_guidance_after_a_layer_leaves_the_branches_apart_at_scale_one():
    config = BASE | {"insert": [-2], "cfg": [2.0, 1.0, 3.0]}
    rebuilt = setup(Golden(Path("own.npz"), "infinity", config, TOLERANCES, {}))
    mixed = [rebuilt.model.guidance(k, rebuilt.settings, guided=True).blocks for k in rebuilt.stages]
    assert mixed == [(1,), (), (1,)]


# The report


def test_render_shows_failures_and_the_worst_of_each_family():
    def row(name: str, error: float, ok: bool = True) -> ArrayCheck:
        return ArrayCheck(name, (2, 3), error, error, 1e-3, ok)

    rows = [row("logits_0", 1e-9), row("logits_1", 1e-4), row("codes_0", 1.0, ok=False), row("codes_1", 1e-9)]
    report = Report(Path("some.npz"), "infinity", rows)
    text = report.render()
    assert "logits_* (2)" in text and "1.0e-04" in text and "codes_0" in text
    assert "codes_1" not in text
    assert "codes_1" in report.render(every=True)
    assert text.endswith("FAIL: 1 of 4 arrays out of tolerance")


def test_numbers_belong_to_a_name_and_a_seed():
    assert weights.normal("a", 1, (3,)).tolist() == weights.normal("a", 1, (3,)).tolist()
    assert weights.normal("a", 1, (3,)).tolist() != weights.normal("a", 2, (3,)).tolist()
    assert not weights.leaked_bits(0, 7, 1, (2, 2), 4).equal(weights.leaked_bits(1, 7, 1, (2, 2), 4))
