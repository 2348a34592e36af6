"""Residual spectra: which frequencies each stage adds, to the latent canvas and to the picture.

Radial FFT power and Haar bands per stage of the stage's own residual, of its contribution to the canvas, of
the canvas, of the decoded preview and of the preview's change.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from varlab.engine.stage import Stage
from varlab.measures.metrics import concentration, edge_energy, gini, spearman
from varlab.measures.spectra import explained_share, spectral_summary, wavelet_energy
from varlab.probes.base import PreviewProbe, last_of_each, pooled
from varlab.probes.log import Log, Variables, interval_names

SOURCES = ("residual", "contribution", "canvas", "preview", "preview change")
BANDS = ("LL", "LH", "HL", "HH")
SPREADS = ("contribution", "preview change")
BAND_EDGES = (0.0, 0.0625, 0.125, 0.25, 0.5, float("inf"))  # cycles per sample of the preview
FIGURES = (
    ("power", ("stage", "source", "radius"), "1"),
    ("high_frequency_share", ("stage", "source"), "1"),
    ("centroid", ("stage", "source"), "cycles/image"),
    ("wavelet", ("stage", "source", "band"), "1"),
    ("detail_share", ("stage", "source"), "1"),
)


Energies = list[Tensor | None]  # [n, stage, h, w] of each of ``SPREADS``


def spectrum(maps: Tensor) -> dict[str, Tensor]:
    """Maps [..., c, h, w] -> the five figures above, [...] each with its own last dimension."""
    power, high, centroid = spectral_summary(maps)
    bands = wavelet_energy(maps, channel_dim=-3)
    return {
        "power": power,
        "high_frequency_share": high,
        "centroid": centroid * max(maps.shape[-2:]),
        "wavelet": torch.stack(bands[:4], -1),
        "detail_share": bands.detail_share,
    }


def changes(stack: Tensor, start: float) -> Tensor:
    """[n, stage, ...] less what each image showed before: its last stage that ran, at first ``start``."""
    before, found = torch.full_like(stack[:, 0], start), []
    for now in stack.unbind(1):
        found.append(now - before)
        before = torch.where(now.isnan(), before, now)
    return torch.stack(found, 1)


class ResidualSpectrum(PreviewProbe):
    """Spectra per stage and source, energy maps, and how energy keeps to edges."""

    name = "residual-spectrum"

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        self.recorder.put(("residual", stage.index), stage.samples, codes)
        self.recorder.put(("contribution", stage.index), stage.samples, canvas - before)
        self.recorder.put(("canvas", stage.index), stage.samples, canvas)
        self.store_preview(stage, canvas)

    def log(self) -> Log:
        maps = {source: self._stack(source) for source in SOURCES[1:4]}
        change = maps["preview"]
        if change is not None:  # what stage 1 draws is measured against mid grey
            change = changes(change, 0.5)
        maps["preview change"] = change
        energies = [None if (stack := maps[source]) is None else stack.square().sum(2) for source in SPREADS]
        variables = self._spectra(maps) | self._explained(maps["preview"]) | self._spread(energies)
        nyquist = [max(grid) / 2 for grid in self.context.model.schedule.grids]
        facts = {"nyquist": nyquist, "band_edges": [str(edge) for edge in BAND_EDGES], **self.preview_facts()}
        names = {"source": SOURCES, "band": BANDS, "spread": SPREADS, "frequency_band": interval_names(BAND_EDGES)}
        return {self.name: self.group(variables, facts, **names), **self._energy_maps(energies)}

    def _stack(self, source: str) -> Tensor | None:
        """[n, stage, c, h, w] of a source whose grid does not change; NaN for a stage that did not run."""
        if source == "preview" and self.grid is None:
            return None
        found = [self.recorder.collect((source, k), self.samples) for k in self.stages]
        some = next((values for values in found if values is not None), None)
        if some is None:  # no stage ran at all
            like = self.context.model.new_canvas(len(self.samples))
            if self.grid is not None and source == "preview":
                like = self.context.model.decode(self.context.model.resize(like, self.grid))
            some = torch.full_like(like, torch.nan)
        return torch.stack([torch.full_like(some, torch.nan) if values is None else values for values in found], 1)

    def _spectra(self, maps: dict[str, Tensor | None]) -> Variables:
        parts: list[tuple[Any, Any, dict[str, Tensor]]] = []  # stages, sources, figures
        contribution, canvas = maps["contribution"], maps["canvas"]
        assert contribution is not None and canvas is not None
        parts.append((slice(None), slice(1, 3), spectrum(torch.stack([contribution, canvas], 2))))
        previews = [(slice(None), s, maps[SOURCES[s]]) for s in (3, 4)]
        own = [(k, 0, self.recorder.collect(("residual", k), self.samples)) for k in self.stages]
        parts += [(k, s, spectrum(values)) for k, s, values in (*previews, *own) if values is not None]
        variables: Variables = {}
        for name, dims, unit in FIGURES:
            tail = (max(figures[name].shape[-1] for _, _, figures in parts),) if len(dims) == 3 else ()
            table = np.full((len(self.samples), len(self.stages), len(SOURCES), *tail), np.nan, np.float32)
            for stages, sources, figures in parts:
                values = figures[name].cpu().numpy()
                place = table[:, stages, sources]
                (place[..., : values.shape[-1]] if tail else place)[:] = values
            variables[name] = (dims, table, unit)
        return variables

    def _explained(self, previews: Tensor | None) -> Variables:
        if previews is None:
            return {}
        last = last_of_each(previews.unbind(1))
        assert last is not None
        shares = explained_share(last[:, None], previews, BAND_EDGES, channel_dim=-3)
        return {"explained_share": (("stage", "frequency_band"), shares.cpu().numpy(), "1")}

    def _spread(self, energies: Energies) -> Variables:
        """Does a stage's energy keep to the edges of the final image?"""
        names = ("concentration", "edge_correlation", "gini")
        out = np.full((len(names), len(self.samples), len(self.stages), len(SPREADS)), np.nan, np.float32)
        for s, energy in enumerate(energies):
            if energy is None:
                continue
            edges = edge_energy(self.image, (energy.shape[-2], energy.shape[-1])).flatten(1)[:, None]
            energy = energy.flatten(2)
            figures = (concentration(energy, edges.expand_as(energy)), spearman(energy, edges), gini(energy))
            out[..., s] = torch.stack(figures).cpu().numpy()
        return {name: (("stage", "spread"), values, "1") for name, values in zip(names, out, strict=True)}

    def _energy_maps(self, energies: Energies) -> Log:
        variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for energy, suffix in zip(energies, ("", "_preview"), strict=True):
            if energy is not None:
                small = pooled(energy.flatten(2), (energy.shape[-2], energy.shape[-1])).cpu().numpy()
                variables["energy" + suffix] = ((f"y{suffix}", f"x{suffix}"), small)
        return {
            f"{self.name}/stage-{k + 1:02d}": self.group(
                {name: (dims, values[:, k], "1") for name, (dims, values) in variables.items()}
            )
            for k in self.stages
            if ("canvas", k) in self.recorder.parts
        }
