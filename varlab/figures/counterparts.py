"""Which of our figures stands beside which figure or table of the papers, and why some have none."""

SPARSEVAR, SKIPVAR, FASTVAR, FREQEXIT = (
    "SparseVAR (arXiv 2507.20454)",
    "SkipVAR (arXiv 2506.08908)",
    "FastVAR (arXiv 2503.23367)",
    "FreqExit (NeurIPS 2025)",
)
MIRRORS = {
    "energy_maps": f"{SPARSEVAR}, observation 1: maps of the residuals by stage",
    "energy_on_edges": f"{SPARSEVAR}, observation 1: the paper shows maps and no number",
    "high_frequency_share": f"{FREQEXIT}, figure 2: detail appears in the later steps",
    "residual_spectrum": f"{FREQEXIT}, figure 2: spectra by step",
    "token_maps": f"{SPARSEVAR}, observation 2: maps of two blocks, one on edges and one on the background",
    "block_edge_correlation": f"{SPARSEVAR}, observation 2, for all blocks",
    "step_redundancy": f"{SKIPVAR}, figures of the cost and the gain of each step; {FASTVAR}, figure 2a",
    "guidance_effect": f"{SKIPVAR}: the unconditional branch matters little at the last steps",
    "keep_maps": f"{SPARSEVAR}, method figure: tokens kept and their anchors",
    "decisions": f"{SKIPVAR}, figure of its branches",
    "tradeoff_work": f"{SPARSEVAR}, {SKIPVAR} and {FASTVAR}, tables of speed and quality",
    "tradeoff_speed": f"{SPARSEVAR}, {SKIPVAR} and {FASTVAR}, tables of speed and quality",
    "side_by_side": "the visual panels of all four papers",
    "difference": "",
    "difference_spectrum": "",
}
WITHOUT = {  # figures and tables of the papers that no stored log can redraw
    f"{SPARSEVAR}: GenEval, DPG and preference tables": "need official weights and scorers: varlab generate and score",
    f"{SPARSEVAR}: tables of alpha and of P": "are tables: varlab compare MODEL sparsevar:alpha=...",
    f"{SPARSEVAR}: pictures after stages 11, 12 and 13": "stand in the viewer of a comparison (stages_of=)",
    f"{SKIPVAR}: sensitive and robust prompts": "need the paper's two sets of prompts, which are not published",
    f"{FREQEXIT}: table 1, FID by exit": "needs weights trained on ImageNet; 13_freqexit shows it for the mini",
    f"{FREQEXIT}: table 3, ablation": "needs training: notebook 13_freqexit reads its record",
    f"{FREQEXIT}: sample grid by exit": "exits are drawn within notebook 13_freqexit, which keeps no log of them",
}
