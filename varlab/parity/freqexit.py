"""Golden runs of FreqExit: early exits through the engine, and the training forward with its layer dropout."""

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.accelerators.freqexit import FreqExit
from varlab.models.layers import block_causal_attend
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.run import gap, generate, margin_of
from varlab.parity.var import LAST
from varlab.parity.var_setup import Setup, setup
from varlab.training.freqexit import curriculum


def compare(comparison: Comparison) -> None:
    """Every exit run of every model, the training forward at every update, and the schedules."""
    golden = comparison.golden
    for name, config in golden.require("models").items():
        rebuilt = setup(golden, config)
        for run in golden.matching(rf"({name}_[a-z0-9]+)_exits"):
            _compare_run(comparison, rebuilt, run[1])
    config = _train_config(golden)
    comparison.known("train_config_json")
    if config is not None:
        _compare_training(comparison, setup(golden, config))
    _compare_schedules(comparison)


def _compare_run(comparison: Comparison, rebuilt: Setup, prefix: str) -> None:
    """One image, forced along the golden's indices; what the engine would have drawn is held against them."""
    golden = comparison.golden
    exits, label = golden.array(f"{prefix}_exits"), golden.arrays.get(f"{prefix}_label")
    rebuilt = replace(rebuilt, text=rebuilt.text[:1] if label is None else torch.tensor([int(label)]))
    comparison.known(f"{prefix}_exits", f"{prefix}_label")
    ids = golden.tensor(f"{prefix}_ids", (1, sum(rebuilt.lengths)))
    path = () if ids is None else ids.long().split(rebuilt.lengths, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rising exits are meant
        accelerator = FreqExit("/".join(map(str, exits.tolist())))
        outcome = generate(rebuilt, dict(enumerate(path)), [accelerator])
    guided, drawn = torch.cat(outcome.capture.final, 1), torch.cat(outcome.capture.labels, 1)
    margins, stored, count = gap(guided), None, 0
    for found in golden.matching(rf"{prefix}_logits_cfg(_first\d+)?"):  # of all tokens or of the first ones
        count = golden.arrays[found[0]].shape[1]
        stored = golden.tensor(found[0], guided[:, :count].shape)
        comparison.absolute(found[0], guided[:, :count], "logits_abs")
    smallest = golden.arrays.get(f"{prefix}_min_margin")
    known, least = None if stored is None else gap(stored), None if smallest is None else float(smallest)
    comparison.labels(
        f"{prefix}_ids", drawn, margin_of(margins, known, least, slice(count)), golden.tolerance("logits_abs")
    )
    comparison.absolute(f"{prefix}_f_hat_final", outcome.generation.canvas, "latents_abs")
    comparison.equal(f"{prefix}_kv_len_per_block", np.array(outcome.state.kv.lengths))
    comparison.absolute(f"{prefix}_min_margin", margins.min(), "logits_abs")


def _train_config(golden: Golden) -> dict[str, Any] | None:
    text = golden.arrays.get("train_config_json")
    config = golden.config.get("train") if text is None else json.loads(str(text))
    return config if isinstance(config, dict) else None


def _compare_training(comparison: Comparison, rebuilt: Setup) -> None:
    """Masks and supervised layers of each update, and the logits of those layers from the shared head."""
    model, golden = rebuilt.model, comparison.golden
    config = model.transformer.config
    pyramid = rebuilt.pyramid()
    comparison.equal("train_gt_ids", torch.cat(pyramid, 1))
    inputs = rebuilt.tokenizer.inputs(pyramid, rebuilt.grids)
    attend = block_causal_attend(config.lengths, config.attention_scale)
    if comparison.wants("teacher_logits_forward_orig"):
        logits = model.transformer(rebuilt.text, inputs, attend)
        comparison.absolute("teacher_logits_forward_orig", logits, "logits_abs")
    for found in golden.matching(r"(train_step(\d+)_pmax([\d.]+))_sample_masks"):
        _compare_update(comparison, rebuilt, inputs, found[1], int(found[2]), float(found[3]))


def _compare_update(
    comparison: Comparison, rebuilt: Setup, inputs: list[Tensor], prefix: str, step: int, most: float
) -> None:
    model, golden = rebuilt.model, comparison.golden
    config, groups = model.transformer.config, _groups(golden)
    masks = curriculum.executed(step, config.depth, rebuilt.batch, most)
    comparison.equal(f"{prefix}_sample_masks", masks)
    turn = torch.zeros(config.depth, dtype=torch.bool)
    turn[curriculum.rotation(step, config.depth, groups)] = True
    comparison.equal(f"{prefix}_supervise_mask", turn)
    layers = curriculum.supervised(step, config.depth, groups)
    comparison.equal(f"{prefix}_logit_layers", np.array(layers))
    attend = block_causal_attend(config.lengths, config.attention_scale)
    states = list(model.transformer.states(rebuilt.text, inputs, attend, masks))
    head = model.transformer.head_modulation(model.transformer.class_emb(rebuilt.text))
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
