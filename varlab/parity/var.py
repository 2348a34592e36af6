"""Golden runs of VAR through the engine: sampling, teacher forcing, smooth sampling and the tokenizer.

The run is forced along the golden's indices, so that one flipped index stays one; what the engine itself would have
drawn at each stage is held against the golden's.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.labels import only_likeliest, soften
from varlab.models.layers import block_causal_attend
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import phi_index, ticks
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.run import Outcome, gap, generate, margin_of, unforced
from varlab.parity.var_setup import Setup, branches, setup

LAST = 8  # tokens that some arrays keep


def compare(comparison: Comparison) -> None:
    """Logits, canvases and images to their tolerances, indices exact but for near ties."""
    golden, rebuilt = comparison.golden, setup(comparison.golden)
    comparison.equal("labels", rebuilt.text)
    forced = {k: path for k in rebuilt.stages if (path := _path(golden, rebuilt, k)) is not None}
    outcome = generate(rebuilt, forced)
    for k in rebuilt.stages:
        _compare_stage(comparison, outcome, k)
    margins = [gap(outcome.capture.final[k]).min() for k in rebuilt.stages]
    comparison.absolute("ar_min_margin", torch.stack(margins).min(), "logits_abs")
    if len(rebuilt.stages) > 1:
        _compare_blocks(comparison, outcome, len(rebuilt.stages) - 2)
    _compare_image(comparison, outcome)
    _compare_teacher(comparison, outcome)
    _compare_smooth(comparison, rebuilt)
    _compare_encoder(comparison, rebuilt)
    _compare_phi(comparison, rebuilt)
    comparison.note(unforced("indices", generate(rebuilt, {}), forced))


def _path(golden: Golden, rebuilt: Setup, k: int) -> Tensor | None:
    """The golden's indices [B, n] of a stage, where it holds them in this run's shape."""
    ids = golden.tensor(f"ar_s{k}_ids", (rebuilt.batch, rebuilt.lengths[k]))
    return None if ids is None else ids.long()


def _compare_stage(comparison: Comparison, outcome: Outcome[Setup], k: int) -> None:
    capture, golden = outcome.capture, comparison.golden
    (cond, uncond), guided = branches(outcome, k), capture.final[k]
    values = {"logits_cond": cond, "logits_uncond": uncond, "logits_cfg": guided, "hidden_last": capture.blocks[k][-1]}
    comparison.absolutes("logits_abs", {f"ar_s{k}_{name}": value for name, value in values.items()})
    stored = golden.tensor(f"ar_s{k}_logits_cfg", guided.shape)
    margin = margin_of(gap(guided), None if stored is None else gap(stored))
    comparison.labels(f"ar_s{k}_ids", capture.labels[k], margin, golden.tolerance("logits_abs"))
    comparison.absolute(f"ar_s{k}_margin", gap(guided).min(), "logits_abs")
    values = {"h": capture.codes[k], "f_hat": capture.canvas[k]}
    if k + 1 < len(outcome.setup.stages):
        values["next"] = area(capture.canvas[k], outcome.setup.grids[k + 1])
    comparison.absolutes("latents_abs", {f"ar_s{k}_{name}": value for name, value in values.items()})


def _compare_blocks(comparison: Comparison, outcome: Outcome[Setup], late: int) -> None:
    """What enters and leaves every block at the last stage but one; rows conditional, then unconditional."""
    states = [outcome.capture.entering[late], *outcome.capture.blocks[late]]
    for i, (x_in, x_out) in enumerate(pairwise(states)):
        comparison.absolutes("logits_abs", {f"ar_late_block{i}_in": x_in, f"ar_late_block{i}_out": x_out})


def _compare_image(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    image = outcome.generation.image
    comparison.absolute("ar_f_hat_final", outcome.generation.canvas, "latents_abs")
    moments = torch.stack([image.double().mean(), image.double().std()])
    comparison.absolutes("image_abs", {"image": image, "image_sub4": image[..., ::4, ::4], "image_mean_std": moments})


def _forced_logits(rebuilt: Setup, labels: Tensor, indices: list[Tensor]) -> Tensor:
    """Logits [B, L, V] of all stages at once, given these indices."""
    config = rebuilt.model.transformer.config
    inputs = rebuilt.tokenizer.inputs(indices, rebuilt.grids)
    return rebuilt.model.transformer(labels, inputs, block_causal_attend(config.lengths, config.attention_scale))


def _joined(rebuilt: Setup, indices: list[Tensor]) -> Tensor | None:
    """Inputs of all stages but the first [B, L - 1, c]."""
    inputs = rebuilt.tokenizer.inputs(indices, rebuilt.grids)
    return torch.cat(inputs, 1) if inputs else None


def _compare_teacher(comparison: Comparison, outcome: Outcome[Setup]) -> None:
    """Teacher forcing, on the run's own indices and on prescribed ones."""
    rebuilt = outcome.setup
    paths = [_path(comparison.golden, rebuilt, k) for k in rebuilt.stages]
    given = [drawn.long() if path is None else path for drawn, path in zip(outcome.capture.labels, paths, strict=True)]
    cached = torch.cat([branches(outcome, k)[0] for k in rebuilt.stages], 1)
    difference = (_forced_logits(rebuilt, rebuilt.text, given) - cached).abs().max()
    comparison.absolute("tf_on_sampled_max_abs_diff_vs_ar_cond", difference, "logits_abs")

    pyramid = rebuilt.pyramid()
    comparison.equal("tf_gt_ids", torch.cat(pyramid, 1))
    comparison.absolute("tf_input", _joined(rebuilt, pyramid), "latents_abs")
    logits = _forced_logits(rebuilt, rebuilt.text, pyramid)
    nothing = torch.full_like(rebuilt.text, rebuilt.model.transformer.config.classes)
    values = {
        "tf_logits": logits,
        "tf_logits_uncond": _forced_logits(rebuilt, nothing, pyramid)[:, -LAST:],
        "tf_loss_per_token": F.cross_entropy(logits.mT, torch.cat(pyramid, 1), reduction="none"),
    }
    comparison.absolutes("logits_abs", values)
    *_, canvas = rebuilt.tokenizer.canvases(pyramid, rebuilt.grids)
    comparison.absolute("gt_fhat_last", canvas, "latents_abs")


def _compare_smooth(comparison: Comparison, rebuilt: Setup) -> None:
    """Smooth sampling without its noise."""
    if not comparison.golden.matching("smooth_.*"):
        return
    progress = iter([k / max(len(rebuilt.stages) - 1, 1) for k in rebuilt.stages])
    smooth = replace(rebuilt, choose=lambda guided: soften(guided, next(progress), torch.ones(())))
    outcome = generate(smooth, {})
    last = outcome.capture.final[-1][:, -LAST:]
    values = {"smooth_f_hat_final": outcome.generation.canvas, "smooth_logits_cfg_last": last}
    comparison.absolutes("smooth_abs", values)


def _compare_encoder(comparison: Comparison, rebuilt: Setup) -> None:
    """Pictures to indices and back. An index may differ where the golden knows a near tie and ours is one."""
    if not comparison.golden.matching("enc_.*"):
        return
    tokenizer, golden = rebuilt.tokenizer, comparison.golden
    indices, canvases, latent = tokenizer.encode(rebuilt.image(), rebuilt.grids)
    gaps, least = _distance_gaps(rebuilt, latent, canvases), golden.arrays.get("enc_min_gap")
    flat, energy = [index.flatten(1) for index in indices], latent.square().sum()
    margin = margin_of(gaps, None, None if least is None else float(least))
    comparison.absolute("enc_f", latent, "latents_abs")
    comparison.labels("enc_ids", torch.cat(flat, 1), margin, golden.tolerance("latents_abs"))
    values = {
        "enc_min_gap": gaps.min(),
        "enc_fhat_first": canvases[0],
        "enc_fhat_last": canvases[-1],
        "enc_fhat_rel_err_per_stage": torch.stack([(latent - z).square().sum() / energy for z in canvases]),
        "enc_var_input": _joined(rebuilt, flat),
    }
    comparison.absolutes("latents_abs", values)
    comparison.absolute("enc_rec_sub4", tokenizer.decode(canvases[-1])[..., ::4, ::4], "image_abs")


def _distance_gaps(rebuilt: Setup, latent: Tensor, canvases: list[Tensor]) -> Tensor:
    """Between the nearest and the second nearest code, squared distances, of every token [B, L]."""
    table, gaps = rebuilt.tokenizer.quantize.embedding.weight, []
    for canvas, grid in zip([torch.zeros_like(latent), *canvases[:-1]], rebuilt.grids, strict=True):
        z = area(latent - canvas, grid).flatten(2).mT
        gaps.append(gap(-torch.cdist(z.double(), table.double().expand(len(z), -1, -1)).square()))
    return torch.cat(gaps, 1)


def _compare_phi(comparison: Comparison, rebuilt: Setup) -> None:
    stages = len(rebuilt.stages)
    count = rebuilt.tokenizer.config.phis or stages
    comparison.equal("phi_index_per_stage", np.array(phi_index(stages, count)))
    comparison.absolute("phi_ticks", ticks(count), "latents_abs")


def compare_sampling(comparison: Comparison) -> None:
    """Which values survive top-k and top-p, how many, and the probability of the likeliest after them."""
    logits = torch.from_numpy(comparison.golden.array("logits"))
    comparison.known("logits")
    for found in comparison.golden.matching(r"(k(\d+)_p([\d.]+))_keep"):
        left = only_likeliest(logits, int(found[2]), float(found[3]))
        kept = left > -torch.inf
        comparison.equal(found[0], np.packbits(kept.numpy(), axis=-1))
        comparison.equal(f"{found[1]}_count", kept.sum(-1))
        comparison.absolute(f"{found[1]}_maxprob", left.softmax(-1).amax(-1), "abs")
