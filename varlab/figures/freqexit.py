"""FreqExit: how its losses fall, and what an exit costs and saves."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from varlab.writing import beside

TERMS = {
    "main": "cross-entropy, last layer",
    "early": "cross-entropy, early exits",
    "distillation": "distillation",
    "frequency": "high-frequency consistency",
    "reconstruction": "self-reconstruction",
}


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
