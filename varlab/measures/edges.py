"""Edges of a map, and the two frequency features of SkipVAR. Computed like the spectra beside them (``spectra``)."""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.errors import VarlabError, unknown
from varlab.measures.spectra import check_maps, check_range


def sobel_magnitude(m: Tensor, padding: Literal["replicate", "zeros"] = "replicate") -> Tensor:
    """sqrt(gx^2 + gy^2) of maps m [..., H, W] under the unnormalised 3x3 Sobel filters (weights 1, 2, 1).

    A unit step gives 4. Replicating the border leaves a constant map without edges; with "zeros" the border
    of the map is an edge itself, as in SkipVAR's code.
    """
    if padding not in ("replicate", "zeros"):
        raise unknown("padding", padding, ("replicate", "zeros"))
    check_maps(m)
    if m.ndim < 2:
        raise VarlabError(f"Edges need maps [..., H, W], not shape {tuple(m.shape)}.")
    height, width = m.shape[-2:]
    if padding == "zeros":
        p = F.pad(m.float(), (1, 1, 1, 1))
    else:
        rows = torch.arange(-1, height + 1, device=m.device).clamp(0, height - 1)
        columns = torch.arange(-1, width + 1, device=m.device).clamp(0, width - 1)
        p = m.float()[..., rows, :][..., columns]
    smooth_y = p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]
    smooth_x = p[..., :-2] + 2 * p[..., 1:-1] + p[..., 2:]
    gx = smooth_y[..., 2:] - smooth_y[..., :-2]
    gy = smooth_x[..., 2:, :] - smooth_x[..., :-2, :]
    return (gx.square() + gy.square()).sqrt()


def _check_image(image: Tensor) -> None:
    check_range(image, least=-1)
    if image.ndim < 3:
        raise VarlabError(f"SkipVAR's features need images [..., C, H, W], not shape {tuple(image.shape)}.")


def skipvar_hf_ratio(image: Tensor, radius_share: float = 0.4) -> Tensor:
    """SkipVAR's HF_Ratio of images [..., C, H, W]: share of Fourier *magnitude* outside a centred disc.

    Taken on the plain channel mean, with DC in the denominator, which gets 1e-6 added (unnormalised `fft2`).
    The disc has a radius of int(radius_share * min(H, W) / 2) bins, its rim included. Follows the official
    code, whose images are in [-1, 1]; a higher value makes it skip less.
    """
    _check_image(image)
    magnitude = torch.fft.fft2(image.float().mean(-3)).abs()
    height, width = magnitude.shape[-2:]
    outside = _outside_disc(height, width, int(radius_share * min(height, width) / 2), image.device)
    return (magnitude * outside).sum((-2, -1)) / (magnitude.sum((-2, -1)) + 1e-6)


def skipvar_hf_diff(new: Tensor, old: Tensor) -> Tensor:
    """SkipVAR's HF_Diff: mean |Sobel(new) - Sobel(old)| of images [..., C, H, W], one value per image.

    Sobel magnitude of the plain channel mean with zero padding, so that the border adds the difference of two
    constant images. The official code, for images in [-1, 1], averages over the batch as well; a higher value
    makes it skip less.
    """
    for image in (new, old):
        _check_image(image)
    if new.shape[-3:] != old.shape[-3:]:
        raise VarlabError(f"Images of one size are compared, not {tuple(new.shape)} with {tuple(old.shape)}.")
    edges_new = sobel_magnitude(new.float().mean(-3), padding="zeros")
    edges_old = sobel_magnitude(old.float().mean(-3), padding="zeros")
    return (edges_new - edges_old).abs().mean((-2, -1))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
@fixed_context()
def _outside_disc(height: int, width: int, radius: int, device: torch.device) -> Tensor:
    """[H, W] bool, in the order of `fft2`: bins further than `radius` bins from DC."""
    y = torch.fft.fftfreq(height, d=1 / height).round()
    x = torch.fft.fftfreq(width, d=1 / width).round()
    return (y[:, None].square() + x[None, :].square() > radius**2).to(device)
