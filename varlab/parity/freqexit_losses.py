"""Golden values and gradients of FreqExit's losses: wavelets, distillation, high frequencies, reconstruction, sum."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from varlab.parity import weights
from varlab.parity.comparison import Arrays, Comparison, held_to
from varlab.parity.golden import Golden
from varlab.training.freqexit import losses
from varlab.training.freqexit.curriculum import layer_weight
from varlab.training.freqexit.fgsr import Gate, Predictor, Reconstruction
from varlab.training.freqexit.losses import OFFICIAL, FrequencyLoss, Objective, soft_map
from varlab.training.freqexit.wavelets import haar, inverse


class Inputs:
    """What the golden's losses are computed from, drawn anew from its seed."""

    def __init__(self, golden: Golden) -> None:
        config, seed = golden.config, golden.require("seed")
        batch, codes, self.width = config.get("B", 2), config.get("V", 12), config.get("c", 4)
        self.sides = tuple(config.get("patch_nums", (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)))
        self.layers = tuple(config.get("layers", (3, 6, 19)))
        self.seed, self.depth, tokens = seed, config.get("depth", 20), sum(side * side for side in self.sides)
        shape = (batch, tokens, codes)
        self.table = weights.tensor("losses.embedding", seed, (codes, self.width), 0.7)
        self.teacher = weights.tensor("losses.teacher_logits", seed, shape, 2.0)
        self.logits = {
            layer: weights.tensor(f"losses.student_logits.l{layer}", seed, shape, 2.0) for layer in self.layers
        }
        self.maps = {layer: soft_map(z, self.table) for layer, z in self.logits.items()}
        self.teacher_map = soft_map(self.teacher, self.table)
        self.ids = weights.indices("losses.gt_ids", seed, (batch, tokens), codes)
        self.kept = {
            int(found[1]): torch.from_numpy(golden.arrays[found[0]].astype(bool))
            for found in golden.matching(r"mask_layer(\d+)")
        }

    def rows(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {layer: losses.rows(m, self.kept.get(layer)) for layer, m in maps.items()}


@held_to(
    given="mask_layer* dwt*_in fgsr_*_step*_in trainstep_table trainstep_columns",
    equal="gt_ids layers patch_nums layer_weights_d*",
    grad_abs="*grad* fgsr_*_param_step_*",
    value_rel="*",
)
def compare(comparison: Comparison) -> None:
    """Every loss on its own, then their sum over some updates."""
    inputs = Inputs(comparison.golden)
    comparison.hold(_inputs(inputs, comparison.golden))
    for found in comparison.golden.matching(r"dwt(\d+)_in"):
        comparison.hold(_wavelets(torch.from_numpy(comparison.golden.arrays[found[0]]), int(found[1]), inputs.seed))
    comparison.hold(_classification(inputs))
    comparison.hold(_frequencies(inputs))
    for name in ("formula", "zero"):
        _compare_reconstruction(comparison, inputs, name)
    if comparison.wants("trainstep_table"):
        _compare_updates(comparison, inputs)


def _gradients(prefix: str, leaves: Mapping[int, Tensor]) -> Arrays:
    return {f"{prefix}_l{layer}": leaf.grad for layer, leaf in leaves.items()}


def leaves_of(values: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {layer: value.clone().requires_grad_() for layer, value in values.items()}


def _inputs(inputs: Inputs, golden: Golden) -> Arrays:
    values: Arrays = {"embedding": inputs.table, "teacher_logits": inputs.teacher}
    for layer, logits in inputs.logits.items():
        values |= {f"student_logits_l{layer}": logits, f"hf_token_map_l{layer}": inputs.maps[layer]}
    values |= {"hf_teacher_token_map": inputs.teacher_map, "gt_ids": inputs.ids}
    values |= {"layers": np.array(inputs.layers), "patch_nums": np.array(inputs.sides)}
    for found in golden.matching("layer_weights_d.*"):
        values[found[0]] = np.array([layer_weight(layer) for layer in range(len(golden.arrays[found[0]]))])
    return values


def _wavelets(x: Tensor, side: int, seed: int) -> Arrays:
    """Bands, the way back, and the gradient of the details as the library returns it."""
    ll, details = haar(x.requires_grad_(), "library")
    (details * weights.tensor(f"losses.dwt_gout.{side}", seed, tuple(details.shape))).sum().backward()
    values = {"LL": ll, "H": details, "idwt_roundtrip": inverse(ll, details), "gradin_from_H": x.grad}
    return {f"dwt{side}_{part}": value for part, value in values.items()}


def _classification(inputs: Inputs) -> Arrays:
    last = OFFICIAL.kd_last or inputs.depth - 1
    leaves = leaves_of(inputs.logits)
    taught = losses.distillation(leaves, inputs.teacher, inputs.kept, last)
    taught.backward()
    values = {"distill_value": taught} | _gradients("distill_grad", leaves)
    for layer, z in inputs.logits.items():
        alone = losses.distillation({layer: z}, inputs.teacher, inputs.kept, last)
        values[f"distill_value_only_l{layer}"] = alone

    leaves = leaves_of(inputs.logits)
    main = losses.cross_entropy(leaves[max(leaves)], inputs.ids)
    early = losses.early_exit(leaves, inputs.ids, inputs.kept)
    total = OFFICIAL.main * main + OFFICIAL.early * early
    total.backward()
    values |= {"main_ce_value": main, "ee_value": early, "ee_main_total": total}
    return values | _gradients("ee_main_grad", leaves)


def _frequencies(inputs: Inputs) -> Arrays:
    loss, teacher, layer = FrequencyLoss(inputs.sides), inputs.teacher_map, max(inputs.layers)
    leaves = leaves_of(inputs.maps)
    value = loss(leaves, teacher, inputs.kept)
    value.backward()
    values = {"hf_value": value} | _gradients("hf_grad", leaves)
    values["hf_value_no_layer_weights"] = loss(inputs.maps, teacher, inputs.kept, weighted=False)
    own, taught = (losses.rows(m, inputs.kept.get(layer)) for m in (inputs.maps[layer], teacher))
    stages = range(len(inputs.sides))
    return values | {f"hf_value_step{k}_l{layer}": loss.stage(own, taught, k) for k in stages}


def _compare_reconstruction(comparison: Comparison, inputs: Inputs, name: str) -> None:
    """The released predictor, with drawn parameters or with its last convolution at zero."""
    module, golden, prefix = Reconstruction(Predictor, inputs.width, inputs.sides), comparison.golden, f"fgsr_{name}"
    weights.fill(module, inputs.seed, weights.var_rule)
    if name == "zero":
        with torch.no_grad():
            for k in range(len(inputs.sides)):
                for parameter in module.stage(k).last.parameters():  # type: ignore[union-attr, operator]
                    parameter.zero_()
    comparison.hold(_reconstructed(module, inputs, prefix))
    comparison.hold(_parameters(module, golden, prefix))
    with torch.no_grad():
        layer = max(inputs.layers)
        errors = zip(module.stages(), (e for _, e in module.errors(inputs.maps[layer])), strict=True)
        comparison.hold({f"{prefix}_diversity_only": module.regulariser()})
        comparison.hold({f"{prefix}_value_step{k}_l{layer}": error for k, error in errors})
        for found in golden.matching(rf"({prefix}_step(\d+))_in"):  # one module on its own
            entering = torch.from_numpy(golden.arrays[found[0]])
            comparison.hold({f"{found[1]}_out": module.stage(int(found[2]))(entering)})


def _reconstructed(module: Reconstruction, inputs: Inputs, prefix: str) -> Arrays:
    """The loss of all layers and its gradients; those of the parameters stay with them."""
    leaves = leaves_of(inputs.maps)
    value = module(inputs.rows(leaves))
    value.backward()
    return {f"{prefix}_value": value} | _gradients(f"{prefix}_grad", leaves)


def _parameters(module: Reconstruction, golden: Golden, prefix: str) -> Arrays:
    """Those parameters of the stages, and their gradients, that the golden names."""
    values: Arrays = {}
    for found in golden.matching(rf"{prefix}_(param|grad)_step_(\d+)\.(.+)"):
        parameter = dict(module.stage(int(found[2])).named_parameters()).get(found[3])
        values[found[0]] = parameter if parameter is None or found[1] == "param" else parameter.grad
    return values


COLUMNS = {"main_ce": "main", "early_exit": "early", "distill": "distillation", "hf_raw": "frequency",
           "hf_scale": "scale", "fgsr": "reconstruction", "total": "total"}  # fmt: skip


def _compare_updates(comparison: Comparison, inputs: Inputs) -> None:
    """The whole objective over the golden's updates, in their order: the running means go on from one to the next."""
    golden = comparison.golden
    columns = [str(column) for column in golden.array("trainstep_columns")]
    objective = Objective(OFFICIAL, inputs.depth, inputs.sides, inputs.width)
    table = np.array(golden.arrays["trainstep_table"], dtype=np.float64)
    ours = table.copy()
    for row, progress in zip(ours, table[:, columns.index("progress")], strict=True):
        leaves = leaves_of({layer: z * (1 + 0.5 * progress) for layer, z in inputs.logits.items()})
        out = objective(leaves, inputs.teacher, inputs.ids, inputs.table, inputs.kept, float(progress))
        out.total.backward()
        comparison.hold(_gradients(f"trainstep_p{progress:g}_grad_total", leaves))
        for column, attribute in COLUMNS.items():
            value = getattr(out, attribute)
            row[columns.index(column)] = np.nan if value is None else float(torch.as_tensor(value).detach())
    active = np.isfinite(table)
    same = bool((active == np.isfinite(ours)).all())
    comparison.verify("trainstep_active", same, "" if same else "the frequency term is active at other updates")
    for column in COLUMNS:
        place = columns.index(column)
        here = active[:, place] & np.isfinite(ours[:, place])
        error = np.abs(ours[here, place] / table[here, place] - 1).max(initial=0.0)
        allowed = golden.tolerance("value_rel")
        comparison.verify(f"trainstep_table_{column}", bool(error <= allowed), f"relative error {error:.1e}")


@held_to(abs="*")
def compare_legacy(comparison: Comparison) -> None:
    """The gated modules of the first upload, as built and with drawn parameters, on the same token maps."""
    golden, inputs = comparison.golden, Inputs(comparison.golden)
    inputs.kept.setdefault(6, torch.tensor([False, True]))  # of the file whose token maps these are
    for name in ("init", "formula"):
        module = Reconstruction(Gate, inputs.width, inputs.sides)
        if name == "formula":
            with torch.no_grad():
                for key, parameter in module.named_parameters():
                    drawn = key.replace("sam_modules", "legacy_sam")
                    parameter.add_(0.1 * weights.tensor(drawn, inputs.seed, tuple(parameter.shape)))
        comparison.hold(_reconstructed(module, inputs, name))
        values = _parameters(module, golden, name)
        for found in golden.matching(rf"{name}_(?:orth_step(\d+)|step(\d+)_out)"):
            values[found[0]] = _gate(module, inputs, found)
        comparison.hold({array: values[array] for array in golden.arrays if array in values})  # in the file's order


def _gate(module: Reconstruction, inputs: Inputs, found: re.Match[str]) -> Tensor:
    """Orthogonality of a stage's gate, or what it makes of its part of the last layer's maps."""
    if found[1]:
        value: Tensor = module.stage(int(found[1])).orthogonality()  # type: ignore[operator]
        return value
    k = int(found[2])
    start, side = sum(p * p for p in inputs.sides[:k]), inputs.sides[k]
    part = inputs.maps[max(inputs.layers)][:, start : start + side * side]
    made: Tensor = module.stage(k)(losses.grids(part, side))
    return made
