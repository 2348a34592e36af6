"""FreqExit's training objective: what the released code computes and what the paper says, each difference a switch."""

from varlab.training.freqexit.losses import CORRECTED, OFFICIAL, RECIPES, LossConfig, Objective

__all__ = ["CORRECTED", "OFFICIAL", "RECIPES", "LossConfig", "Objective"]
