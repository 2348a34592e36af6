"""Grids of settings drawn on the same prompts and kept as small tables: ablations and the evidence for verdicts."""
