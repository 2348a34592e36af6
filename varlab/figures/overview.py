"""The four motivation figures of one run at a glance: the picture on top of the README."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from varlab.analysis.logs import Images, Log, images_of, prompt_count
from varlab.figures.branches import branch_divergence
from varlab.figures.redundancy import similarity
from varlab.figures.sheets import contact_sheet_table
from varlab.figures.spectra import high_frequency_share
from varlab.figures.style import PAGE, finish, theme
from varlab.figures.tokens import block_edge_correlation

STRIP = 16


@theme()
def overview(log: Log, images: Images = None) -> Figure:
    """A strip of final images, then one panel of each report; their tables are in the reports."""
    figure = plt.figure(figsize=(1.5 * PAGE, 5.6), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(0.34, 1, 1))
    shown = range(min(STRIP, prompt_count(log)))
    strip = figure.add_subplot(grid[0, :])
    strip.imshow(np.concatenate([np.asarray(images_of(log, images)[i]) for i in shown], axis=1))
    strip.axis("off")
    high_frequency_share(log, ax=figure.add_subplot(grid[1, 0]))
    block_edge_correlation(log, images, ax=figure.add_subplot(grid[1, 1]))
    branch_divergence(log, ax=figure.add_subplot(grid[2, 0]))
    similarity(log, ax=figure.add_subplot(grid[2, 1]))
    return finish(figure, log, "overview", contact_sheet_table(log, shown))
