"""Figures of a log: each function takes a log (or its folder) and answers one question.

``vl.figures.high_frequency_share(log)`` draws and returns matplotlib Axes; ``high_frequency_share_table(log)``
gives the numbers it draws, means over prompts with 95 % bootstrap intervals and n. Maps return a Figure. Under
every figure stands on which model, weights and prompts it rests. ``save`` writes PDF, PNG and CSV.

>>> log = vl.log("nano-infinity", "scenes", n=8)
>>> vl.figures.save(vl.figures.high_frequency_share(log), "share", folder="figures")
"""

from varlab.analysis.comparisons import log_of
from varlab.analysis.decisions import accuracy_table, kept_share_table
from varlab.analysis.pictures import difference_spectrum_table
from varlab.analysis.redundancy import (
    energy_left_table,
    saturation_table,
    similarity_table,
    stage_cost_table,
    step_redundancy_table,
)
from varlab.analysis.spectra import (
    explained_share_table,
    high_frequency_share_table,
    residual_spectrum_table,
    spectral_centroid_table,
    wavelet_share_table,
)
from varlab.analysis.tokens import (
    block_edge_correlation_table,
    block_token_mse_table,
    poster_blocks,
    step_change_table,
    sublayer_split_table,
)
from varlab.figures.ablations import ablation, anchors, scoring_blocks
from varlab.figures.branches import (
    branch_divergence,
    branch_divergence_table,
    guidance_effect,
    guidance_effect_table,
    prediction_divergence,
    prediction_divergence_table,
)
from varlab.figures.calibration import block_edges, readings
from varlab.figures.decisions import decisions, decisions_table, keep_maps, keep_maps_table
from varlab.figures.explore import explore
from varlab.figures.forest import claim_figures, forest, forest_table
from varlab.figures.maps import energy_maps, energy_maps_table, token_maps, token_maps_table
from varlab.figures.overview import overview
from varlab.figures.redraw import redraw
from varlab.figures.redundancy import energy_left, psnr, saturation, similarity, stage_cost, step_redundancy
from varlab.figures.save import save
from varlab.figures.sheets import contact_sheet, contact_sheet_table
from varlab.figures.sidebyside import difference_spectrum, side_by_side
from varlab.figures.spectra import (
    explained_share,
    high_frequency_share,
    residual_spectrum,
    spectral_centroid,
    wavelet_share,
)
from varlab.figures.spread import concentration, concentration_table, edge_correlation, edge_correlation_table
from varlab.figures.stages import sensitive_prompts, stage_pictures
from varlab.figures.style import one_legend, panels, retitle
from varlab.figures.tokens import block_edge_correlation, block_token_mse, step_change, sublayer_split
from varlab.figures.tradeoff import tradeoff
from varlab.figures.untrained import control_random_weights, control_table

__all__ = [
    "ablation", "accuracy_table", "anchors", "block_edge_correlation", "block_edge_correlation_table",
    "block_edges", "block_token_mse", "block_token_mse_table", "branch_divergence", "branch_divergence_table",
    "claim_figures",
    "concentration", "concentration_table", "contact_sheet", "contact_sheet_table", "control_random_weights",
    "control_table", "decisions", "decisions_table",
    "difference_spectrum", "difference_spectrum_table", "edge_correlation", "edge_correlation_table", "energy_left",
    "energy_left_table", "energy_maps", "energy_maps_table", "explained_share", "explained_share_table", "explore",
    "forest", "forest_table", "guidance_effect", "guidance_effect_table", "high_frequency_share",
    "high_frequency_share_table", "keep_maps", "keep_maps_table", "kept_share_table", "log_of", "one_legend",
    "overview", "panels", "poster_blocks", "prediction_divergence", "prediction_divergence_table", "psnr", "readings",
    "redraw", "residual_spectrum", "residual_spectrum_table", "retitle", "saturation", "saturation_table", "save",
    "scoring_blocks", "sensitive_prompts", "side_by_side", "similarity", "similarity_table", "spectral_centroid",
    "spectral_centroid_table", "stage_cost", "stage_cost_table", "stage_pictures", "step_change", "step_change_table",
    "step_redundancy", "step_redundancy_table", "sublayer_split", "sublayer_split_table", "token_maps",
    "token_maps_table", "tradeoff", "wavelet_share", "wavelet_share_table",
]  # fmt: skip
