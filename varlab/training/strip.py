"""Samples of four fixed prompts at every checkpoint, one row each: ``samples.png`` of a run's folder."""

from pathlib import Path

import numpy as np
from PIL import Image

from varlab.runs import sample
from varlab.training.pipeline import load_average, trained_tokenizer
from varlab.training.recipe import Recipe
from varlab.weights.embedded import save_mini
from varlab.weights.options import LoadOptions
from varlab.weights.registry import mini
from varlab.weights.zoo import assemble

PROMPTS = (
    "a red star",
    "three green circles",
    "a blue ring above a yellow square",
    "a striped purple triangle and a dotted cyan cross",
)


def prompts_of(recipe: Recipe) -> tuple[str, ...]:
    """Four captions, or four of the classes, evenly spaced."""
    if not recipe.classes:
        return PROMPTS
    return tuple(recipe.classes[i * len(recipe.classes) // len(PROMPTS)] for i in range(len(PROMPTS)))


def add_row(recipe: Recipe, run: Path, step: int) -> None:
    """Draw with the average of the last checkpoint, seed 0, and put the row of this step under those before it.

    The mini that draws is left in ``run / "latest"``, where it can be sampled while the training goes on.
    """
    trained = recipe.new_transformer()
    load_average(trained, run / "transformer")
    parts, latest = recipe.parts(trained_tokenizer(recipe, run), trained), run / "latest"
    latest.mkdir(exist_ok=True)
    save_mini(latest, parts, recipe.schedule, recipe.settings, {"transformer_steps": step}, recipe.classes)
    images = sample(assemble(mini(recipe.name, latest), LoadOptions()), prompts_of(recipe), seed=0).images
    rows = run / "samples"
    rows.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate([np.asarray(image) for image in images], 1)).save(rows / f"{step:07d}.png")
    strip = [np.asarray(Image.open(path)) for path in sorted(rows.glob("*.png"))]
    Image.fromarray(np.concatenate(strip)).save(run / "samples.png")
