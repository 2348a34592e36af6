"""How a mini learnt, and how FreqExit's losses fall: logs as curves."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from varlab.writing import beside

CURVES = {
    "tokenizer": ("psnr", "PSNR of a batch, codes corrupted (dB)"),
    "transformer": ("loss", "cross-entropy (nats)"),
    "freqexit": ("loss", "weighted sum of FreqExit's losses"),
}
TERMS = {  # of FreqExit
    "main": "cross-entropy, last layer",
    "early": "cross-entropy, early exits",
    "distillation": "distillation",
    "frequency": "high-frequency consistency",
    "reconstruction": "self-reconstruction",
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


def training_progress(log: pd.DataFrame, steps: int) -> Figure:
    """One panel a term of ``log.csv`` that is on, against the update."""
    shown = [name for name in ("loss", *TERMS) if log[name].notna().any() and (log[name] != 0).any()]
    figure, axes = plt.subplots(1, len(shown), figsize=(2.6 * len(shown), 2.4), layout="constrained", squeeze=False)
    for ax, name in zip(axes[0], shown, strict=True):
        ax.plot(log["step"], log[name], color="C0", lw=1.2)
        ax.set(title=TERMS.get(name, "weighted sum"), xlabel="update", xlim=(0, steps))
        ax.title.set_fontsize(9)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def write(figure: Figure, path: Path) -> None:
    """Replace a PNG at once, so that a viewer never sees half of it."""
    with beside(path) as part:
        figure.savefig(part, dpi=100)
    plt.close(figure)
