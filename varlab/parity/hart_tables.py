"""Golden tables of HART: label filters, softened mixtures, diffusion schedules, interpolations."""

import numpy as np
import torch

from varlab.models.diffusion import diffusion_table, spaced
from varlab.models.labels import gumbel_mixture, only_likeliest
from varlab.models.tokenizers.bsq import area, bicubic
from varlab.parity import weights
from varlab.parity.comparison import Comparison, held_to
from varlab.parity.golden import Golden

SEEDS = range(1000)  # among which the table's own is looked for where its header does not name it


@held_to(given="kp.*", equal="diff_timestep_map diff_map_*", abs="*")
def compare_sampling(comparison: Comparison) -> None:
    """Drawn noise comes from the table's seed."""
    golden, seed = comparison.golden, _seed(comparison.golden)
    logits = torch.from_numpy(golden.array("logits"))
    comparison.hold({"logits": _logits(seed, tuple(logits.shape))})
    for found in golden.matching(r"kp\.(\d+)"):
        _compare_filter(comparison, logits, found[1])
    noise = weights.numbers("noise.gumbel_exp", seed, tuple(logits.shape), "standard_exponential").astype(np.float32)
    for found in golden.matching(r"gumbel_soft\.(\d+\.\d+)"):
        comparison.hold({found[0]: gumbel_mixture(logits, torch.from_numpy(noise), float(found[1]))})
    comparison.hold({"diff_timestep_map": diffusion_table(8).times})
    comparison.hold({found[0]: spaced(int(found[1])) for found in golden.matching(r"diff_map_(\d+)")})
    for steps in sorted({int(found[1]) for found in golden.matching(r"diff(\d+)_.*")}):
        _compare_constants(comparison, steps)
    if comparison.wants("fmap"):
        fmap = torch.from_numpy(golden.arrays["fmap"])
        comparison.hold({"fmap": weights.normal("input.fmap", seed, tuple(fmap.shape)).astype(np.float32)})
        for found in golden.matching(r"(bicubic|area)_to_(\d+)"):  # square sides
            resize = bicubic if found[1] == "bicubic" else area
            comparison.hold({found[0]: resize(fmap, (int(found[2]), int(found[2])))})


def _logits(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return (2 * weights.normal("input.logits", seed, shape)).astype(np.float32)


def _seed(golden: Golden) -> int:
    """As stated, else the one that draws the table's logits; 0 where none does, and then the logits differ."""
    stored = golden.array("logits")
    drawn = (seed for seed in SEEDS if np.array_equal(_logits(seed, stored.shape), stored))
    return int(golden.config["seed"]) if "seed" in golden.config else next(drawn, 0)


def _compare_filter(comparison: Comparison, logits: torch.Tensor, number: str) -> None:
    """Logits after top-k and top-p, whose removed entries must be the same, and their probabilities."""
    top_k, top_p = comparison.golden.arrays[f"kp.{number}"]
    kept, masked = only_likeliest(logits, int(top_k), float(top_p)), f"masked.{number}"
    comparison.hold({f"prob.{number}": kept.softmax(-1)})
    if comparison.wants(masked):
        expected = comparison.golden.arrays[masked]
        comparison.verify(f"{masked}_removed", np.array_equal(np.isinf(expected), kept.isinf().numpy()))
        comparison.golden.arrays[masked] = np.where(np.isinf(expected), 0, expected)
        comparison.hold({masked: kept.masked_fill(kept.isinf(), 0)})


def _compare_constants(comparison: Comparison, steps: int) -> None:
    table = diffusion_table(steps)
    values = {
        "betas": table.betas,
        "alphas_cumprod": table.alpha_bar,
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / table.alpha_bar),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / table.alpha_bar - 1),
        "posterior_variance": table.posterior,
        "posterior_log_variance_clipped": table.log_posterior,
        "posterior_mean_coef1": table.from_clean,
        "posterior_mean_coef2": table.from_noisy,
    }
    comparison.hold({f"diff{steps}_{name}": value for name, value in values.items()})
