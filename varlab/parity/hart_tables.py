"""Golden tables of HART: label filters, softened mixtures, diffusion schedules, interpolations."""

import re

import numpy as np
import torch

from varlab.models.diffusion import diffusion_table, spaced
from varlab.models.labels import gumbel_mixture, keep_likeliest
from varlab.models.tokenizers.bsq import area
from varlab.models.tokenizers.hybrid import bicubic
from varlab.parity import weights
from varlab.parity.comparison import Comparison
from varlab.parity.golden import Golden
from varlab.parity.report import Report

SEEDS = range(1000)  # among which the table's own is looked for where its header does not name it


def check_sampling(golden: Golden) -> Report:
    """Everything to the file's absolute tolerance; drawn noise comes from the table's seed."""
    comparison, seed = Comparison(golden), _seed(golden)
    logits = torch.from_numpy(golden.array("logits"))
    comparison.absolute("logits", _logits(seed, tuple(logits.shape)), "abs")
    _compare_filters(comparison, logits)
    noise = weights.numbers("noise.gumbel_exp", seed, tuple(logits.shape), "standard_exponential").astype(np.float32)
    for name in golden.arrays:
        if found := re.fullmatch(r"gumbel_soft\.(\d+\.\d+)", name):
            soft = gumbel_mixture(logits, torch.from_numpy(noise), float(found[1]))
            comparison.absolute(name, soft, "abs")
    _compare_diffusion(comparison)
    _compare_maps(comparison, seed)
    return comparison.finish()


def _logits(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return (2 * weights.normal("input.logits", seed, shape)).astype(np.float32)


def _seed(golden: Golden) -> int:
    """As stated, else the one that draws the table's logits; 0 where none does, and then the logits differ."""
    stored = golden.array("logits")
    drawn = (seed for seed in SEEDS if np.array_equal(_logits(seed, stored.shape), stored))
    return int(golden.config["seed"]) if "seed" in golden.config else next(drawn, 0)


def _compare_filters(comparison: Comparison, logits: torch.Tensor) -> None:
    """Logits after top-k and top-p, whose removed entries must be the same, and their probabilities."""
    for name, filters in list(comparison.golden.arrays.items()):
        if not (found := re.fullmatch(r"kp\.(\d+)", name)):
            continue
        comparison.wants(name)
        top_k, top_p = int(filters[0]), float(filters[1])
        kept = keep_likeliest(logits, top_k, top_p)
        comparison.absolute(f"prob.{found[1]}", kept.softmax(-1), "abs")
        masked = f"masked.{found[1]}"
        if comparison.wants(masked):
            expected = comparison.golden.arrays[masked]
            comparison.verify(f"{masked}_removed", np.array_equal(np.isinf(expected), kept.isinf().numpy()), "")
            comparison.golden.arrays[masked] = np.where(np.isinf(expected), 0, expected)
            comparison.absolute(masked, kept.masked_fill(kept.isinf(), 0), "abs")


def _compare_diffusion(comparison: Comparison) -> None:
    comparison.equal("diff_timestep_map", diffusion_table(8).times)
    for name in comparison.golden.arrays:
        if found := re.fullmatch(r"diff_map_(\d+)", name):
            comparison.equal(name, spaced(int(found[1])))
        elif found := re.match(r"diff(\d+)_", name):
            _compare_constants(comparison, int(found[1]), found[0])


def _compare_constants(comparison: Comparison, steps: int, prefix: str) -> None:
    table = diffusion_table(steps)
    for name, values in {
        "betas": table.betas,
        "alphas_cumprod": table.kept,
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / table.kept),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / table.kept - 1),
        "posterior_variance": table.posterior,
        "posterior_log_variance_clipped": table.log_posterior,
        "posterior_mean_coef1": table.from_clean,
        "posterior_mean_coef2": table.from_noisy,
    }.items():
        if f"{prefix}{name}" not in {row.name for row in comparison.result.rows}:
            comparison.absolute(f"{prefix}{name}", values, "abs")


def _compare_maps(comparison: Comparison, seed: int) -> None:
    """Bicubic and area interpolation of a map, to square sides."""
    if not comparison.wants("fmap"):
        return
    fmap = torch.from_numpy(comparison.golden.arrays["fmap"])
    comparison.absolute("fmap", weights.normal("input.fmap", seed, tuple(fmap.shape)).astype(np.float32), "abs")
    for name in comparison.golden.arrays:
        if found := re.fullmatch(r"(bicubic|area)_to_(\d+)", name):
            resize = bicubic if found[1] == "bicubic" else area
            comparison.absolute(name, resize(fmap, (int(found[2]), int(found[2]))), "abs")
