"""Frequency-gated self-reconstruction: small modules that rebuild token maps from their wavelet bands.

``Predictor`` is the released code's: it throws the detail bands away and predicts them from the low one. With its last
convolution at zero, as shipped and never trained, the loss is the detail energy of the student's own maps. ``Gate`` is
the first upload's, which the paper describes: bands are scaled, squeezed to c channels and widened again.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.training.freqexit.wavelets import haar, inverse, to_even

LEAST_SIDE = 8  # of the predictor's stages
ORTHOGONAL, DIVERSE = 0.1, 0.01


class Predictor(nn.Module):
    """Maps [B, c, p, p] -> the same from LL alone; details = conv1x1(silu(conv3x3(LL)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.predictor = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * width, 3 * width, 1)
        )
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    @property
    def last(self) -> nn.Conv2d:
        layer = self.predictor[2]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        ll, _ = haar(to_even(x))
        details = self.predictor(ll).unflatten(1, (-1, 3))  # [B, c, 3, h, w], channel by channel
        return inverse(ll, details)[..., : x.shape[-2], : x.shape[-1]]


class Gate(nn.Module):
    """Maps [B, c, p, p] -> the same through c channels of gated bands; gains exp(s) start at e, root e, root e, 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, value in (("s_ll", 1.0), ("s_lh", 0.5), ("s_hl", 0.5), ("s_hh", 0.0)):
            setattr(self, name, nn.Parameter(torch.full((width,), value)))
        self.conv1x1 = nn.Conv2d(4 * width, width, 1)
        self.inv_conv1x1 = nn.Conv2d(width, 4 * width, 1)
        with torch.no_grad():
            blocks = 0.5 * torch.eye(width).repeat(1, 4)  # [c, 4c]
            self.conv1x1.weight.copy_(blocks[:, :, None, None])
            self.inv_conv1x1.weight.copy_(blocks.T[:, :, None, None])
            for layer in (self.conv1x1, self.inv_conv1x1):
                layer.bias.zero_()  # type: ignore[union-attr]

    def gains(self) -> Tensor:
        """[4, c, 1, 1]."""
        return torch.stack([self.s_ll, self.s_lh, self.s_hl, self.s_hh]).exp()[..., None, None]  # type: ignore[list-item]

    def forward(self, x: Tensor) -> Tensor:
        ll, details = haar(to_even(x))
        bands = torch.cat([ll[:, None], details.transpose(1, 2)], 1)  # [B, 4, c, h, w]
        mixed = self.inv_conv1x1(self.conv1x1((bands * self.gains()).flatten(1, 2))).unflatten(1, (4, -1))
        rebuilt = inverse(mixed[:, 0], mixed[:, 1:].transpose(1, 2))
        return rebuilt[..., : x.shape[-2], : x.shape[-1]]

    def orthogonality(self) -> Tensor:
        """How far both convolutions are from orthogonal and from each other's transpose. The second can never be 0:
        4c x 4c of rank c is no identity."""
        down, up = self.conv1x1.weight.flatten(1), self.inv_conv1x1.weight.flatten(1)
        terms = ((down @ down.T, torch.eye(len(down))), (up @ up.T, torch.eye(len(up))), (up, down.T))
        return torch.stack([F.mse_loss(a, b.to(a)) for a, b in terms]).sum()


class Reconstruction(nn.Module):
    """One module a stage, under the released code's names, and the loss over all of them."""

    def __init__(self, kind: type[Predictor] | type[Gate], width: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.kind, self.sides = kind, tuple(sides)
        if not self.stages():
            raise VarlabError(
                f"The released self-reconstruction reads stages of side {LEAST_SIDE} and more; this schedule ends at "
                f"{self.sides[-1]}. Take fgsr=gated, which reads all stages, or fgsr=off."
            )
        self.sam_modules = nn.ModuleDict({f"step_{k}": kind(width) for k in range(len(sides))})

    def stage(self, k: int) -> nn.Module:
        return self.sam_modules[f"step_{k}"]

    def stages(self) -> dict[int, float]:
        """Stages that count, and how much."""
        if self.kind is Gate:
            return dict.fromkeys(range(len(self.sides)), 1.0)
        last = max(len(self.sides) - 1, 1)
        return {k: 0.7 + 0.6 * k / last for k, side in enumerate(self.sides) if side >= LEAST_SIDE}

    def errors(self, maps: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Soft maps of one layer [B, L, c] -> weight and mean square error of each stage that counts."""
        parts = maps.split([side * side for side in self.sides], 1)
        for k, weight in self.stages().items():
            grid = parts[k].mT.unflatten(-1, (self.sides[k], self.sides[k]))
            yield weight, F.mse_loss(self.stage(k)(grid), grid)

    def regulariser(self) -> Tensor:
        """Gates: mean orthogonality. Predictors: how alike the last convolutions of consecutive stages are."""
        if self.kind is Gate:
            gates = [module for module in self.sam_modules.values() if isinstance(module, Gate)]
            return torch.stack([module.orthogonality() for module in gates]).mean()
        predictors = [module for module in self.sam_modules.values() if isinstance(module, Predictor)]
        weights = [module.last.weight.flatten() for module in predictors]
        alike = [F.cosine_similarity(a, b, dim=0).square() for a, b in pairwise(weights)]
        return torch.stack(alike).mean() if alike else torch.zeros(())

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        """Soft maps of the supervised layers, kept samples only [B', L, c] -> loss: layers count alike."""
        layers = []
        for values in maps.values():
            weights, errors = zip(*self.errors(values), strict=True)
            layers.append(sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights))
        return torch.stack(layers).mean() + (ORTHOGONAL if self.kind is Gate else DIVERSE) * self.regulariser()
