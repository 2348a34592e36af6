"""Golden runs of VAR through the engine: sampling, teacher forcing, smooth sampling and the tokenizer.

The run is forced along the golden's indices; what the engine itself would have drawn at each stage is held against
the golden's.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.models.labels import only_likeliest, soften
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.vqvae import phi_index, ticks
from varlab.parity.comparison import Comparison, held_to
from varlab.parity.run import Outcome, gap, generate, margin_of, unforced
from varlab.parity.var_setup import Setup, setup

LAST = 8  # tokens that some arrays keep


@held_to(
    equal="labels tf_gt_ids phi_index_per_stage",
    logits_abs="ar_s*_logits_* ar_*_hidden_last ar_*margin ar_late_* tf_logits* tf_loss_per_token tf_on_sampled_*",
    smooth_abs="smooth_*",
    image_abs="image* enc_rec_sub4",
    latents_abs="*",
)
def compare(comparison: Comparison) -> None:
    """Indices exact but for near ties."""
    golden, rebuilt = comparison.golden, setup(comparison.golden)
    comparison.hold({"labels": rebuilt.text})
    forced = rebuilt.forced(golden)
    outcome = generate(rebuilt, forced)
    for k in rebuilt.stages:
        _compare_stage(comparison, outcome, k)
    capture, image = outcome.capture, outcome.generation.image
    comparison.hold({"ar_min_margin": torch.stack([gap(guided).min() for guided in capture.final]).min()})
    for late in rebuilt.stages[-2:-1]:  # all blocks of one stage; rows conditional, then unconditional
        for i, (x_in, x_out) in enumerate(pairwise([capture.entering[late], *capture.blocks[late]])):
            comparison.hold({f"ar_late_block{i}_in": x_in, f"ar_late_block{i}_out": x_out})
    moments = torch.stack([image.double().mean(), image.double().std()])
    values = {"image": image, "image_sub4": image[..., ::4, ::4], "image_mean_std": moments}
    comparison.hold({"ar_f_hat_final": outcome.generation.canvas} | values)
    _compare_teacher(comparison, outcome, forced)
    if golden.matching("smooth_.*"):
        _compare_smooth(comparison, rebuilt)
    if golden.matching("enc_.*"):
        _compare_encoder(comparison, rebuilt)
    count = rebuilt.tokenizer.config.phis or len(rebuilt.stages)
    indices = np.array(phi_index(len(rebuilt.stages), count))
    comparison.hold({"phi_index_per_stage": indices, "phi_ticks": ticks(count)})
    comparison.note(unforced("indices", generate(rebuilt, {}), forced))


def _rows(outcome: Outcome[Setup], k: int) -> tuple[Tensor, Tensor]:
    """Logits of both guidance rows at stage k, each [B, n, V], also where guidance needs only one."""
    head = outcome.state.conditioning.head
    cond, uncond = outcome.setup.model.transformer.logits(outcome.capture.blocks[k][-1], head).chunk(2)
    return cond, uncond


def _compare_stage(comparison: Comparison, outcome: Outcome[Setup], k: int) -> None:
    capture, golden, prefix = outcome.capture, comparison.golden, f"ar_s{k}"
    (cond, uncond), guided = _rows(outcome, k), capture.final[k]
    values = {"logits_cond": cond, "logits_uncond": uncond, "logits_cfg": guided, "hidden_last": capture.blocks[k][-1]}
    comparison.hold({f"{prefix}_{name}": value for name, value in values.items()})
    margin = margin_of(guided, golden.tensor(f"{prefix}_logits_cfg", guided.shape))
    comparison.labels(f"{prefix}_ids", capture.labels[k], margin, golden.tolerance("logits_abs"))
    values = {"margin": gap(guided).min(), "h": capture.codes[k], "f_hat": capture.canvas[k]}
    if k + 1 < len(outcome.setup.stages):
        values["next"] = area(capture.canvas[k], outcome.setup.grids[k + 1])
    comparison.hold({f"{prefix}_{name}": value for name, value in values.items()})


def _compare_teacher(comparison: Comparison, outcome: Outcome[Setup], forced: dict[int, Tensor]) -> None:
    """Teacher forcing, on the run's own indices and on prescribed ones."""
    rebuilt = outcome.setup
    given = [forced.get(k, outcome.capture.labels[k].long()) for k in rebuilt.stages]
    cached = torch.cat([_rows(outcome, k)[0] for k in rebuilt.stages], 1)
    difference = (rebuilt.forward(rebuilt.text, given) - cached).abs().max()
    pyramid = rebuilt.pyramid()
    logits, ids = rebuilt.forward(rebuilt.text, pyramid), torch.cat(pyramid, 1)
    nothing = torch.full_like(rebuilt.text, rebuilt.model.transformer.config.classes)
    values = {
        "tf_on_sampled_max_abs_diff_vs_ar_cond": difference,
        "tf_gt_ids": ids,
        "tf_input": rebuilt.joined(pyramid),
        "tf_logits": logits,
        "tf_logits_uncond": rebuilt.forward(nothing, pyramid)[:, -LAST:],
        "tf_loss_per_token": F.cross_entropy(logits.mT, ids, reduction="none"),
        "gt_fhat_last": list(rebuilt.tokenizer.canvases(pyramid, rebuilt.grids))[-1],
    }
    comparison.hold(values)


def _compare_smooth(comparison: Comparison, rebuilt: Setup) -> None:
    """Smooth sampling without its noise."""
    progress = iter([k / max(len(rebuilt.stages) - 1, 1) for k in rebuilt.stages])
    smooth = replace(rebuilt, choose=lambda guided: soften(guided, next(progress), torch.ones(())))
    outcome = generate(smooth, {})
    last = outcome.capture.final[-1][:, -LAST:]
    comparison.hold({"smooth_f_hat_final": outcome.generation.canvas, "smooth_logits_cfg_last": last})


def _compare_encoder(comparison: Comparison, rebuilt: Setup) -> None:
    """Pictures to indices and back. An index may differ where the golden knows a near tie and ours is one."""
    tokenizer, golden = rebuilt.tokenizer, comparison.golden
    indices, canvases, latent = tokenizer.encode(rebuilt.image(), rebuilt.grids)
    gaps, least = _distance_gaps(rebuilt, latent, canvases), golden.arrays.get("enc_min_gap")
    flat, energy = [index.flatten(1) for index in indices], latent.square().sum()
    margin = torch.full_like(gaps, torch.inf) if least is None else gaps.clamp(min=float(least))
    comparison.hold({"enc_f": latent})
    comparison.labels("enc_ids", torch.cat(flat, 1), margin, golden.tolerance("latents_abs"))
    values = {
        "enc_min_gap": gaps.min(),
        "enc_fhat_first": canvases[0],
        "enc_fhat_last": canvases[-1],
        "enc_fhat_rel_err_per_stage": torch.stack([(latent - z).square().sum() / energy for z in canvases]),
        "enc_var_input": rebuilt.joined(flat),
        "enc_rec_sub4": tokenizer.decode(canvases[-1])[..., ::4, ::4],
    }
    comparison.hold(values)


def _distance_gaps(rebuilt: Setup, latent: Tensor, canvases: list[Tensor]) -> Tensor:
    """Between the nearest and the second nearest code, squared distances, of every token [B, L]."""
    table, gaps = rebuilt.tokenizer.quantize.embedding.weight, []
    for canvas, grid in zip([torch.zeros_like(latent), *canvases[:-1]], rebuilt.grids, strict=True):
        z = area(latent - canvas, grid).flatten(2).mT
        gaps.append(gap(-torch.cdist(z.double(), table.double().expand(len(z), -1, -1)).square()))
    return torch.cat(gaps, 1)


@held_to(given="logits", equal="*_keep *_count", abs="*_maxprob")
def compare_sampling(comparison: Comparison) -> None:
    """Which values survive top-k and top-p, how many, and the probability of the likeliest after them."""
    logits = torch.from_numpy(comparison.golden.array("logits"))
    for found in comparison.golden.matching(r"(k(\d+)_p([\d.]+))_keep"):
        left = only_likeliest(logits, int(found[2]), float(found[3]))
        kept = left > -torch.inf
        comparison.hold({found[0]: np.packbits(kept.numpy(), axis=-1)})
        comparison.hold({f"{found[1]}_count": kept.sum(-1), f"{found[1]}_maxprob": left.softmax(-1).amax(-1)})
