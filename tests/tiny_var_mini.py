"""A VAR mini trained for a few updates, small enough for tests of what is built on one."""

from dataclasses import replace
from pathlib import Path

from varlab.models.tokenizers.vqvae import VQConfig
from varlab.models.var import VARConfig
from varlab.schedules import square
from varlab.training.export import export
from varlab.training.loop import LoopConfig
from varlab.training.pipeline import train
from varlab.training.recipe import CorrectionConfig
from varlab.training.recipes import MINI_VAR

SIDES = (1, 1, 2, 2, 3, 3, 4, 5, 8, 8)  # ten stages, as the official recipe insists, and few tokens
LOOP = LoopConfig(steps=4, learning_rate=1e-3, warmup=2, checkpoint_seconds=0, log_every=1, seed=3)
TINY_VAR = replace(
    MINI_VAR,
    name="tiny-var",
    image_size=32,
    pool=60,
    schedule=square(SIDES, "tiny"),
    tokenizer=VQConfig(codes=32, width=4, channels=8, multipliers=(1, 1, 2), blocks=1, norm_groups=4),
    transformer=VARConfig(4, 32, 2, classes=48, codes=32, code_width=4, sides=SIDES, shared_modulation=True),
    tokenizer_batch=4,
    tokenizer_loop=LOOP,
    correction=CorrectionConfig(batch=4, swap=0.2, largest=6, whole_from=2),
    loop=LOOP,
    workers=1,
)


def train_tiny_var(run: Path, data: Path) -> str:
    """Train and export to ``data / tiny-var``; the hash of the weights."""
    assert train(TINY_VAR, run)
    return export(TINY_VAR, run, data / "tiny-var")
