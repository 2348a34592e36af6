"""Golden runs of VAR through the engine: sampling, teacher forcing, smooth sampling and the tokenizer.

The run is forced along the golden's indices, so that one flipped index stays one; what the engine itself would have
drawn at each stage is held against the golden's.
"""

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.labels import keep_likeliest, soften
from varlab.models.layers import block_causal_attend
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import phi_index, ticks
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.report import Report
from varlab.parity.var_setup import Outcome, Setup, generate, setup

LAST = 8  # tokens that some arrays keep


@torch.inference_mode()
def check(golden: Golden) -> Report:
    """Logits, canvases and images to their tolerances, indices exact but for near ties."""
    comparison, rebuilt = Comparison(golden), setup(golden.config, golden.path.stem)
    comparison.equal("labels", rebuilt.labels)
    forced = {k: path for k in rebuilt.stages if (path := _path(golden, rebuilt, k)) is not None}
    outcome = generate(rebuilt, forced)
    for k in rebuilt.stages:
        _compare_stage(comparison, outcome, k)
    margins = [_gap(outcome.capture.guided[k]).min() for k in rebuilt.stages]
    comparison.absolute("ar_min_margin", torch.stack(margins).min(), "logits_abs")
    if len(rebuilt.stages) > 1:
        _compare_blocks(comparison, outcome, len(rebuilt.stages) - 2)
    _compare_image(comparison, outcome)
    _compare_teacher(comparison, rebuilt, outcome)
    _compare_smooth(comparison, rebuilt)
    _compare_encoder(comparison, rebuilt)
    _compare_phi(comparison, rebuilt)
    comparison.note(_freely(rebuilt, forced))
    return comparison.finish()


def _path(golden: Golden, rebuilt: Setup, k: int) -> Tensor | None:
    """The golden's indices [B, n] of a stage, where it holds them in this run's shape."""
    ids = golden.arrays.get(f"ar_s{k}_ids")
    fits = ids is not None and ids.shape == (len(rebuilt.labels), rebuilt.model.schedule.lengths[k])
    return torch.from_numpy(ids.astype(np.int64)) if ids is not None and fits else None


def _gap(logits: Tensor) -> Tensor:
    """Between the two largest of logits [..., V]."""
    top = logits.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def margin_of(logits: np.ndarray | None, ours: Tensor, least: float | None = None) -> np.ndarray | None:
    """Margins [B, n] by the golden's logits [B, n', V], n' first tokens of a stage or of all. Beyond them ours count,
    but not below ``least``, the golden's smallest; without it nothing is excused there."""
    own = _gap(ours)
    margin = torch.full_like(own, torch.inf) if least is None else own.clamp(min=least)
    if logits is not None and logits.shape[0] == ours.shape[0] and logits.shape[-1] == ours.shape[-1]:
        stored = _gap(torch.from_numpy(logits))
        margin[:, : stored.shape[1]] = stored[:, : margin.shape[1]]
    return margin.numpy()


def _compare_stage(comparison: Comparison, outcome: Outcome, k: int) -> None:
    capture, golden = outcome.capture, comparison.golden
    cond, uncond = outcome.branches(k)
    comparison.absolute(f"ar_s{k}_logits_cond", cond, "logits_abs")
    comparison.absolute(f"ar_s{k}_logits_uncond", uncond, "logits_abs")
    comparison.absolute(f"ar_s{k}_logits_cfg", capture.guided[k], "logits_abs")
    margin = margin_of(golden.arrays.get(f"ar_s{k}_logits_cfg"), capture.guided[k])
    comparison.labels(f"ar_s{k}_ids", capture.labels[k], margin, golden.tolerance("logits_abs"))
    comparison.absolute(f"ar_s{k}_margin", _gap(capture.guided[k]).min(), "logits_abs")
    comparison.absolute(f"ar_s{k}_h", capture.codes[k], "latents_abs")
    comparison.absolute(f"ar_s{k}_f_hat", capture.canvas[k], "latents_abs")
    comparison.absolute(f"ar_s{k}_hidden_last", capture.blocks[k][-1], "logits_abs")
    if k + 1 < len(outcome.setup.stages):
        comparison.absolute(f"ar_s{k}_next", area(capture.canvas[k], outcome.setup.grids[k + 1]), "latents_abs")


def _compare_blocks(comparison: Comparison, outcome: Outcome, late: int) -> None:
    """What enters and leaves every block at the last stage but one; rows conditional, then unconditional."""
    capture = outcome.capture
    entering = [capture.entering[late], *capture.blocks[late][:-1]]
    for i, (x_in, x_out) in enumerate(zip(entering, capture.blocks[late], strict=True)):
        comparison.absolute(f"ar_late_block{i}_in", x_in, "logits_abs")
        comparison.absolute(f"ar_late_block{i}_out", x_out, "logits_abs")


def _compare_image(comparison: Comparison, outcome: Outcome) -> None:
    image = outcome.generation.image
    comparison.absolute("ar_f_hat_final", outcome.generation.canvas, "latents_abs")
    comparison.absolute("image", image, "image_abs")
    comparison.absolute("image_sub4", image[..., ::4, ::4], "image_abs")
    moments = image.double()
    comparison.absolute("image_mean_std", torch.stack([moments.mean(), moments.std()]), "image_abs")


def _forced_logits(rebuilt: Setup, labels: Tensor, indices: list[Tensor]) -> Tensor:
    """Logits [B, L, V] of all stages at once, given these indices."""
    config = rebuilt.model.transformer.config
    inputs = rebuilt.tokenizer.inputs(indices, rebuilt.grids)
    return rebuilt.model.transformer(labels, inputs, block_causal_attend(config.lengths, config.attention_scale))


def _joined(rebuilt: Setup, indices: list[Tensor]) -> Tensor | None:
    """Inputs of all stages but the first [B, L - 1, c]."""
    inputs = rebuilt.tokenizer.inputs(indices, rebuilt.grids)
    return torch.cat(inputs, 1) if inputs else None


def _compare_teacher(comparison: Comparison, rebuilt: Setup, outcome: Outcome) -> None:
    """Teacher forcing, on the run's own indices and on prescribed ones."""
    sampled = [index.long() for index in outcome.capture.labels]
    paths = [_path(comparison.golden, rebuilt, k) for k in rebuilt.stages]
    given = [drawn if path is None else path for drawn, path in zip(sampled, paths, strict=True)]
    cached = torch.cat([outcome.branches(k)[0] for k in rebuilt.stages], 1)
    difference = (_forced_logits(rebuilt, rebuilt.labels, given) - cached).abs().max()
    comparison.absolute("tf_on_sampled_max_abs_diff_vs_ar_cond", difference, "logits_abs")

    batch = len(rebuilt.labels)
    pyramid = rebuilt.pyramid(batch)
    comparison.equal("tf_gt_ids", torch.cat(pyramid, 1))
    comparison.absolute("tf_input", _joined(rebuilt, pyramid), "latents_abs")
    logits = _forced_logits(rebuilt, rebuilt.labels, pyramid)
    comparison.absolute("tf_logits", logits, "logits_abs")
    nothing = torch.full_like(rebuilt.labels, rebuilt.model.transformer.config.classes)
    comparison.absolute("tf_logits_uncond", _forced_logits(rebuilt, nothing, pyramid)[:, -LAST:], "logits_abs")
    loss = F.cross_entropy(logits.mT, torch.cat(pyramid, 1), reduction="none")
    comparison.absolute("tf_loss_per_token", loss, "logits_abs")
    *_, canvas = rebuilt.tokenizer.canvases(pyramid, rebuilt.grids)
    comparison.absolute("gt_fhat_last", canvas, "latents_abs")


def _compare_smooth(comparison: Comparison, rebuilt: Setup) -> None:
    """Smooth sampling without its noise."""
    if not any(name.startswith("smooth_") for name in comparison.golden.arrays):
        return
    progress = iter([k / max(len(rebuilt.stages) - 1, 1) for k in rebuilt.stages])
    outcome = generate(rebuilt, {}, choose=lambda guided: soften(guided, next(progress), torch.ones(())))
    comparison.absolute("smooth_f_hat_final", outcome.generation.canvas, "smooth_abs")
    comparison.absolute("smooth_logits_cfg_last", outcome.capture.guided[-1][:, -LAST:], "smooth_abs")


def _compare_encoder(comparison: Comparison, rebuilt: Setup) -> None:
    """Pictures to indices and back. An index may differ where the golden knows a near tie and ours is one."""
    if not any(name.startswith("enc_") for name in comparison.golden.arrays):
        return
    tokenizer, grids, golden = rebuilt.tokenizer, rebuilt.grids, comparison.golden
    indices, canvases, latent = tokenizer.encode(rebuilt.image(), grids)
    comparison.absolute("enc_f", latent, "latents_abs")
    gaps = _distance_gaps(rebuilt, latent, canvases)
    least = golden.arrays.get("enc_min_gap")
    margin = np.full(gaps.shape, np.inf) if least is None else gaps.clamp(min=float(least)).numpy()
    found = torch.cat([index.flatten(1) for index in indices], 1)
    comparison.labels("enc_ids", found, margin, golden.tolerance("latents_abs"))
    comparison.absolute("enc_min_gap", gaps.min(), "latents_abs")
    comparison.absolute("enc_fhat_first", canvases[0], "latents_abs")
    comparison.absolute("enc_fhat_last", canvases[-1], "latents_abs")
    energy = latent.square().sum()
    errors = torch.stack([(latent - canvas).square().sum() / energy for canvas in canvases])
    comparison.absolute("enc_fhat_rel_err_per_stage", errors, "latents_abs")
    comparison.absolute("enc_var_input", _joined(rebuilt, [index.flatten(1) for index in indices]), "latents_abs")
    comparison.absolute("enc_rec_sub4", tokenizer.decode(canvases[-1])[..., ::4, ::4], "image_abs")


def _distance_gaps(rebuilt: Setup, latent: Tensor, canvases: list[Tensor]) -> Tensor:
    """Between the nearest and the second nearest code, squared distances, of every token [B, L]."""
    table, gaps = rebuilt.tokenizer.quantize.embedding.weight, []
    for canvas, grid in zip([torch.zeros_like(latent), *canvases[:-1]], rebuilt.grids, strict=True):
        z = area(latent - canvas, grid).flatten(2).mT
        gaps.append(_gap(-torch.cdist(z.double(), table.double().expand(len(z), -1, -1)).square()))
    return torch.cat(gaps, 1)


def _compare_phi(comparison: Comparison, rebuilt: Setup) -> None:
    count, stages = rebuilt.tokenizer.config.phis, len(rebuilt.stages)
    count = count if count else stages
    comparison.equal("phi_index_per_stage", np.array(phi_index(stages, count)))
    comparison.absolute("phi_ticks", ticks(count), "latents_abs")


def _freely(rebuilt: Setup, forced: dict[int, Tensor]) -> str:
    """The note on a run that nothing holds to the golden's path."""
    free = generate(rebuilt, {}).capture.labels
    differ = [k for k in forced if not torch.equal(free[k], forced[k])]
    return f"unforced run: {f'indices first differ at stage {differ[0]}' if differ else 'all indices reproduced'}"


def check_sampling(golden: Golden) -> Report:
    """Which values survive top-k and top-p, how many, and the probability of the likeliest after them."""
    comparison = Comparison(golden)
    logits = torch.from_numpy(golden.array("logits"))
    comparison.wants("logits")
    for name in golden.arrays:
        filters = re.fullmatch(r"(k(\d+)_p([\d.]+))_keep", name)
        if not filters:
            continue
        left = keep_likeliest(logits, int(filters[2]), float(filters[3]))
        kept = left > -torch.inf
        comparison.equal(name, np.packbits(kept.numpy(), axis=-1))
        comparison.equal(f"{filters[1]}_count", kept.sum(-1))
        comparison.absolute(f"{filters[1]}_maxprob", left.softmax(-1).amax(-1), "abs")
    return comparison.finish()
