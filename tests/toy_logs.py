"""What test_figures.py and test_figure_tables.py share."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from PIL import Image

matplotlib.use("agg")

from varlab.probes.base import GUIDANCE_ROWS
from varlab.probes.log import interval_names
from varlab.probes.residual_spectrum import BAND_EDGES, SOURCES, SPREADS

SUBLAYERS = ("block", "attention", "cross", "ffn")


SIDES = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24)


PIXELS = 32


def toy_images(n: int) -> list[Image.Image]:
    """A bright square on black, at a place of its own in each image."""
    pictures = []
    for i in range(n):
        pixels = np.zeros((PIXELS, PIXELS, 3), np.uint8)
        y, x = 2 + 7 * (i % 4), 2 + 7 * (i // 4 % 4)
        pixels[y : y + 6, x : x + 6] = 255
        pictures.append(Image.fromarray(pixels))
    return pictures


class Toy:
    """Draws variables around given means: one per stage, or what the dimensions ask for."""

    def __init__(self, n: int, seed: int, given: Mapping[str, Any]) -> None:
        self.n, self.random, self.given = n, np.random.default_rng(seed), given

    def make(self, name: str, dims: tuple[str, ...], sizes: tuple[int, ...], mean: Any, noise: float = 0.01) -> Any:
        mean = np.asarray(self.given.get(name, mean), float)
        mean = mean.reshape(mean.shape + (1,) * (len(sizes) - mean.ndim))
        values = np.broadcast_to(mean, sizes) + noise * self.random.standard_normal((self.n, *sizes))
        return (("prompt", *dims), values)


def toy_log(
    means: Mapping[str, Any] | None = None, *, n: int = 8, stages: int = 6, blocks: int = 4, seed: int = 0, **attrs: Any
) -> xr.DataTree:
    """A log with the probes' layout; ``means`` of ``group.variable`` and attributes in place of the usual ones."""
    toy, rise = Toy(n, seed, means or {}), np.linspace(0.2, 0.6, stages)
    at = {"prompt": np.arange(n), "stage": np.arange(1, stages + 1)}
    block = {**at, "block": np.arange(1, blocks + 1)}
    groups = {
        "residual-spectrum": _spectrum(toy, at, stages, rise),
        "token-mse": _tokens(toy, block, stages, blocks),
        "branch-divergence": _branches(toy, block, stages, blocks),
        "step-redundancy": _steps(toy, at, stages),
    }
    for k in range(1, stages + 1):
        place = {"prompt": at["prompt"]}
        energy = {
            "energy": toy.make("energy", ("y", "x"), (8, 8), 1.0),
            "energy_preview": toy.make("energy_preview", ("y_preview", "x_preview"), (16, 16), 1.0),
        }
        groups[f"residual-spectrum/stage-{k:02d}"] = xr.Dataset(energy, place)
        side = SIDES[k - 1]
        maps = toy.make("maps", ("block", "sublayer", "guidance_row", "y", "x"), (blocks, 4, 2, side, side), 1.0)
        at_block = {**place, "block": block["block"], "sublayer": list(SUBLAYERS), "guidance_row": list(GUIDANCE_ROWS)}
        groups[f"token-mse/stage-{k:02d}"] = xr.Dataset({"mse": maps}, at_block)
    tree = xr.DataTree.from_dict({f"/{name}": data for name, data in groups.items()})
    tree.attrs = {
        "model": "toy", "weights": "trained (toy, 123)", "precision": "fp32", "device": "cpu (toy)", "seed": 3,
        "prompt_set": "scenes", "n": n, "prompts": [f"scene {i}" for i in range(n)], "settings": {"cfg": 3.0},
        "schedule": [[side, side] for side in SIDES[:stages]], "key": "abc",
        "stage_seconds": [[1.0 * k for k in range(1, stages + 1)]] * 3,
    } | attrs  # fmt: skip
    return tree


def _spectrum(toy: Toy, at: dict[str, Any], stages: int, rise: np.ndarray) -> xr.Dataset:
    by_source = (stages, 5)
    return xr.Dataset(
        {
            "power": toy.make("residual-spectrum.power", ("stage", "source", "radius"), (stages, 5, 23), 1.0),
            "high_frequency_share": toy.make("residual-spectrum.hf", ("stage", "source"), by_source, rise),
            "centroid": toy.make("residual-spectrum.centroid", ("stage", "source"), by_source, 3 * rise),
            "detail_share": toy.make("residual-spectrum.detail", ("stage", "source"), by_source, rise),
            "explained_share": toy.make(
                "residual-spectrum.explained", ("stage", "frequency_band"), (stages, 5), np.linspace(0, 1, stages)
            ),
            "concentration": toy.make("residual-spectrum.concentration", ("stage", "spread"), (stages, 2), rise),
            "edge_correlation": toy.make("residual-spectrum.edges", ("stage", "spread"), (stages, 2), rise),
        },
        {
            **at,
            "source": list(SOURCES),
            "spread": list(SPREADS),
            "frequency_band": interval_names(BAND_EDGES),
            "radius": range(23),
        },
        {
            "nyquist": [side / 2 for side in SIDES[:stages]],
            "band_edges": [str(edge) for edge in BAND_EDGES],
            "preview": "full",
            "preview_pixels": [PIXELS, PIXELS],
        },
    )


def _tokens(toy: Toy, at: dict[str, Any], stages: int, blocks: int) -> xr.Dataset:
    dims, sizes = ("stage", "block", "sublayer", "guidance_row"), (stages, blocks, 4, 2)
    variables = {
        "relative_mse": toy.make("token-mse.relative", dims, sizes, 0.5),
        "edge_correlation": toy.make("token-mse.edges", dims, sizes, 0.0),
        "edge_correlation_rows": toy.make("token-mse.edges", dims[:-1], sizes[:-1], 0.0),
        "relative_step_mse": toy.make("token-mse.step", ("stage", "block"), (stages, blocks), 1.0),
    }
    data = xr.Dataset(variables, {**at, "sublayer": list(SUBLAYERS), "guidance_row": list(GUIDANCE_ROWS)})
    data["edge_correlation"][:, 0] = data["edge_correlation_rows"][:, 0] = np.nan  # one token has no rank
    data["relative_step_mse"][:, 0] = np.nan  # nor a stage before it
    return data


def _branches(toy: Toy, at: dict[str, Any], stages: int, blocks: int) -> xr.Dataset:
    fall, by_block = np.linspace(0.4, 0.1, stages), ("stage", "block")
    variables = {
        "relative_mse": toy.make("branch-divergence.hidden", by_block, (stages, blocks), fall),
        "cosine": toy.make("branch-divergence.cosine", by_block, (stages, blocks), 0.9),
    }
    for name, mean in (("kl", fall), ("flip_share", 0.1), ("guidance_changes", 0.2), ("drawn_differs", 0.3)):
        variables[name] = toy.make(f"branch-divergence.{name}", ("stage",), (stages,), mean)
    return xr.Dataset(variables, at)


def _steps(toy: Toy, at: dict[str, Any], stages: int) -> xr.Dataset:
    near = np.linspace(0.5, 0.9, stages)
    variables = {
        name: toy.make(f"step-redundancy.{name}", ("stage",), (stages,), mean)
        for name, mean in (
            ("ssim", near),
            ("high_frequency_ssim", near),
            ("psnr", 30 * near),
            ("energy_left", 1 - near),
        )
    }
    variables["flops"] = toy.make("step-redundancy.flops", ("stage",), (stages,), np.arange(1, stages + 1), noise=0)
    data = xr.Dataset(variables, at)
    data["ssim"][:, -1], data["psnr"][:, -1] = 1.0, np.inf
    return data
