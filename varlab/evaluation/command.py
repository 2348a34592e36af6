"""What ``varlab score`` does with a model: samples, ceilings, a table, and the same as JSON."""

from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from varlab.accelerators import DENSE
from varlab.errors import VarlabError, unknown
from varlab.evaluation.adm import inception_scores, require_inception
from varlab.evaluation.classes import check_classes, judge_classes, labels, reference
from varlab.evaluation.contract import Item
from varlab.evaluation.generation import Drawing, drawn_at, kept_at
from varlab.evaluation.judging import find_benchmark
from varlab.evaluation.scenes import lead, score, score_ceiling
from varlab.json_files import read_json
from varlab.models.base import NextScaleModel
from varlab.outputs import save_json
from varlab.runs import Progress
from varlab.runs.origins import made_with, scene_version
from varlab.scenes.prompt_sets import prompts

FIELDS = ("text", "category")  # of a prompt, that the scorer takes
BENCHMARKS = {"scenes": 553, "frechet": 2000, "fid": 2000}  # and how many prompts or images by default


def score_command(
    benchmark: str,
    model: NextScaleModel,
    n: int | None,
    per_prompt: int,
    seed: int,
    json_path: Path | None,
    progress: Progress,
    methods: tuple[str, ...] = (),
    against: Path | None = None,
) -> tuple[pd.DataFrame, str]:
    """The table (scenes: one row a category and source; else one row a source) and a line on how it was made.

    The pictures are drawn into a folder under ``runs/`` and read from there, so that a score that was stopped goes on.
    against: what an earlier call wrote to its ``json_path``; the table then also holds the lead over it.
    """
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    if against is not None and benchmark != "scenes":
        raise VarlabError("--against pairs the prompts of the scene benchmark; other benchmarks have none.")
    former = None if against is None else former_score(against)
    if former is not None and (known := scene_version(former)) != model.scene_version:
        raise VarlabError(
            f"{against} holds scores of scenes of version {known}; {model.name} draws version {model.scene_version}. "
            "Give those of a model of the same scenes."
        )
    count = BENCHMARKS[benchmark] if n is None else n
    facts: dict[str, Any] = {"n": count}
    if benchmark == "scenes":
        if methods:
            raise VarlabError("The scene benchmark scores models alone; methods are compared by varlab compare.")
        drawing = scene_drawing(model, count, per_prompt, seed)
        place = kept_at(drawing)
        table, drawn = _scenes(drawing, place, progress)
        facts |= {"prompts": prompts("scenes", n=count).digest, "images_per_prompt": per_prompt}
        facts["entries"] = drawn.to_dict("records")
        note = f"95 % intervals over prompt entries; pictures: {place}"
        if former is not None:
            ahead = lead(drawn, pd.DataFrame(former["entries"])).reset_index()
            table = pd.concat([table, ahead.assign(source=f"lead over {former['weights']}")], ignore_index=True)
            note += f"; the lead is paired by entry, over {former['weights']}, seed {former['seed']}"
    else:
        drawing = class_drawing(benchmark, model, count, seed, methods)
        table, note = _classes(drawing, place := kept_at(drawing), progress)
        note += f"; pictures: {place}"
    if json_path is not None:
        record = {
            "benchmark": benchmark,
            **made_with(model, methods=methods, **facts, seed=seed),
            "rows": table.to_dict("records"),
        }
        save_json(json_path, record)
        note += f"; written to {json_path}"
    return table, note


def former_score(path: Path) -> dict[str, Any]:
    """What ``score scenes --json`` wrote."""
    found: dict[str, Any] = read_json(
        path, fix := f"Write it with: varlab score scenes MODEL --json {quote(str(path))}."
    )
    if not {"entries", "weights", "seed"} <= found.keys():
        raise VarlabError(f"{path} holds no scores by entry. {fix}")
    return found


def _scenes(drawing: Drawing, place: Path, progress: Progress) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table, and the score of every entry, of pictures that are drawn where they are not there."""
    pictures, per, model = drawn_at(drawing, place, progress), drawing.per_prompt, drawing.model
    texts, categories = ([value for item in drawing.items for value in [getattr(item, name)] * per] for name in FIELDS)
    samples = score(pictures, texts, categories, [i // per for i in range(len(texts))], model.scene_version)
    ceiling = score_ceiling(model, len(drawing.items))
    parts = {"samples": samples, "reconstructions": ceiling.rebuilt, "ground truth": ceiling.truth}
    table = pd.concat({name: part.summary for name, part in parts.items()}, names=["source"]).reset_index()
    return table, samples.entries


def scene_drawing(model: NextScaleModel, n: int, per_prompt: int, seed: int) -> Drawing:
    """What the scene benchmark asks a model for: the same pictures as ``varlab generate scenes``."""
    scenes = find_benchmark("scenes")
    return Drawing(scenes, model, scenes.first(n, None), DENSE, seed, per_prompt, scenes.ending, {}, model.settings)


def class_drawing(benchmark: str, model: NextScaleModel, n: int, seed: int, methods: tuple[str, ...]) -> Drawing:
    """Its classes in turn, each image as ``draw_classes`` draws it."""
    found, texts = find_benchmark(benchmark), labels(check_classes(model), n)
    items = [Item(f"{i:05d}", text, text) for i, text in enumerate(texts)]
    return Drawing(found, model, items, "+".join(methods) or DENSE, seed, 1, found.ending, {}, model.settings)


def _classes(drawing: Drawing, place: Path, progress: Progress) -> tuple[pd.DataFrame, str]:
    """The table, and how it was made, of pictures that are drawn where they are not there."""
    model, n = check_classes(drawing.model), len(drawing.items)
    if drawing.benchmark.name == "fid":
        require_inception()
    pictures = drawn_at(drawing, place, progress)
    if drawing.benchmark.name == "frechet":
        note = "95 % intervals over images; the distance is of scattering features and no FID"
        return judge_classes(model, n, {drawing.spec: pictures}), note
    with TemporaryDirectory() as folder:
        table, notes = inception_scores(pictures, (scene for scene, _ in reference(model, n)), Path(folder))
    return table, "; ".join(["by torch-fidelity's Inception", *notes])
