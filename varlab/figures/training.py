"""How a mini learnt: its logs as curves."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

CURVES = {
    "tokenizer": ("psnr", "PSNR of a batch, codes corrupted (dB)"),
    "transformer": ("loss", "cross-entropy (nats)"),
    "freqexit": ("loss", "weighted sum of FreqExit's losses"),
}


def training_curves(logs: Mapping[str, pd.DataFrame], window: int = 20) -> Figure:
    """One panel a part: raw batches and their running median over ``window`` log lines, against hours."""
    figure, axes = plt.subplots(1, len(logs), figsize=(4.5 * len(logs), 3), layout="constrained", squeeze=False)
    for ax, (part, log) in zip(axes[0], logs.items(), strict=True):
        column, label = CURVES[part]
        hours = log["seconds"] / 3600
        ax.plot(hours, log[column], color="0.8", lw=0.8)
        ax.plot(hours, log[column].rolling(window, min_periods=1).median(), color="C0", lw=1.5)
        ax.set(title=part, xlabel="hours", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    return figure
