"""The card of a shipped class-conditional mini, written from its own records."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Template

from varlab.evaluation.card import save
from varlab.evaluation.classes import MEASURES, check_classes, draw_classes, score_classes
from varlab.models.base import NextScaleModel
from varlab.runs import Progress
from varlab.runs.origins import made_with
from varlab.weights.embedded import card_folder


def write_class_card(model: NextScaleModel, progress: Progress | None = None, n: int = 2000, seed: int = 0) -> Path:
    """Judge the model at full depth and at half of it, and write ``README.md``, ``card.json``, a sheet of one image a
    class, and the training curves beside its weights. n: images of each row; time grows with it."""
    checked, folder = check_classes(model), card_folder(model.name)
    half = f"freqexit:exits={max(1, model.depth // 2)}"
    table = score_classes(checked, n, seed, ("none", half), progress)
    record = {**made_with(model), "n": n, "seed": seed, "rows": table.round(4).to_dict("records")}
    pictures = draw_classes(checked, checked.text.classes, seed)
    facts = json.loads((folder / "model.json").read_text("utf-8"))
    return save(folder, record, list(pictures), _text(checked, facts, record))


def _cell(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def _text(model: Any, facts: dict[str, Any], record: dict[str, Any]) -> str:
    template = Template(Path(__file__).with_name("class_card.md.jinja").read_text())
    grids = ", ".join(f"{height}x{width}" for height, width in model.schedule.grids)
    parts = [name for name in ("tokenizer", "transformer", "freqexit") if f"{name}_steps" in facts]
    return template.render(
        model=model, facts=facts, card=record, measures=MEASURES, cell=_cell, grids=grids, parts=parts
    )
