"""The card of a shipped mini, written from its own records: nothing in it is typed by hand."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from varlab.errors import VarlabError
from varlab.evaluation.scenes import SceneScore, score_ceiling, score_samples
from varlab.models.embedded import data_folder
from varlab.models.infinity_model import Infinity
from varlab.runs import device_name

Progress = Callable[[int, int], None]
COLUMNS = ("ground truth", "reconstructions", "samples")


def write_card(
    model: Infinity, progress: Progress | None = None, n: int = 553, per_prompt: int = 4, seed: int = 0
) -> Path:
    """Score the model, draw its contact sheet and curves, and write ``card.json`` and ``README.md`` beside its weights."""
    folder = data_folder() / model.name
    if not (folder / "model.json").exists():
        raise VarlabError(f"{model.name} is not a shipped mini: {folder / 'model.json'} is missing.")
    truth, rebuilt, psnr = score_ceiling(model, n)
    drawn, pictures, chosen = score_samples(model, n, per_prompt, seed, progress=progress)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(model.device),
        "weights": model.weights,
        "n_prompts": n,
        "images_per_prompt": per_prompt,
        "seed": seed,
        "settings": {
            "cfg": model.settings.cfg,
            "tau": model.settings.tau,
            "top_k": model.settings.top_k,
            "top_p": model.settings.top_p,
        },
        "precision": model.precision,
        "reconstruction_psnr": round(psnr, 2),
        "scores": {name: _plain(s.summary) for name, s in zip(COLUMNS, (truth, rebuilt, drawn), strict=True)},
        "shape_recall": _recall(drawn, "shape_correct"),
        "exact_number": _recall(drawn, "exact_count"),
    }
    (folder / "card.json").write_text(json.dumps(record, indent=1))
    sheet(pictures[:: per_prompt * max(1, n // 48)][:48]).save(folder / "samples.png", optimize=True)
    from varlab.figures.training import training_curves

    logs = {part: pd.read_csv(folder / "training" / f"{part}.csv") for part in ("tokenizer", "transformer")}
    training_curves(logs).savefig(folder / "curves.png", dpi=110)
    facts = json.loads((folder / "model.json").read_text())
    (folder / "README.md").write_text(_text(model, facts, record, list(chosen)))
    return folder / "README.md"


def _plain(summary: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(name): {k: round(float(v), 4) for k, v in row.items()} for name, row in summary.iterrows()}


def _recall(score: SceneScore, column: str) -> dict[str, float]:
    """Mean of a flag by category."""
    means = score.images.groupby("category", sort=False)[column].mean()
    return {str(name): round(float(value), 4) for name, value in means.items()}


def sheet(pictures: list[np.ndarray], columns: int = 12) -> Image.Image:
    """Pictures in rows, left to right."""
    side = pictures[0].shape[0]
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        canvas[y * side : (y + 1) * side, x * side : (x + 1) * side] = picture
    return Image.fromarray(canvas)


def _interval(row: dict[str, float]) -> str:
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _text(model: Infinity, facts: dict[str, Any], record: dict[str, Any], texts: list[str]) -> str:
    scores, training = record["scores"], facts
    lines = [f"| category | {' | '.join(COLUMNS)} | n prompts |", "|---|---|---|---|---|"]
    for category in scores["samples"]:
        cells = [_interval(scores[name][category]) for name in COLUMNS]
        lines.append(f"| {category} | {' | '.join(cells)} | {int(scores['samples'][category]['prompts'])} |")
    grids = ", ".join(f"{h}x{w}" for h, w in model.schedule.grids)
    step = max(1, len(texts) // 48)
    settings = record["settings"]
    return f"""# {model.name}

A small Infinity-architecture model, trained by varlab on procedural scenes. Written by `varlab card {model.name}`
on {record["date"]} from the run's own records; weights: {record["weights"]}.

![samples](samples.png)

First of {record["images_per_prompt"]} samples of every {step}th benchmark prompt, seed {record["seed"]}; not selected.

## Scene score

Share of images that the classical scorer judges right, mean and 95 % bootstrap interval over prompts;
overall is the plain mean of the categories. {record["n_prompts"]} prompts, {record["images_per_prompt"]} images each,
seed {record["seed"]}, guidance {settings["cfg"]}, temperature {settings["tau"]}, top-k {settings["top_k"]}, top-p {settings["top_p"]},
{record["precision"]}, {record["device"]}.
Ground truth and reconstructions (the tokenizer alone, {record["reconstruction_psnr"]} dB) are {record["n_prompts"]} held-out scenes: the ceiling.

{chr(10).join(lines)}

| of the samples | {" | ".join(record["shape_recall"])} |
|---|{"---|" * len(record["shape_recall"])}
| all asked shapes present | {" | ".join(f"{v:.3f}" for v in record["shape_recall"].values())} |
| exact number of objects | {" | ".join(f"{v:.3f}" for v in record["exact_number"].values())} |

## Model

{training["parameters"]:,} parameters ({training["bytes"] / 1e6:.2f} MB in bf16), {model.depth} blocks of width {model.transformer.config.width},
{model.transformer.config.heads} heads; {model.tokenizer.config.bits} bits a latent, stride {model.stride}; stages {grids} ({model.schedule.tokens} tokens).
The caption encoder ({len(facts["vocabulary"])} words) was trained jointly.

## Training

| | samples seen | steps | hours | workers |
|---|---|---|---|---|
| tokenizer | {training["tokenizer_samples"]:,} | {training["tokenizer_steps"]:,} | {training["tokenizer_hours"]:.2f} | {training["workers"]} |
| transformer | {training["transformer_samples"]:,} | {training["transformer_steps"]:,} | {training["transformer_hours"]:.2f} | {training["workers"]} |

Data: {training["pool"]:,} procedural scenes (version {facts["scene_version"]}, seed {training["pool_seed"]}), rendered at {training["image_size"]} px.
Device: {training["device"]}. Recipe: `varlab train {model.name}`; the average of the weights is shipped.

![curves](curves.png)

## Limits

- It knows only the words of the scene grammar and only {training["image_size"]} px images.
- What the tokenizer loses no sample can show: compare the columns above. Textures finer than its {model.stride} px cells mostly vanish.
- Nothing here is a statement about the official Infinity models.
"""
