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
    "control_random_weights": f"{FREQEXIT}, figure 2, and {SPARSEVAR}, observation 1: with no such control",
    "token_maps": f"{SPARSEVAR}, observation 2: one block on edges and one on the background, as measured here",
    "token_maps_poster": f"{SPARSEVAR}, observation 2: the blocks at the depth of the poster's two, side by side",
    "block_edge_correlation": f"{SPARSEVAR}, observation 2, for all blocks",
    "step_redundancy": f"{SKIPVAR}, figures of the cost and the gain of each step; {FASTVAR}, figure 2a",
    "guidance_effect": f"{SKIPVAR}: the unconditional branch matters little at the last steps",
    "keep_maps": f"{SPARSEVAR}, method figure: tokens kept and their anchors",
    "decisions": f"{SKIPVAR}, figure of its branches",
    "sensitive_prompts": f"{SKIPVAR}: sensitive and robust prompts, chosen by the images' own SSIM",
    "stage_pictures": f"{SPARSEVAR}, pictures after stages 11, 12 and 13 with their latency",
    "tradeoff_work": f"{SPARSEVAR}, {SKIPVAR} and {FASTVAR}, tables of speed and quality",
    "tradeoff_speed": f"{SPARSEVAR}, its sweep of tau, {SKIPVAR} and {FASTVAR}, tables of speed and quality",
    "side_by_side": "the visual panels of all four papers",
    "claim": "a claim of a paper, judged on what was measured here",
    "sparsevar_tau": f"{SPARSEVAR}: sweep of tau from .4 to .7 (SSIM, scene score, work)",
    "sparsevar_alpha": f"{SPARSEVAR}: table of alpha",
    "sparsevar_last": f"{SPARSEVAR}: table of P, the first pruned stage",
    "exits_depth": f"{FREQEXIT}: table 1, quality by exit",
    "exit_distance": f"{FREQEXIT}: table 1, quality by exit",
    "samples_by_exit": f"{FREQEXIT}: sample grid by exit",
    "recipes": f"{FREQEXIT}: table 3, ablation of its losses",
    "difference": "",
    "difference_spectrum": "",
}
IN_REPORTS = {  # drawn by a report from what it measures or from shipped tables, and kept beside its page
    f"{SPARSEVAR}: sweep of tau from .4 to .7": "30_ablations, tau and matched tau (SSIM, scene score, work); measured "
    "latency of the shares kept: 10_sparsevar, tradeoff",
    f"{SPARSEVAR}: tables of alpha and of P": "30_ablations, alpha, tau_alpha, last and "
    "stages_blocks; 41_poster_tables row for row",
    f"{SKIPVAR}: strategies on sensitive and robust prompts": "30_ablations, table of strategies by halves",
    f"{FREQEXIT}: table 1, quality by exit": "13_freqexit, tradeoff; 30_ablations, depth",
    f"{FREQEXIT}: table 3, ablation of its losses": "13_freqexit, ablation, the LayerSkip-like row at half the blocks",
}
WITHOUT = {  # figures and tables of the papers that nothing here redraws
    f"{SPARSEVAR}: GenEval, DPG and preference tables": "need official weights and scorers: varlab generate and score",
    f"{FREQEXIT}: table 1, FID by exit on ImageNet": "needs weights trained on ImageNet",
    f"{FREQEXIT}: LayerSkip at every exit": "the weights of that recipe are not kept: its shipped row is that at half "
    "the blocks; varlab ablate measures others",
}
