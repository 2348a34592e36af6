"""Residual spectra: which frequencies each stage adds, to the latent canvas and to the picture.

Definitions: radial FFT power and Haar bands per stage of the stage's own residual, of its contribution to the
canvas, of the canvas, of the decoded preview and of the preview's change.
"""

import numpy as np
import torch
from torch import Tensor

from varlab.engine.stage import Stage
from varlab.metrics import concentration, edge_energy, gini, spearman
from varlab.probes.base import Log, PreviewProbe, pooled
from varlab.spectra import explained_share, high_frequency_share, radial_power, spectral_centroid, wavelet_energy

SOURCES = ("residual", "contribution", "canvas", "preview", "preview change")
BANDS = ("LL", "LH", "HL", "HH")
SPREADS = ("contribution", "preview change")
BAND_EDGES = (0.0, 0.0625, 0.125, 0.25, 0.5, float("inf"))  # cycles per sample of the preview


def spectrum(maps: Tensor) -> dict[str, Tensor]:
    """maps [n, c, h, w] -> radial power [n, rings], high-frequency share, centroid, wavelet bands [n, 4], detail share."""
    power, _ = radial_power(maps)
    bands = wavelet_energy(maps, channel_dim=-3)
    cycles = max(maps.shape[-2:])
    return {
        "power": power.mean(1),
        "high_frequency_share": high_frequency_share(maps, channel_dim=-3),
        "centroid": spectral_centroid(maps, channel_dim=-3) * cycles,
        "wavelet": torch.stack(bands[:4], -1),
        "detail_share": bands.detail_share,
    }


class ResidualSpectrum(PreviewProbe):
    """Spectra per stage and source, energy maps, and how energy keeps to edges."""

    name = "residual-spectrum"

    def on_residual(self, stage: Stage, codes: Tensor, before: Tensor, canvas: Tensor) -> None:
        k = stage.index
        self.kept.put(("residual", k), stage.samples, codes)
        self.kept.put(("contribution", k), stage.samples, canvas - before)
        self.kept.put(("canvas", k), stage.samples, canvas)
        self.keep_preview(stage, canvas)

    def _maps(self, source: str, k: int) -> Tensor | None:
        """[n, c, h, w] of a source after stage k."""
        if source != "preview change":
            return self.kept.collect((source, k), self.samples)
        now = self.kept.collect(("preview", k), self.samples)
        if now is None:
            return None
        before = self.kept.collect(("preview", k - 1), self.samples) if k else None
        return now - (0.5 if before is None else before)

    def log(self) -> Log:
        spectra = {
            (source, k): spectrum(maps)
            for source in SOURCES
            for k in self.stages
            if (maps := self._maps(source, k)) is not None
        }
        variables = {name: (dims, self._table(spectra, name), unit) for name, dims, unit in _FIGURES}
        variables |= self._explained() | self._spread()
        main = self.dataset(variables, source=SOURCES, band=BANDS, spread=SPREADS)
        if "frequency_band" in main:
            main["frequency_band"].attrs["edges"] = [str(edge) for edge in BAND_EDGES]
        main.attrs |= {"nyquist": [max(g) / 2 for g in self.run.model.schedule.grids], **self.preview_facts()}
        return {self.name: main, **self._energy_maps()}

    def _table(self, spectra: dict[tuple[str, int], dict[str, Tensor]], name: str) -> np.ndarray:
        """[n, stage, source, ...], NaN where a stage has no such value."""
        found = {key: values[name].cpu().numpy() for key, values in spectra.items()}
        tail = np.max([values.shape[1:] for values in found.values()], axis=0).astype(int)
        out = np.full((len(self.samples), len(self.stages), len(SOURCES), *tail), np.nan, np.float32)
        for (source, k), values in found.items():
            out[(slice(None), k, SOURCES.index(source), *(slice(size) for size in values.shape[1:]))] = values
        return out

    def _explained(self) -> dict[str, tuple[tuple[str, ...], np.ndarray, str]]:
        previews = self.previews()
        final = next((p for p in reversed(previews) if p is not None), None)
        if final is None:
            return {}
        missing = torch.full((len(self.samples), len(BAND_EDGES) - 1), torch.nan)
        shares = [
            missing if p is None else explained_share(final, p, BAND_EDGES, channel_dim=-3).cpu() for p in previews
        ]
        return {"explained_share": (("stage", "frequency_band"), torch.stack(shares, 1).numpy(), "1")}

    def _energy(self, source: str, k: int) -> Tensor | None:
        """Energy of a source summed over channels [n, h, w]."""
        maps = self._maps(source, k)
        return None if maps is None else maps.square().sum(1)

    def _spread(self) -> dict[str, tuple[tuple[str, ...], np.ndarray, str]]:
        names = ("concentration", "edge_correlation", "gini")
        out = np.full((len(names), len(self.samples), len(self.stages), len(SPREADS)), np.nan, np.float32)
        for s, source in enumerate(SPREADS):
            for k in self.stages:
                energy = self._energy(source, k)
                if energy is None:
                    continue
                edges = edge_energy(self.image, (energy.shape[-2], energy.shape[-1])).flatten(1)
                energy = energy.flatten(1)
                figures = (concentration(energy, edges), spearman(energy, edges), gini(energy))
                out[:, :, k, s] = torch.stack(figures).cpu().numpy()
        return {name: (("stage", "spread"), values, "1") for name, values in zip(names, out, strict=True)}

    def _energy_maps(self) -> Log:
        groups = {}
        for k in self.stages:
            variables = {}
            for source in SPREADS:
                energy = self._energy(source, k)
                if energy is not None:
                    small = pooled(energy.flatten(1), (energy.shape[-2], energy.shape[-1])).cpu().numpy()
                    suffix = "" if source == "contribution" else "_preview"
                    variables["energy" + suffix] = ((f"y{suffix}", f"x{suffix}"), small, "1")
            if variables:
                groups[f"{self.name}/stage-{k + 1:02d}"] = self.dataset(variables)
        return groups


_FIGURES = (
    ("power", ("stage", "source", "radius"), "1"),
    ("high_frequency_share", ("stage", "source"), "1"),
    ("centroid", ("stage", "source"), "cycles/image"),
    ("wavelet", ("stage", "source", "band"), "1"),
    ("detail_share", ("stage", "source"), "1"),
)
