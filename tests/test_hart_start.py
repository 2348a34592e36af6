"""A hybrid tokenizer that starts from the convolutions of a BSQ tokenizer."""

from dataclasses import replace

import pytest
import torch

from varlab.errors import VarlabError
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.hybrid import HybridConfig, HybridTokenizer
from varlab.training.hart_start import fit_codes, principal, start_from_bits

GRIDS = ((1, 1), (2, 2), (4, 4))
BITS = BSQConfig(bits=6, stride=4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4)
CODES = HybridConfig(16, 6, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4)


def images(n: int = 12) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def source() -> BSQTokenizer:
    torch.manual_seed(1)
    return BSQTokenizer(BITS).eval()


def started(config: HybridConfig = CODES) -> HybridTokenizer:
    tokenizer = HybridTokenizer(config).eval()
    start_from_bits(tokenizer, source(), images(), GRIDS, seed=0)
    return tokenizer


@torch.no_grad()
def test_with_all_axes_it_encodes_and_decodes_as_its_source() -> None:
    """The latents are turned and scaled, so distances to the mean agree; away from the borders the pixels do too."""
    tokenizer, origin, shown = started(), source(), images()
    latent, bits = tokenizer.encode(shown), origin.encoder(shown)
    assert latent.square().mean().item() == pytest.approx(1, abs=1e-2)
    centred = bits - bits.mean((0, 2, 3), keepdim=True)
    ratio = latent.square().sum(1) / centred.square().sum(1)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    into, out = tokenizer.decoder.conv_in(latent), origin.decoder.conv_in(bits)
    torch.testing.assert_close(into[inner], out[inner], rtol=1e-3, atol=1e-4)


def test_the_axes_are_those_of_most_variance() -> None:
    rows = (
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 5.0, 2.0])[:, None, None]
    )
    axes, _, scale = principal(rows, 2)
    assert axes.abs().argmax(1).tolist() == [1, 2]
    assert (scale * axes @ rows.movedim(1, -1).flatten(0, 2).mT).square().mean().item() == pytest.approx(1, abs=0.1)


def test_the_codes_fit_better_than_those_drawn_and_are_the_same_again() -> None:
    tokenizer, again = started(), started()
    latent = tokenizer.encode(images()).detach()

    def left() -> float:
        *_, last = tokenizer.steps(latent, GRIDS, last_phi=False)
        return (latent - last.canvas).square().mean().item()

    assert all(
        torch.equal(a, b) for a, b in zip(tokenizer.state_dict().values(), again.state_dict().values(), strict=True)
    )
    fitted = left()
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.copy_(latent.movedim(1, -1).flatten(0, 2)[:16])
        assert fitted < left()
        fit_codes(tokenizer, latent, GRIDS, torch.Generator().manual_seed(5))
    assert left() < 1.2 * fitted


def test_nearest_is_the_least_distance() -> None:
    tokenizer = HybridTokenizer(CODES)
    tokens = torch.randn(3, 300, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tokenizer.quantize.nearest(tokens), tokenizer.quantize.distances(tokens).argmin(-1))


def test_another_network_is_refused() -> None:
    with pytest.raises(VarlabError, match="do not fit"):
        started(replace(CODES, channels=16))
