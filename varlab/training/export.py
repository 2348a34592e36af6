"""A training run -> a mini's folder: averaged weights in bf16, facts, and the logs of its parts."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from varlab.machine import device_name
from varlab.scenes import shortened
from varlab.scenes.prompt_sets import prompts
from varlab.training.pipeline import FROM, PARTS, continued, load_average, start_of, trained_tokenizer
from varlab.training.pool import ScenePool
from varlab.training.recipe import Recipe
from varlab.training.records import parts_of
from varlab.weights.embedded import read_facts, save_mini

BENCHMARK = 553  # prompts of the scene benchmark
ORIGIN = "fine_tuned_from"  # of facts: weights of another world of scenes, from which both parts went on


def export(recipe: Recipe, run: Path, folder: Path, device: str = "cpu") -> str:
    """Write the mini and return the hash of its weights. Works on an unfinished run too; the facts say the steps."""
    tokenizer, trained = trained_tokenizer(recipe, run), recipe.new_transformer()
    load_average(trained, run / "transformer")
    parameters = sum(p.numel() for module in (tokenizer, trained) for p in module.parameters())
    facts = _facts(recipe, run, device) | {"parameters": parameters, "bytes": 2 * parameters}
    weights = save_mini(
        folder, recipe.parts(tokenizer, trained), recipe.schedule, recipe.settings, facts, recipe.classes
    )
    _copy_logs(run, run / FROM / "training" if continued(recipe, run) else None, folder / "training")
    return weights


def _copy_logs(run: Path, former: Path | None, folder: Path) -> None:
    """The logs of all parts; a continued one goes on where the mini that it began from, with its ``former`` logs, had
    stopped."""
    start = start_of(run)
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        rows = []
        if former is not None and (former / f"{part}.csv").exists():
            rows.append(pd.read_csv(former / f"{part}.csv"))
        if (run / part / "log.csv").exists():
            log = pd.read_csv(run / part / "log.csv")
            log["step"] += start[f"{part}_steps"]
            log["seconds"] += start[f"{part}_hours"] * 3600
            rows.append(log)
        if rows:
            pd.concat(rows).to_csv(folder / f"{part}.csv", index=False, float_format="%.5g")


def _trained_on(recipe: Recipe, pool: ScenePool) -> float:
    """Share of the scene benchmark's entries whose text, not whose picture, is among the training captions."""
    texts = set(pool.captions)
    if recipe.correction.shorten:
        texts |= {shortened(caption, colors) for caption in pool.captions for colors in (True, False)}
    asked = list(prompts("scenes", n=BENCHMARK))
    return sum(text in texts for text in asked) / len(asked)


def _facts(recipe: Recipe, run: Path, device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "scene_version": recipe.scene_version,
        "image_size": recipe.image_size,
        "pool": recipe.pool,
        "pool_seed": recipe.pool_seed,
        "tokenizer_from": recipe.tokenizer_from,
        "device": device_name(torch.device(device)),
    }
    if not recipe.classes:
        facts["benchmark_texts_trained_on"] = _trained_on(recipe, ScenePool(run / "pool"))
    batches = {"tokenizer": recipe.tokenizer_batch, "transformer": recipe.correction.batch}
    before = start_of(run)
    for part in PARTS:
        state = {"step": 0, "seconds": 0.0, "world": 1}
        if (run / part / "state.pt").exists():
            state = torch.load(run / part / "state.pt", map_location="cpu", weights_only=True)
        facts |= {
            "workers": state["world"],
            f"{part}_steps": state["step"] + before[f"{part}_steps"],
            f"{part}_samples": state["step"] * batches[part] * state["world"] + before[f"{part}_samples"],
            f"{part}_hours": round(state["seconds"] / 3600 + before[f"{part}_hours"], 3),
        }
    former: list[Any] = []
    if (run / FROM).exists():
        source = read_facts(run / FROM)
        origin = {"weights": source.weights, "scene_version": source.scene_version}
        if continued(recipe, run):
            former = source.extra.get("parts", [])
            origin = source.extra.get(ORIGIN, {})
        facts |= {ORIGIN: origin} if origin else {}
    return facts | {"parts": former + parts_of(run / "transformer", before["transformer_steps"], int(state["step"]))}
