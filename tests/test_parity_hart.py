"""Parity of HART: passes on the official goldens, fails when anything in a golden or in the model is off."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden_files import HERE, SHARED, altered, content, failed_arrays, nudge, passes, written
from varlab import parity
from varlab.parity import hart
from varlab.parity.golden import Golden
from varlab.parity.hart_setup import setup

SMALL = HERE / "hart_c_small.npz"


def test_the_small_golden_passes_and_leaves_nothing_out() -> None:
    report = passes(SMALL)
    assert report.bits_compared == 313
    assert any("unforced run: all labels reproduced" in note for note in report.notes)


GOLDENS = [*(f"hart_{name}" for name in ("a", "b", "c", "d", "e", "vae", "sampling")), "fastvar_hart_a"]
TIES = {"fastvar_hart_a": 1}  # of 84,496 labels, as the processor rounds


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDENS)
def test_shared_goldens_pass_and_leave_nothing_out(name: str) -> None:
    passes(SHARED / f"{name}.npz", ties=TIES.get(name, 0))


@pytest.mark.parametrize(
    ("run", "shows_in"),
    [
        ({"cfg": 2.001}, "image"),
        ({"more_smooth": True}, "h.3"),
        ({"iters": 2}, "idx.7"),
        ({"final_stage": 1}, "f_hat_final"),
        ({"pad": "left"}, "context_mask"),
        ({"seed": 10}, "context"),
    ],
)
def test_a_changed_setting_fails(tmp_path: Path, run: dict[str, Any], shows_in: str) -> None:
    config = json.loads(str(content(SMALL)["config_json"]))
    changed = altered(SMALL, tmp_path, config_json={"config": config["config"] | run})
    assert shows_in in failed_arrays(parity.check(changed))


@pytest.mark.parametrize("name", ["idx.2", "idx.8", "h.4", "diff_out.1", "image", "block_out.0.last", "maskgit_orders"])
def test_one_wrong_number_fails(tmp_path: Path, name: str) -> None:
    values = content(SMALL)[name]
    values.flat[2] += 1
    assert name in failed_arrays(parity.check(altered(SMALL, tmp_path, **{name: values})))


@pytest.mark.parametrize(
    "key", ["blocks.2.ln_wo_grad.weight", "diffloss.net.cond_embed.weight", "vae.decoder.conv_out.bias"]
)
def test_a_changed_weight_fails(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    nudge(monkeypatch, "hart_rule", key)
    assert not parity.check(SMALL).passed


BASE = {"seed": 7, "V": 40, "cfg": 3.0, "lens": [3], "more_smooth": False}
MODEL = {"depth": 2, "embed_dim": 32, "num_heads": 2, "context_token": 5, "context_dim": 12, "diff_width": 16,
         "diff_depth": 1, "num_sampling_steps": "4"}  # fmt: skip
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smooth, three passes, batch 3": ({"more_smooth": True, "iters": 3, "lens": [5, 2, 1]}, {}),
    "guidance of exactly 1 at the last stage": ({"cfg": 2.0, "sides": [1, 2, 3]}, {}),
    "no guidance": ({"cfg": 0.0, "lens": [2, 4], "pad": "left"}, {}),
    "mean pooling": ({}, {"disable_aln": False, "sep_aln_pooling_mode": "avg"}),
    "both modulations, learned levels": ({}, {"disable_aln": False, "shared_aln": True, "use_timestep_embed": False}),
    "more passes than tokens": ({"iters": 12, "sides": [1, 2]}, {"attn_l2_norm": True}),
    "discrete only, another ratio": ({"final_stage": 2}, {"mlp_ratio": 3.0, "use_context_norm": False}),
}  # fmt: skip
TOLERANCES = dict.fromkeys(("logits_abs", "logits_cfg_abs", "blocks_abs", "latents_abs", "image_abs"), 1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_other_shapes_run(tmp_path: Path, name: str) -> None:
    """A golden written from the engine's own run is read back as the same run, pass by pass."""
    run, variant = BASE | SHAPES[name][0], MODEL | SHAPES[name][1]
    model = variant | {"patch_nums": run.pop("sides", [1, 2, 3, 4])}
    vae = {"z_channels": 4, "ch": 32, "ch_mult": [1, 1], "vocab_size": 40}
    config = {"config": run, "model": model, "vae": vae}
    bare = Golden(tmp_path / "own.npz", "hart", config, TOLERANCES, {})
    rebuilt = setup(bare)
    outcome = hart.generate(rebuilt, {})
    arrays: dict[str, Any] = {
        "kind": "hart",
        "config_json": json.dumps(config),
        "tolerances_json": json.dumps(TOLERANCES),
    }
    for k in rebuilt.stages:
        for i, place in enumerate(rebuilt.passes(k)):
            arrays[f"idx.{k + i}"] = outcome.capture.labels[k].gather(1, place).numpy()
    arrays["image"] = outcome.generation.image.numpy()
    written(bare.path, arrays)
    report = parity.check(bare.path)
    assert report.passed, report.render()
    assert len(report.rows) == len(arrays) - 3
