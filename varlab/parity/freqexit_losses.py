"""Golden values and gradients of FreqExit's losses: wavelets, distillation, high frequencies, reconstruction, sum."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from varlab.parity import weights
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.training.freqexit import losses
from varlab.training.freqexit.curriculum import layer_weight
from varlab.training.freqexit.fgsr import Gate, Predictor, Reconstruction
from varlab.training.freqexit.losses import OFFICIAL, FrequencyLoss, Objective, soft_map
from varlab.training.freqexit.wavelets import haar, inverse

Shape = tuple[int, ...]


class Inputs:
    """What the golden's losses are computed from, drawn anew from its seed."""

    def __init__(self, golden: Golden) -> None:
        config = golden.config
        self.seed = golden.require("seed")
        batch, codes, width = config.get("B", 2), config.get("V", 12), config.get("c", 4)
        self.sides = tuple(config.get("patch_nums", (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)))
        self.layers = tuple(config.get("layers", (3, 6, 19)))
        self.depth, self.width, tokens = config.get("depth", 20), width, sum(side * side for side in self.sides)
        shape = (batch, tokens, codes)
        self.table = weights.tensor("losses.embedding", self.seed, (codes, width), 0.7)
        self.teacher = weights.tensor("losses.teacher_logits", self.seed, shape, 2.0)
        self.logits = {
            layer: weights.tensor(f"losses.student_logits.l{layer}", self.seed, shape, 2.0) for layer in self.layers
        }
        self.ids = weights.indices("losses.gt_ids", self.seed, (batch, tokens), codes)
        self.kept: dict[int, Tensor] = {}
        for found in golden.matching(r"mask_layer(\d+)"):
            self.kept[int(found[1])] = torch.from_numpy(golden.arrays[found[0]].astype(bool))

    @property
    def maps(self) -> dict[int, Tensor]:
        return {layer: soft_map(z, self.table) for layer, z in self.logits.items()}

    def rows(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {layer: losses.rows(m, self.kept.get(layer)) for layer, m in maps.items()}


def compare(comparison: Comparison) -> None:
    """Values relative, gradients absolute, by the golden's own tolerances."""
    inputs = Inputs(comparison.golden)
    _compare_inputs(comparison, inputs)
    _compare_wavelets(comparison, inputs.seed)
    _compare_classification(comparison, inputs)
    _compare_frequencies(comparison, inputs)
    for name in ("formula", "zero"):
        _compare_reconstruction(comparison, inputs, name)
    _compare_updates(comparison, inputs)


def _value(comparison: Comparison, name: str, value: Tensor | float) -> None:
    comparison.relative(name, torch.as_tensor(value).detach(), "value_rel")


def _gradients(comparison: Comparison, prefix: str, leaves: Mapping[int, Tensor]) -> None:
    for layer, leaf in leaves.items():
        comparison.gradient(f"{prefix}_l{layer}", leaf.grad, "grad_abs")


def leaves_of(values: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {layer: value.clone().requires_grad_() for layer, value in values.items()}


def _compare_inputs(comparison: Comparison, inputs: Inputs) -> None:
    values = {"embedding": inputs.table, "teacher_logits": inputs.teacher}
    for layer, logits in inputs.logits.items():
        comparison.known(f"mask_layer{layer}")
        values |= {f"student_logits_l{layer}": logits, f"hf_token_map_l{layer}": inputs.maps[layer]}
    values["hf_teacher_token_map"] = soft_map(inputs.teacher, inputs.table)
    comparison.relatives("value_rel", values)
    comparison.equal("gt_ids", inputs.ids)
    comparison.equal("layers", np.array(inputs.layers))
    comparison.equal("patch_nums", np.array(inputs.sides))
    for found in comparison.golden.matching("layer_weights_d.*"):
        depth = len(comparison.golden.arrays[found[0]])
        comparison.equal(found[0], np.array([layer_weight(layer) for layer in range(depth)]))


def _compare_wavelets(comparison: Comparison, seed: int) -> None:
    """Bands, the way back, and the gradient of the details as the library returns it."""
    for name, prefix, side in ((f[0], f[1], f[2]) for f in comparison.golden.matching(r"(dwt(\d+))_in")):
        comparison.known(name)
        x = torch.from_numpy(comparison.golden.arrays[name]).requires_grad_()
        ll, details = haar(x, "library")
        values = {"LL": ll, "H": details, "idwt_roundtrip": inverse(ll, details)}
        comparison.relatives("value_rel", {f"{prefix}_{part}": value for part, value in values.items()})
        (details * weights.tensor(f"losses.dwt_gout.{side}", seed, tuple(details.shape))).sum().backward()
        comparison.gradient(f"{prefix}_gradin_from_H", x.grad, "grad_abs")


def _compare_classification(comparison: Comparison, inputs: Inputs) -> None:
    last = OFFICIAL.kd_last or inputs.depth - 1
    leaves = leaves_of(inputs.logits)
    taught = losses.distillation(leaves, inputs.teacher, inputs.kept, last)
    taught.backward()
    _value(comparison, "distill_value", taught)
    _gradients(comparison, "distill_grad", leaves)
    for layer, z in inputs.logits.items():
        alone = losses.distillation({layer: z}, inputs.teacher, inputs.kept, last)
        _value(comparison, f"distill_value_only_l{layer}", alone)

    leaves = leaves_of(inputs.logits)
    main = losses.cross_entropy(leaves[max(leaves)], inputs.ids)
    early = losses.early_exit(leaves, inputs.ids, inputs.kept)
    total = OFFICIAL.main * main + OFFICIAL.early * early
    total.backward()
    _value(comparison, "main_ce_value", main)
    _value(comparison, "ee_value", early)
    _value(comparison, "ee_main_total", total)
    _gradients(comparison, "ee_main_grad", leaves)


def _compare_frequencies(comparison: Comparison, inputs: Inputs) -> None:
    loss, teacher = FrequencyLoss(inputs.sides), soft_map(inputs.teacher, inputs.table)
    leaves = leaves_of(inputs.maps)
    value = loss(leaves, teacher, inputs.kept)
    value.backward()
    _value(comparison, "hf_value", value)
    _gradients(comparison, "hf_grad", leaves)
    _value(comparison, "hf_value_no_layer_weights", loss(inputs.maps, teacher, inputs.kept, weighted=False))
    layer = max(inputs.layers)
    for k in range(len(inputs.sides)):
        if comparison.wants(f"hf_value_step{k}_l{layer}"):
            rows = [losses.rows(m, inputs.kept.get(layer)) for m in (inputs.maps[layer], teacher)]
            _value(comparison, f"hf_value_step{k}_l{layer}", loss.stage(rows[0], rows[1], k))


def _compare_reconstruction(comparison: Comparison, inputs: Inputs, name: str) -> None:
    """The released predictor, with drawn parameters or with its last convolution at zero."""
    module = Reconstruction(Predictor, inputs.width, inputs.sides)
    weights.fill(module, inputs.seed, weights.var_rule)
    if name == "zero":
        with torch.no_grad():
            for k in range(len(inputs.sides)):
                for parameter in module.stage(k).last.parameters():  # type: ignore[union-attr, operator]
                    parameter.zero_()
    leaves = leaves_of(inputs.maps)
    value = module(inputs.rows(leaves))
    value.backward()
    prefix = f"fgsr_{name}"
    _value(comparison, f"{prefix}_value", value)
    _gradients(comparison, f"{prefix}_grad", leaves)
    for found in comparison.golden.matching(rf"{prefix}_(param|grad)_step_(\d+)\.(.+)"):
        comparison.gradient(found[0], _parameter(module, found), "grad_abs")
    with torch.no_grad():
        _value(comparison, f"{prefix}_diversity_only", module.regulariser())
        layer = max(inputs.layers)
        errors = dict(zip(module.stages(), (e for _, e in module.errors(inputs.maps[layer])), strict=True))
        for k, error in errors.items():
            _value(comparison, f"{prefix}_value_step{k}_l{layer}", error)
        _compare_stage_outputs(comparison, module.stage, prefix)


def _compare_stage_outputs(comparison: Comparison, stage: Callable[[int], torch.nn.Module], prefix: str) -> None:
    """One module on its own, where the golden keeps what went in."""
    for found in comparison.golden.matching(rf"{prefix}_step(\d+)_in"):
        comparison.known(found[0])
        out = stage(int(found[1]))(torch.from_numpy(comparison.golden.arrays[found[0]]))
        comparison.relative(f"{prefix}_step{found[1]}_out", out, "value_rel")


def _parameter(module: Reconstruction, found: re.Match[str]) -> Tensor | None:
    """By the groups ``param`` or ``grad``, stage and name: a parameter, or its gradient."""
    parameter = dict(module.stage(int(found[2])).named_parameters()).get(found[3])
    return None if parameter is None else parameter if found[1] == "param" else parameter.grad


COLUMNS = {"main_ce": "main", "early_exit": "early", "distill": "distillation", "hf_raw": "frequency",
           "hf_scale": "scale", "fgsr": "reconstruction", "total": "total"}  # fmt: skip


def _compare_updates(comparison: Comparison, inputs: Inputs) -> None:
    """The whole objective over the golden's updates, in their order: the running means go on from one to the next."""
    if not comparison.wants("trainstep_table"):
        return
    golden = comparison.golden
    columns = [str(column) for column in golden.array("trainstep_columns")]
    comparison.known("trainstep_columns")
    objective = Objective(OFFICIAL, inputs.depth, inputs.sides, inputs.width)
    table = np.array(golden.arrays["trainstep_table"], dtype=np.float64)
    ours = table.copy()
    for row, progress in zip(ours, table[:, columns.index("progress")], strict=True):
        leaves = leaves_of({layer: z * (1 + 0.5 * progress) for layer, z in inputs.logits.items()})
        out = objective(leaves, inputs.teacher, inputs.ids, inputs.table, inputs.kept, float(progress))
        out.total.backward()
        _gradients(comparison, f"trainstep_p{progress:g}_grad_total", leaves)
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


def compare_legacy(comparison: Comparison) -> None:
    """The gated modules of the first upload, as built and with drawn parameters, on the same token maps."""
    inputs = Inputs(comparison.golden)
    inputs.kept.setdefault(6, torch.tensor([False, True]))  # of the file whose token maps these are
    for name in ("init", "formula"):
        module = Reconstruction(Gate, inputs.width, inputs.sides)
        if name == "formula":
            with torch.no_grad():
                for key, parameter in module.named_parameters():
                    drawn = weights.tensor(
                        key.replace("sam_modules", "legacy_sam"), inputs.seed, tuple(parameter.shape)
                    )
                    parameter.add_(0.1 * drawn)
        leaves = leaves_of(inputs.maps)
        value = module(inputs.rows(leaves))
        value.backward()
        comparison.absolute(f"{name}_value", value, "abs")
        for layer, leaf in leaves.items():
            comparison.absolute(f"{name}_grad_l{layer}", leaf.grad, "abs")
        _compare_gates(comparison, module, name, inputs)


def _compare_gates(comparison: Comparison, module: Reconstruction, prefix: str, inputs: Inputs) -> None:
    pattern = rf"{prefix}_(?:(param|grad)_step_(\d+)\.(.+)|orth_step(\d+)|step(\d+)_out)"
    for found in comparison.golden.matching(pattern):
        name = found[0]
        if found[1]:
            comparison.absolute(name, _parameter(module, found), "abs")
        elif found[4]:
            comparison.absolute(name, module.stage(int(found[4])).orthogonality().detach(), "abs")  # type: ignore[operator]
        else:
            k = int(found[5])
            start, side = sum(p * p for p in inputs.sides[:k]), inputs.sides[k]
            part = inputs.maps[max(inputs.layers)][:, start : start + side * side]
            comparison.absolute(name, module.stage(k)(losses.grids(part, side)), "abs")
