"""Golden runs of FreqExit: early exits through the engine, and the training forward with its layer dropout."""

import json
import re
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.freqexit import FreqExit
from varlab.models.layers import block_causal_attend
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.report import Report
from varlab.parity.var import LAST, margin_of
from varlab.parity.var_setup import Setup, generate, setup
from varlab.training.freqexit import curriculum


@torch.inference_mode()
def check(golden: Golden) -> Report:
    """Every exit run of every model, the training forward at every update, and the schedules."""
    comparison = Comparison(golden)
    for name, config in golden.require("models").items():
        rebuilt = setup(config, golden.path.stem)
        for run in _runs(golden, name):
            _compare_run(comparison, rebuilt, f"{name}_{run}")
    config = _train_config(golden)
    comparison.wants("train_config_json")
    if config is not None:
        _compare_training(comparison, setup(config, golden.path.stem))
    _compare_schedules(comparison)
    return comparison.finish()


def _runs(golden: Golden, name: str) -> list[str]:
    return [found[1] for key in golden.arrays if (found := re.fullmatch(rf"{name}_([a-z0-9]+)_exits", key))]


def _compare_run(comparison: Comparison, rebuilt: Setup, prefix: str) -> None:
    """One image, forced along the golden's indices; what the engine would have drawn is held against them."""
    golden = comparison.golden
    exits, label = golden.array(f"{prefix}_exits"), golden.arrays.get(f"{prefix}_label")
    labels = rebuilt.labels[:1] if label is None else torch.tensor([int(label)])
    for name in ("exits", "label"):
        comparison.wants(f"{prefix}_{name}")
    lengths = rebuilt.model.schedule.lengths
    ids = golden.arrays.get(f"{prefix}_ids")
    fits = ids is not None and ids.shape == (1, sum(lengths))
    path = torch.from_numpy(ids.astype(np.int64)).split(lengths, 1) if ids is not None and fits else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rising exits are meant
        accelerator = FreqExit("/".join(map(str, exits.tolist())))
        outcome = generate(rebuilt, dict(enumerate(path)), [accelerator], labels)
    guided, drawn = torch.cat(outcome.capture.guided, 1), torch.cat(outcome.capture.labels, 1)
    stored = next((n for n in golden.arrays if re.fullmatch(rf"{prefix}_logits_cfg(_first\d+)?", n)), None)
    if stored is not None:
        comparison.absolute(stored, guided[:, : golden.arrays[stored].shape[1]], "logits_abs")
    least = golden.arrays.get(f"{prefix}_min_margin")
    margin = margin_of(
        None if stored is None else golden.arrays[stored], guided, None if least is None else float(least)
    )
    comparison.labels(f"{prefix}_ids", drawn, margin, golden.tolerance("logits_abs"))
    comparison.absolute(f"{prefix}_f_hat_final", outcome.generation.canvas, "latents_abs")
    comparison.equal(f"{prefix}_kv_len_per_block", np.array(outcome.cache))
    top = guided.topk(2, dim=-1).values
    comparison.absolute(f"{prefix}_min_margin", (top[..., 0] - top[..., 1]).min(), "logits_abs")


def _train_config(golden: Golden) -> dict[str, Any] | None:
    text = golden.arrays.get("train_config_json")
    config = golden.config.get("train") if text is None else json.loads(str(text))
    return config if isinstance(config, dict) else None


def _compare_training(comparison: Comparison, rebuilt: Setup) -> None:
    """Masks and supervised layers of each update, and the logits of those layers from the shared head."""
    model, golden = rebuilt.model, comparison.golden
    config = model.transformer.config
    batch = len(rebuilt.labels)
    pyramid = rebuilt.pyramid(batch)
    comparison.equal("train_gt_ids", torch.cat(pyramid, 1))
    inputs = rebuilt.tokenizer.inputs(pyramid, rebuilt.grids)
    attend = block_causal_attend(config.lengths, config.attention_scale)
    if comparison.wants("teacher_logits_forward_orig"):
        logits = model.transformer(rebuilt.labels, inputs, attend)
        comparison.absolute("teacher_logits_forward_orig", logits, "logits_abs")
    for name in list(golden.arrays):
        found = re.fullmatch(r"(train_step(\d+)_pmax([\d.]+))_sample_masks", name)
        if found:
            _compare_update(comparison, rebuilt, inputs, found[1], int(found[2]), float(found[3]))


def _compare_update(
    comparison: Comparison, rebuilt: Setup, inputs: list[Tensor], prefix: str, step: int, most: float
) -> None:
    model, golden = rebuilt.model, comparison.golden
    config, groups = model.transformer.config, _groups(golden)
    masks = curriculum.executed(step, config.depth, len(rebuilt.labels), most)
    comparison.equal(f"{prefix}_sample_masks", masks)
    turn = torch.zeros(config.depth, dtype=torch.bool)
    turn[curriculum.rotation(step, config.depth, groups)] = True
    comparison.equal(f"{prefix}_supervise_mask", turn)
    layers = curriculum.supervised(step, config.depth, groups)
    comparison.equal(f"{prefix}_logit_layers", np.array(layers))
    attend = block_causal_attend(config.lengths, config.attention_scale)
    states = list(model.transformer.states(rebuilt.labels, inputs, attend, masks))
    head = model.transformer.head_modulation(model.transformer.class_emb(rebuilt.labels))
    for layer in layers:
        name = f"{prefix}_logits_l{layer}"
        kept = LAST if name in golden.arrays and golden.arrays[name].shape[1] == LAST else 0
        comparison.absolute(name, model.transformer.logits(states[layer], head)[:, -kept:], "logits_abs")


def _groups(golden: Golden) -> int:
    values = golden.arrays.get("train_R_pmax")
    return curriculum.ROTATION if values is None else int(values[0])


def _compare_schedules(comparison: Comparison) -> None:
    """Drop rates and layer weights of several depths; float64, so to its rounding."""

    def close(name: str, values: list[float], expected: np.ndarray) -> None:
        if comparison.wants(name):
            same = np.shape(values) == expected.shape and np.allclose(values, expected, rtol=1e-12, atol=1e-15)
            comparison.verify(name, bool(same), "" if same else "differs")

    for name, expected in comparison.golden.arrays.items():
        depth = expected.shape[0] if expected.ndim == 1 else 0
        if name.startswith("sched_drop_rate_d"):
            close(name, curriculum.drop_rates(depth), expected)
        elif name.startswith("sched_layer_weight_d") or name == "train_layer_weights":
            close(name, [curriculum.layer_weight(layer) for layer in range(depth)], expected)
        elif name == "train_d_layer":
            close(name, curriculum.drop_growth(depth), expected)
        elif name == "train_R_pmax":
            close(name, [curriculum.ROTATION, curriculum.MOST_DROPPED], expected)
