"""The card of a shipped mini, written from its own records: nothing in it is typed by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Template
from PIL import Image

from varlab.evaluation.residual import Side, codes_alone, side
from varlab.evaluation.scenes import SceneScore, lead, score_ceiling, score_samples
from varlab.figures.training import training_curves
from varlab.models.base import NextScaleModel
from varlab.models.hart_model import Hart
from varlab.outputs import CARD, in_picture, read_facts, save_image, save_json
from varlab.runs import Progress
from varlab.runs.origins import made_with
from varlab.scenes import shape_recall
from varlab.weights.embedded import card_folder
from varlab.weights.zoo import load
from varlab.writing import beside, write_text

FILES = (CARD, "samples.png", "curves.png", "README.md")
COLUMNS = ("ground truth", "reconstructions", "samples")
SHOWN = 48  # pictures on the contact sheet


def write_card(
    model: NextScaleModel, progress: Progress | None = None, n: int = 553, per_prompt: int = 4, seed: int = 0
) -> Path:
    """Score the model and write ``README.md``, ``card.json``, contact sheet and curves beside its weights.

    Its untrained self draws one image an entry, so this takes ``per_prompt`` + 1 images an entry, and for a HART,
    which is also sampled without its residual, ``per_prompt`` more.
    """
    folder = card_folder(model.name)
    ceiling = score_ceiling(model, n)
    every = per_prompt * max(1, n // SHOWN)
    drawn, power, pictures = score_samples(model, n, per_prompt, seed, progress=progress, every=every)
    plain = codes_alone(model, n, per_prompt, seed, progress) if isinstance(model, Hart) else None
    random = untrained_self(model)
    unlearnt, _, _ = score_samples(random, n, 1, seed, progress=progress, every=n)
    record = {
        **made_with(model),
        "n_prompts": n,
        "images_per_prompt": per_prompt,
        "seed": seed,
        "reconstruction_psnr": round(ceiling.psnr, 2),
        "detail_kept": round(ceiling.detail_kept, 4),
        "scores": {
            name: _plain(part.summary)
            for name, part in zip(COLUMNS, (ceiling.truth, ceiling.rebuilt, drawn), strict=True)
        },
        "untrained": {
            "weights": random.weights,
            "images_per_prompt": 1,
            "score": _plain(unlearnt.summary)["overall"],
            "lead": _plain(lead(drawn.entries, unlearnt.entries))["overall"],
        },
        "shapes_present": _means(drawn, "shape_correct"),
        "exact_number": _means(drawn, "exact_count"),
        "shape_recall": {
            name: _plain(shape_recall(part.images))
            for name, part in zip(COLUMNS, (ceiling.truth, ceiling.rebuilt, drawn), strict=True)
        },
    }
    if plain is not None:
        record["residual"] = _residual(side(ceiling, drawn, power), plain)
    facts = json.loads((folder / "model.json").read_text("utf-8"))
    return save(folder, record, pictures[:SHOWN], _text(model, facts, record))


def untrained_self(model: NextScaleModel, seed: int = 0) -> NextScaleModel:
    """A mini of the registry with random weights in transformer and caption encoder, and its trained tokenizer.

    So the score does not fall because the pictures cannot be decoded. The model given stays as it is.
    """
    other = load(model.name, "random", device=str(model.device), precision=model.precision, seed=seed)
    other.tokenizer = model.tokenizer  # type: ignore[attr-defined]
    other.settings, other.weights = model.settings, f"random (seed {seed}), trained tokenizer"
    return other


def save(folder: Path, record: dict[str, Any], pictures: list[np.ndarray], text: str) -> Path:
    """A card's files, each whole, the pictures with their facts; returns the last of them, the page."""
    save_json(folder / CARD, record)
    about = read_facts(folder / CARD)
    save_image(folder / "samples.png", sheet(pictures), about, overwrite=True)
    logs = {path.stem: pd.read_csv(path) for path in sorted((folder / "training").glob("*.csv"))}
    with beside(folder / "curves.png") as part:
        training_curves(logs).savefig(part, dpi=110, metadata=in_picture(about))
    write_text(page := folder / "README.md", text)
    return page


def _residual(whole: Side, plain: Side) -> dict[str, Any]:
    """Both ways to decode beside each other, and the paired lead of the one with the residual."""
    sides = {"codes and residual": whole, "codes alone": plain}
    ahead = lead(whole.samples.score.entries, plain.samples.score.entries)
    return {
        "sides": {
            name: {
                "psnr": round(part.ceiling.psnr, 2),
                "detail_kept": round(part.ceiling.detail_kept, 4),
                "reconstructions": _plain(part.ceiling.rebuilt.summary)["overall"],
                "samples_detail": round(part.samples.detail, 4),
                "samples": _plain(part.samples.score.summary)["overall"],
            }
            for name, part in sides.items()
        },
        "lead": _plain(ahead)["overall"],
    }


def _plain(summary: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(name): {k: round(float(v), 4) for k, v in row.items()} for name, row in summary.iterrows()}


def _means(score: SceneScore, column: str) -> dict[str, float]:
    """Mean of a flag by category."""
    means = score.images.groupby("category", sort=False)[column].mean()
    return {str(name): round(float(value), 4) for name, value in means.items()}


def sheet(pictures: list[np.ndarray], columns: int = 12) -> Image.Image:
    """Pictures in rows, left to right; small ones enlarged to 64 pixels by repeating theirs."""
    times = max(1, 64 // pictures[0].shape[0])
    pictures = [picture.repeat(times, 0).repeat(times, 1) for picture in pictures]
    side = pictures[0].shape[0]
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        canvas[y * side : (y + 1) * side, x * side : (x + 1) * side] = picture
    return Image.fromarray(canvas)


def _codes(tokenizer: dict[str, Any]) -> str:
    """What a latent may be: so many bits, or one entry of a codebook."""
    if "bits" in tokenizer:
        return f"{tokenizer['bits']} bits"
    entries, channels = ("codes", "width") if "codes" in tokenizer else ("vocabulary", "latents")
    return f"one of {tokenizer[entries]} codes of {tokenizer[channels]} channels"


def _interval(row: dict[str, float]) -> str:
    if np.isnan(row["low"]):  # of one entry
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _text(model: NextScaleModel, facts: dict[str, Any], card: dict[str, Any]) -> str:
    template = Template(Path(__file__).with_name("card.md.jinja").read_text())
    return template.render(
        model=model,
        facts=facts,
        card=card,
        codes=_codes(facts["tokenizer"]),
        columns=COLUMNS,
        interval=_interval,
        step=max(1, card["n_prompts"] // SHOWN),
        grids=", ".join(f"{height}x{width}" for height, width in model.schedule.grids),
    )
