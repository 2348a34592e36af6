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
from varlab.parity.comparison import Comparison, held_to
from varlab.parity.run import gap, generate, margin_of
from varlab.parity.var import LAST
from varlab.parity.var_setup import Setup, setup
from varlab.training.freqexit import curriculum


@held_to(
    given="train_config_json",
    equal="*_kv_len_per_block train_gt_ids train_*_masks train_*_mask train_*_logit_layers",
    logits_abs="*_logits_* *_min_margin",
    latents_abs="*_f_hat_final",
)
def compare(comparison: Comparison) -> None:
    """Every exit run of every model, the training forward at every update, and the schedules."""
    golden = comparison.golden
    for name, config in golden.require("models").items():
        rebuilt = setup(golden, config)
        for run in golden.matching(rf"({name}_[a-z0-9]+)_exits"):
            _compare_run(comparison, rebuilt, run[1])
    text = golden.arrays.get("train_config_json")
    config = golden.config.get("train") if text is None else json.loads(str(text))
    if isinstance(config, dict):
        _compare_training(comparison, setup(golden, config))
    _compare_schedules(comparison)


def _compare_run(comparison: Comparison, rebuilt: Setup, prefix: str) -> None:
    """One image, forced along the golden's indices; what the engine would have drawn is held against them."""
    golden = comparison.golden
    exits, label = golden.array(f"{prefix}_exits"), golden.arrays.get(f"{prefix}_label")
    text = rebuilt.text[:1] if label is None else torch.tensor([int(label)])
    comparison.known(f"{prefix}_exits", f"{prefix}_label")
    ids = golden.tensor(f"{prefix}_ids", (1, sum(rebuilt.lengths)))
    path = () if ids is None else ids.long().split(rebuilt.lengths, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rising exits are meant
        accelerator = FreqExit("/".join(map(str, exits.tolist())))
        outcome = generate(replace(rebuilt, text=text, batch=1), dict(enumerate(path)), [accelerator])
    guided, drawn = torch.cat(outcome.capture.final, 1), torch.cat(outcome.capture.labels, 1)
    stored, count = None, 0
    for found in golden.matching(rf"{prefix}_logits_cfg(_first\d+)?"):  # of all tokens or of the first ones
        count = golden.arrays[found[0]].shape[1]
        stored = golden.tensor(found[0], guided[:, :count].shape)
        comparison.hold({found[0]: guided[:, :count]})
    smallest = golden.arrays.get(f"{prefix}_min_margin")
    margin = margin_of(guided, stored, None if smallest is None else float(smallest), slice(count))
    comparison.labels(f"{prefix}_ids", drawn, margin, golden.tolerance("logits_abs"))
    values = {
        "f_hat_final": outcome.generation.canvas,
        "kv_len_per_block": torch.tensor(outcome.state.kv.lengths),
        "min_margin": gap(guided).min(),
    }
    comparison.hold({f"{prefix}_{name}": value for name, value in values.items()})


def _compare_training(comparison: Comparison, rebuilt: Setup) -> None:
    """Masks and supervised layers of each update, and the logits of those layers from the shared head."""
    golden, pyramid = comparison.golden, rebuilt.pyramid()
    comparison.hold({"train_gt_ids": torch.cat(pyramid, 1)})
    if comparison.wants("teacher_logits_forward_orig"):
        comparison.hold({"teacher_logits_forward_orig": rebuilt.forward(rebuilt.text, pyramid)})
    inputs = rebuilt.tokenizer.inputs(pyramid, rebuilt.grids)
    for found in golden.matching(r"(train_step(\d+)_pmax([\d.]+))_sample_masks"):
        _compare_update(comparison, rebuilt, inputs, found[1], int(found[2]), float(found[3]))


def _compare_update(
    comparison: Comparison, rebuilt: Setup, inputs: list[Tensor], prefix: str, step: int, most: float
) -> None:
    model, golden = rebuilt.model, comparison.golden
    config, stated = model.transformer.config, golden.arrays.get("train_R_pmax")
    groups = curriculum.ROTATION if stated is None else int(stated[0])
    masks = curriculum.executed(step, config.depth, rebuilt.batch, most)
    turn = torch.zeros(config.depth, dtype=torch.bool)
    turn[curriculum.rotation(step, config.depth, groups)] = True
    layers = curriculum.supervised(step, config.depth, groups)
    values = {"sample_masks": masks, "supervise_mask": turn, "logit_layers": torch.tensor(layers)}
    comparison.hold({f"{prefix}_{name}": value for name, value in values.items()})
    attend = block_causal_attend(config.lengths, config.attention_scale)
    states = list(model.transformer.states(rebuilt.text, inputs, attend, masks))
    head = model.transformer.head_modulation(model.transformer.class_emb(rebuilt.text))
    for layer in layers:
        name = f"{prefix}_logits_l{layer}"
        kept = LAST if name in golden.arrays and golden.arrays[name].shape[1] == LAST else 0
        comparison.hold({name: model.transformer.logits(states[layer], head)[:, -kept:]})


def _compare_schedules(comparison: Comparison) -> None:
    """Drop rates and layer weights of several depths; float64, so to its rounding."""
    for name, expected in comparison.golden.arrays.items():
        depth = expected.shape[0] if expected.ndim == 1 else 0
        if name.startswith("sched_drop_rate_d"):
            ours: Any = curriculum.drop_rates(depth)
        elif name.startswith("sched_layer_weight_d") or name == "train_layer_weights":
            ours = [curriculum.layer_weight(layer) for layer in range(depth)]
        elif name == "train_d_layer":
            ours = curriculum.drop_growth(depth)
        elif name == "train_R_pmax":
            ours = [curriculum.ROTATION, curriculum.MOST_DROPPED]
        else:
            continue
        if comparison.wants(name):
            same = np.shape(ours) == expected.shape and np.allclose(ours, expected, rtol=1e-12, atol=1e-15)
            comparison.verify(name, bool(same), "" if same else "differs")
