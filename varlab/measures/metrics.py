"""How alike two images are, and how the energy of a map lies on edges: each definition stated once.

Pure tensor functions in float32. Images are [..., 3, H, W] in [0, 1] and may have any leading dimensions; other
ranges, whole numbers such as uint8, and arrays are refused with the conversion that they need. Two
images broadcast over them, so that previews [stage, prompt, 3, H, W] compare with finals [prompt, 3, H, W].
Cells are [..., n]: flatten a map's sides first. Nothing here is a convolution: on a GPU those would run in
TF32 or, under autocast, in bfloat16, and an SSIM would be wrong in its third digit.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.errors import VarlabError
from varlab.measures.edges import sobel_magnitude
from varlab.measures.spectra import check_maps, check_range

__all__ = [
    "concentration", "edge_energy", "gini", "high_frequency_ssim", "high_pass", "luma", "ms_ssim", "psnr",
    "sobel_magnitude", "spearman", "ssim", "ssims",
]  # fmt: skip

WINDOW = 11  # taps of the Gaussian of SSIM
SIGMA = 1.5
POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's scales, the finest first
STRIP = 64  # rows of windows at a time
LEAST_MS = WINDOW * 2 ** (len(POWERS) - 1)  # pixels a side


# --- fidelity of an image to its reference ------------------------------------------------------------------


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """-10 log10 of the mean squared error over channels and pixels, [...] in dB; `inf` for equal images."""
    check_pair(image, reference)
    error = (image.float() - reference.float()).square().mean((-3, -2, -1))
    return -10 * error.log10()


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity [...]: mean over channels and whole windows, 1 for equal images.

    Gaussian window of 11 taps, sigma 1.5, range 1, K = (.01, .03), population moments (Wang et al. 2004).
    Equal to `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`. Images under 11 pixels are refused.
    """
    check_pair(image, reference)
    return _ssim(image, reference)


def ms_ssim(image: Tensor, reference: Tensor) -> Tensor:
    """SSIM over five scales [...] (Wang, Simoncelli and Bovik 2003): see ``ssims``."""
    return ssims(image, reference)[1]


def ssims(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """(``ssim``, ``ms_ssim``), each [...], which share their finest scale.

    MS-SSIM of a channel is the product of the mean contrast and structure of five scales, at the coarsest with
    luminance, to the powers of Wang et al.; the mean over channels is returned. Each scale halves the one before by
    means of 2 x 2 pixels, a last odd row or column is left out, and a negative mean counts as 0. Sides under 176
    pixels are refused: the coarsest would be smaller than the window.
    """
    check_pair(image, reference)
    if image.ndim < 3 or min(image.shape[-2:]) < LEAST_MS:
        raise VarlabError(
            f"MS-SSIM halves images four times and needs {LEAST_MS} pixels a side; these are "
            f"{tuple(image.shape)}. Use ssim."
        )
    x, y, scales = image.float(), reference.float(), []
    for scale in range(len(POWERS)):
        x, y = (x, y) if scale == 0 else (_halved(x), _halved(y))
        scales.append(_similarity(x, y))
    wholes, structures = zip(*scales, strict=True)
    factors = torch.stack([*structures[:-1], wholes[-1]], -1).clamp(min=0)
    return wholes[0].mean(-1), (factors ** factors.new_tensor(POWERS)).prod(-1).mean(-1)


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x.flatten(0, -3), 2).unflatten(0, x.shape[:-2])


def _ssim(image: Tensor, reference: Tensor) -> Tensor:
    """``ssim`` of maps of any range, which has the constants of range 1."""
    return _similarity(image.float(), reference.float())[0].mean(-1)


def _similarity(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Means over every whole window of SSIM, and of its factor of contrast and structure: [..., channels] each.

    On a CPU by strips, whose maps stay in its cache: less than half the time at 1024 pixels.
    """
    _check_window(image)
    height, width = (side - WINDOW + 1 for side in image.shape[-2:])
    step = height if image.is_cuda else STRIP
    whole = structure = image.new_zeros(())
    for top in range(0, height, step):
        rows = min(step, height - top) + WINDOW - 1
        both, own = _windows(image.narrow(-2, top, rows), reference.narrow(-2, top, rows))
        whole, structure = whole + both.sum((-2, -1)), structure + own.sum((-2, -1))
    return whole / (height * width), structure / (height * width)


def _windows(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its factor of contrast and structure, in every whole window."""
    c1, c2 = 0.01**2, 0.03**2
    # Variances do not care for the offset, and about mid-grey they lose fewer digits to cancellation.
    x, y = image - 0.5, reference - 0.5
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * structure, structure


def high_frequency_ssim(image: Tensor, reference: Tensor) -> Tensor:
    """`ssim` of the detail, [...]: ssim(high_pass(image) + .5, high_pass(reference) + .5).

    The shift keeps SSIM's luminance term at 1, so that contrast and structure of the detail decide alone. Our
    own definition: SkipVAR does not publish that of its SSIM-HF, and the two are not comparable.
    """
    check_pair(image, reference)
    return _ssim(high_pass(image) + 0.5, high_pass(reference) + 0.5)


def high_pass(image: Tensor) -> Tensor:
    """image - its Gaussian blur, same shape, in [-1, 1]; passes half at .125 cycles per sample.

    The blur has the window of `ssim` (sigma 1.5) and mirrored borders.
    """
    check_maps(image, "An image")
    _check_window(image)
    x = image.float()
    half = WINDOW // 2
    mirrored = F.pad(x.flatten(0, -3), (half, half, half, half), mode="reflect")
    return x - _blur(mirrored).reshape(x.shape)


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean over every whole window: [..., H, W] -> [..., H - 10, W - 10]."""
    half = WINDOW // 2
    taps = [math.exp(-0.5 * (offset / SIGMA) ** 2) for offset in range(-half, half + 1)]
    for dim in (-2, -1):
        length = x.shape[dim] - WINDOW + 1
        blurred = torch.zeros_like(x.narrow(dim, 0, length))
        for start, tap in enumerate(taps):
            blurred.add_(x.narrow(dim, start, length), alpha=tap / sum(taps))
        x = blurred
    return x


def check_pair(image: Tensor, reference: Tensor) -> None:
    """Refuse what is no pair of images [..., channels, H, W] in [0, 1] of one size, and say how to convert it."""
    for pixels in (image, reference):
        check_range(pixels)
    if image.ndim < 3 or image.shape[-3:] != reference.shape[-3:]:
        raise VarlabError(
            f"Images [..., channels, H, W] of one size are compared, not {tuple(image.shape)} with "
            f"{tuple(reference.shape)}. Resize one of them first."
        )


def _check_window(image: Tensor) -> None:
    if image.ndim < 3 or min(image.shape[-2:]) < WINDOW:
        raise VarlabError(
            f"SSIM slides a window of {WINDOW} x {WINDOW} pixels over images [..., channels, H, W]; "
            f"this one is {tuple(image.shape)}. Decode a larger preview, or use psnr."
        )


# --- edges --------------------------------------------------------------------------------------------------


def luma(image: Tensor) -> Tensor:
    """.299 R + .587 G + .114 B of gamma-coded RGB (Rec. 601, as PIL's "L"): [..., 3, H, W] -> [..., H, W]."""
    check_maps(image, "An image")
    if image.ndim < 3 or image.shape[-3] != 3:
        raise VarlabError(f"Luma needs RGB images [..., 3, H, W], not shape {tuple(image.shape)}.")
    red, green, blue = image.float().unbind(-3)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def edge_energy(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """The edge map g [..., h, w]: Sobel magnitude of the luma, resized by area to `grid` = (h, w)."""
    return edges_on_grid(sobel_magnitude(luma(image)), grid)


def edges_on_grid(edges: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sobel magnitudes [..., H, W] resized by area to `grid`: the part of `edge_energy` that differs by stage."""
    resized = F.interpolate(edges.reshape(-1, 1, *edges.shape[-2:]), size=tuple(grid), mode="area")
    return resized.reshape(*edges.shape[:-2], *grid)


# --- how a map's energy is spread ---------------------------------------------------------------------------


def concentration(energy: Tensor, edges: Tensor, quarter: float = 0.25) -> Tensor:
    """Share of energy [..., n] on the `quarter` of the cells with the largest edges [..., n]; in [0, 1].

    `quarter` itself where the energy does not care for edges. Exactly quarter * n cells count: equal edges at
    the cut share what is left, so the result does not depend on an order among ties. NaN without energy or
    with a NaN edge.
    """
    if energy.shape[-1] != edges.shape[-1]:
        raise VarlabError(f"Energy of {energy.shape[-1]} cells does not lie on edges of {edges.shape[-1]} cells.")
    if not 0 < quarter <= 1:
        raise VarlabError(f"The share of cells must be in (0, 1], not {quarter}.")
    energy, edges = energy.float(), edges.float()
    n = edges.shape[-1]
    cut = edges.kthvalue(n + 1 - math.ceil(round(quarter * n, 9)), dim=-1, keepdim=True).values
    above, tied = (edges > cut).float(), (edges == cut).float()
    left_over = quarter * n - above.sum(-1, keepdim=True)
    weight = above + tied * left_over / tied.sum(-1, keepdim=True)
    share = (energy * weight).sum(-1) / energy.sum(-1)
    return torch.where(edges.isnan().any(-1), torch.nan, share)


def gini(energy: Tensor) -> Tensor:
    """Gini coefficient of nonnegative cells [..., n]: 0 if all are equal, (n - 1) / n if one has all.

    Half the mean absolute difference of two cells over their mean; NaN without energy.
    """
    ascending = energy.float().sort(-1).values
    n = energy.shape[-1]
    weight = 2 * torch.arange(1, n + 1, device=energy.device, dtype=torch.float32) - n - 1
    return (weight * ascending).sum(-1) / (n * ascending.sum(-1))


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of cells a and b [..., n], ties at their average rank; in [-1, 1].

    Leading dimensions broadcast. NaN where either is constant or holds a NaN, as in `scipy.stats.spearmanr`.
    """
    if a.shape[-1] != b.shape[-1]:
        raise VarlabError(f"A rank correlation pairs cells: {a.shape[-1]} do not pair with {b.shape[-1]}.")
    rank_a, rank_b = _centred_ranks(a), _centred_ranks(b)
    covariance = (rank_a * rank_b).sum(-1)
    spread = (rank_a.square().sum(-1) * rank_b.square().sum(-1)).sqrt()
    return (covariance / spread).clamp(-1, 1)


def _centred_ranks(x: Tensor) -> Tensor:
    """Average ranks less their mean, over n: in (-.5, .5), exactly 0 for a constant, NaN beside a NaN."""
    n = x.shape[-1]
    ascending, order = x.contiguous().sort(-1)
    if bool((ascending[..., 1:] == ascending[..., :-1]).any()):
        below = torch.searchsorted(ascending, ascending, out_int32=True)
        up_to = torch.searchsorted(ascending, ascending, right=True, out_int32=True)
        centred = (below + up_to - n).float() / (2 * n)
    else:  # nothing is tied, as is usual for energies: a place in the order is a rank, at a third of the time
        centred = _places(n, x.device).expand_as(ascending)
    ranks = torch.empty_like(centred, memory_format=torch.contiguous_format).scatter_(-1, order, centred)
    return torch.where(ascending[..., -1:].isnan(), torch.nan, ranks) if n else ranks  # NaN comes last in the order


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _places(n: int, device: torch.device) -> Tensor:
    """Places in the order of n cells, less their mean, over n."""
    return (2 * torch.arange(n, device=device) + 1 - n).float() / (2 * n)
