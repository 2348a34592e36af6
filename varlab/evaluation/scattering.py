"""A feature space for distances between sets of images that needs no weights: logarithms of scattering coefficients.

Three scales and four orientations of Morlet wavelets, moduli averaged over the whole image. Of an image x in [0, 1]:
3 means of R, G and B; 36 logarithms of mean |x_c * psi(j, t)| for each channel c; 48 logarithms of mean
||y * psi(j, t)| * psi(j', t')| of the luma y for j < j'. 87 features in all, blind to where an object lies.
Distances in this space are of this space alone: they are no FID and compare with no published number.
Source: Bruna and Mallat, "Invariant scattering convolution networks" (arXiv 1203.1513).
"""

import math
from collections.abc import Iterable
from functools import cache
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from varlab.context import fixed_context
from varlab.errors import VarlabError
from varlab.measures.metrics import luma
from varlab.measures.spectra import check_range

SCALES, ORIENTATIONS = 3, 4
MARGIN = 2**SCALES  # pixels mirrored around the image, so that opposite edges do not meet
FLOOR = 1e-3  # below it a coefficient counts as nothing
FEATURES = 3 + 3 * SCALES * ORIENTATIONS + ORIENTATIONS**2 * SCALES * (SCALES - 1) // 2


@cache
@fixed_context()
def wavelets(height: int, width: int) -> Tensor:
    """Fourier transforms of the Morlet wavelets [scales, orientations, height, width], zero at frequency zero.

    At scale j: centre frequency 3/4 pi / 2^j, Gaussian of 0.8 * 2^j pixels, half as long across as along.
    """
    y, x = (2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    turns = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]  # a sampled wavelet repeats every 2 pi
    bank = torch.zeros(SCALES, ORIENTATIONS, height, width, dtype=torch.float64)
    for j in range(SCALES):
        spread, centre = 0.8 * 2**j, 0.75 * math.pi / 2**j
        for t in range(ORIENTATIONS):
            angle = math.pi * t / ORIENTATIONS
            bump, still = torch.zeros(2, height, width, dtype=torch.float64)
            for a, b in turns:
                v, u = (y + 2 * math.pi * a)[:, None], (x + 2 * math.pi * b)[None]
                along = u * math.cos(angle) + v * math.sin(angle)
                across = v * math.cos(angle) - u * math.sin(angle)
                bump += torch.exp(-(spread**2) / 2 * ((along - centre) ** 2 + (2 * across) ** 2))
                still += torch.exp(-(spread**2) / 2 * (along**2 + (2 * across) ** 2))
            bank[j, t] = bump - bump[0, 0] / still[0, 0] * still
    return bank.float()


def moduli(maps: Tensor, bank: Tensor) -> Tensor:
    """Maps [..., H, W] and wavelets [k, H, W] -> |map * wavelet| [..., k, H, W]."""
    return torch.fft.ifft2(torch.fft.fft2(maps)[..., None, :, :] * bank).abs()


def _mean(maps: Tensor) -> Tensor:
    """Over the image without its margin."""
    return maps[..., MARGIN:-MARGIN, MARGIN:-MARGIN].mean((-2, -1))


def scattering(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1], at least 16 pixels a side -> features [B, 87]."""
    check_range(images)
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < 2 * MARGIN:
        raise VarlabError(
            f"Scattering needs images [B, 3, H, W] of at least {2 * MARGIN} pixels, not {list(images.shape)}."
        )
    padded = F.pad(images.float(), (MARGIN,) * 4, mode="reflect")
    bank = wavelets(*padded.shape[-2:]).to(images.device)
    first = [_mean(moduli(padded, bank[j])).flatten(1) for j in range(SCALES)]
    second, y = [], luma(padded)
    for j in range(SCALES - 1):
        inner = moduli(y, bank[j])
        second += [_mean(moduli(inner, bank[later])).flatten(1) for later in range(j + 1, SCALES)]
    return torch.cat([images.float().mean((-2, -1)), torch.log(torch.cat(first + second, 1) + FLOOR)], 1)


@fixed_context()
def scattering_of(pictures: Iterable[np.ndarray], batch: int = 100) -> np.ndarray:
    """Pictures uint8 [H, W, 3], all of one size -> features float64 [n, 87]. They may come one by one: ``batch`` are
    held at a time."""
    left, parts = iter(pictures), []
    while few := list(islice(left, batch)):
        stack = np.stack(few)
        if stack.dtype != np.uint8:
            raise VarlabError(f"Pictures are uint8 [n, H, W, 3] here, not {stack.dtype}. Give those of 0 to 255.")
        images = torch.from_numpy(stack).movedim(-1, 1) / 255
        parts.append(scattering(images).double().numpy())
    return np.concatenate(parts)
