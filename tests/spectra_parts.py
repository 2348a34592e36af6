"""What test_spectra.py and test_edges.py share."""

import math

import torch


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def wave(height: int, width: int, ky: int, kx: int, phase: float = 0.3) -> torch.Tensor:
    """A cosine of ky and kx cycles per image: mean square 1/2, all of it at one frequency."""
    y, x = torch.arange(height)[:, None] / height, torch.arange(width) / width
    return torch.cos(2 * math.pi * (ky * y + kx * x) + phase)
