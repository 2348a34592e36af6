"""Golden files that cannot be checked, runs of other shapes, and the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden_files import altered, content, written
from tests.parity_files import MODEL, VAE
from varlab import parity
from varlab.errors import VarlabError
from varlab.parity import golden as golden_files
from varlab.parity import weights
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.infinity_setup import setup
from varlab.parity.report import ArrayCheck, Report
from varlab.parity.run import generate


def test_an_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(VarlabError, match=r"kind of golden 'infinty'\. Did you mean infinity.*infinity_rope"):
        parity.check(altered(MODEL, tmp_path, kind="infinty"))


def test_damaged_files_say_so(tmp_path):
    broken = tmp_path / "broken.npz"
    data = MODEL.read_bytes()
    for damage in (b"", b"not an archive", data[: len(data) // 2], data[:60] + b"\0" * 40_000 + data[40_060:]):
        broken.write_bytes(damage)
        with pytest.raises(VarlabError, match=r"broken\.npz"):
            parity.check(broken)
    with pytest.raises(VarlabError, match="There is no golden file"):
        parity.check(tmp_path / "absent.npz")
    with pytest.raises(VarlabError, match="pickled"):
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
    path = rebuilt.path(stored, 3)
    del stored.arrays["bits_used_3"]
    again = rebuilt.path(stored, 3)
    assert path is not None and again is not None and torch.equal(path, again)
    stored.arrays["bits_sampled_3"] = stored.arrays["bits_sampled_3"][:, :-1]
    assert rebuilt.path(stored, 3) is None


def test_guidance_after_a_layer_leaves_the_branches_apart_at_scale_one():
    config = BASE | {"insert": [-2], "cfg": [2.0, 1.0, 3.0]}
    rebuilt = setup(Golden(Path("own.npz"), "infinity", config, TOLERANCES, {}))
    mixed = [rebuilt.model.guidance(k, rebuilt.settings, guided=True).blocks for k in rebuilt.stages]
    assert mixed == [(1,), (), (1,)]


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


def held(arrays: dict[str, Any], ours: dict[str, Any], **rules: str) -> dict[str, float]:
    """What each of our arrays may be off by."""
    golden = Golden(Path("made-up.npz"), "made-up", {}, {"near_rel": 0.1, "near_abs": 0.1, "grad_abs": 0.1}, arrays)
    comparison = Comparison(golden, rules)
    comparison.hold(ours)
    assert not any("NOT COMPARED" in note for note in comparison.finish().notes)
    return {row.name: row.allowed for row in comparison.result.rows}


def test_each_array_is_held_to_the_first_rule_that_fits_its_name() -> None:
    arrays = {name: np.array([4.0]) for name in ("given_a", "same_a", "share_a", "grad_a", "whole_a")}
    arrays |= {"grad_tiny": np.array([0.5])}
    ours = {name: array for name, array in arrays.items() if name != "given_a"} | {"absent": np.zeros(1)}
    rules = {"given": "given_*", "equal": "same_*", "near_rel": "share_*", "grad_abs": "grad_*", "near_abs": "*"}
    assert held(arrays, ours, **rules) == pytest.approx(
        {"same_a": 0.0, "share_a": 0.4, "grad_a": 0.1, "grad_tiny": 0.05, "whole_a": 0.1}
    )


def test_an_array_without_a_rule_is_refused() -> None:
    with pytest.raises(LookupError, match="say nothing of other"):
        held({"other": np.zeros(1)}, {"other": np.zeros(1)}, equal="same_*")
