"""What each of FreqExit's losses does: every recipe fine-tuned from the same mini, judged at the same exits.

Resumable: each run, each export and each set of samples is kept and made once. Any subset of recipes and seeds may be
asked for at a time; the table always holds all that the folder holds.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from varlab.evaluation.classes import ClassSamples, as_row, described, draw_classes, labels, measures, reference
from varlab.evaluation.distances import frechet_difference
from varlab.evaluation.scattering import scattering_of
from varlab.exits.speed import exit_specs
from varlab.models.var_model import VAR
from varlab.models.zoo import load
from varlab.runs import device_name
from varlab.statistics import Interval
from varlab.training.freqexit.pipeline import Plan, Report, export_freqexit, train_freqexit
from varlab.training.freqexit.recipes import BASES

UNTRAINED = "untrained"
BASELINE = "layerskip"
Note = Callable[[str], None]


@dataclass(frozen=True)
class Ablation:
    """``plan``: sizes of every run; ``n`` images at each of ``exits`` (exit vectors), all from ``sample_seed``."""

    plan: Plan
    recipes: tuple[str, ...] = tuple(BASES)
    seeds: tuple[int, ...] = (0,)
    exits: tuple[str, ...] = ("6", "12")
    n: int = 2000
    sample_seed: int = 0

    def plans(self) -> Iterator[Plan]:
        """Seed by seed, so that an interrupted ablation has whole seeds."""
        for seed in self.seeds:
            for recipe in self.recipes:
                yield replace(self.plan, recipe=recipe, seed=seed)


def ablate(
    asked: Ablation, folder: Path, out: Path, workers: int, device: str, report: Report, note: Note = lambda _: None
) -> bool:
    """Train, sample and write ``ablation.csv`` and ``.json`` to ``out``. False when stopped; the same call goes on."""
    base = cast(VAR, load(asked.plan.model, device=device))
    specs = dict(zip(asked.exits, exit_specs(base, asked.exits), strict=True))
    judge = _Judge(asked, folder, specs)
    judge.samples(base, folder / UNTRAINED, note)
    for plan in asked.plans():
        note(f"{plan.label}: {plan.steps} updates")
        if not train_freqexit(plan, folder, workers, device, report):
            return False
        mini = folder / plan.label / "mini"
        if not (mini / "model.json").exists():
            export_freqexit(plan, folder, mini, device)
        judge.samples(cast(VAR, load(plan.model, checkpoint=mini, device=device)), folder / plan.label, note)
        write_table(asked, folder, out, base)
    return True


class _Judge:
    """Draws and describes the samples of a model at every exit, once."""

    def __init__(self, asked: Ablation, folder: Path, specs: dict[str, str]) -> None:
        self.asked, self.folder, self.specs = asked, folder, specs

    def samples(self, model: VAR, place: Path, note: Note) -> None:
        asked = self.asked
        for exits, spec in self.specs.items():
            path = samples_path(place, exits, asked)
            if path.exists():
                continue
            note(f"{place.name}: {asked.n} images at exit {exits}")
            found = described(draw_classes(model, asked.n, asked.sample_seed, [spec]), labels(model, asked.n))
            _save(path, features=found.features, correct=found.correct, weights=np.array(model.weights))
        path = self.folder / f"reference-{asked.n}.npz"
        if not path.exists():
            _save(path, features=scattering_of(reference(model, asked.n)[0]))


def samples_path(place: Path, exits: str, asked: Ablation) -> Path:
    return place / f"samples-{exits.replace('/', '-')}-n{asked.n}-seed{asked.sample_seed}.npz"


def _save(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part.npz")
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.replace(path)


# The table


def write_table(asked: Ablation, folder: Path, out: Path, model: VAR) -> pd.DataFrame:
    """One row a run and exit: measures with 95 % intervals, and the Frechet distance less that of the untrained exit
    and of the LayerSkip-like run of the same training seed, paired by class and sampling seed."""
    real = np.load(folder / f"reference-{asked.n}.npz")["features"]
    rows = [row for place in _places(asked, folder) for row in _rows(asked, folder, place, real)]
    table = pd.DataFrame(rows)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "ablation.csv", index=False, float_format="%.5g")
    facts = {
        "model": model.name,
        "weights": model.weights,
        "precision": model.precision,
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        "n": asked.n,
        "seed": asked.sample_seed,
        "prompt_set": "classes",
        "settings": asdict(model.settings),
        "plan": asdict(asked.plan),
    }
    (out / "ablation.json").write_text(
        json.dumps({"facts": facts, "rows": json.loads(table.to_json(orient="records"))})
    )
    return table


def _places(asked: Ablation, folder: Path) -> list[Path]:
    """The untrained model, then every finished run of these sizes, whichever call made it."""
    found = [folder / UNTRAINED]
    for path in sorted(folder.glob("*/plan.json")):
        plan = json.loads(path.read_text())
        if replace(Plan(**plan), recipe=asked.plan.recipe, seed=asked.plan.seed) == asked.plan:
            found.append(path.parent)
    return found


def _plan_of(place: Path) -> dict[str, Any]:
    path = place / "plan.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"recipe": UNTRAINED, "seed": -1, "steps": 0}


def _read(path: Path) -> tuple[ClassSamples, str] | None:
    if not path.exists():
        return None
    stored = np.load(path)
    return ClassSamples(stored["features"], stored["correct"]), str(stored["weights"])


def _rows(asked: Ablation, folder: Path, place: Path, real: np.ndarray) -> Iterator[dict[str, Any]]:
    plan = _plan_of(place)
    for exits in asked.exits:
        own = _read(samples_path(place, exits, asked))
        if own is None:
            continue
        values: dict[str, Interval] = measures(own[0], real)
        rivals = {UNTRAINED: folder / UNTRAINED, BASELINE: folder / f"{BASELINE}-seed{plan['seed']}"}
        for name, rival in rivals.items():
            other = _read(samples_path(rival, exits, asked))
            if other is not None and rival != place:
                values[f"less_{name}"] = frechet_difference(own[0].features, other[0].features, real)
        start = {"recipe": plan["recipe"], "train_seed": plan["seed"], "updates": plan["steps"], "exits": exits}
        yield start | {"n": asked.n} | as_row(values) | {"weights": own[1]}


def summary(table: pd.DataFrame, exits: str, columns: Sequence[str] = ("scattering_frechet", "class_accuracy")) -> str:
    """One line a recipe at an exit, means over training seeds, for the terminal."""
    part = table[table.exits.astype(str) == exits]
    means = part.groupby("recipe", sort=False)[list(columns)].mean()
    lines = (f"  {name}: " + ", ".join(f"{c} {v:.3f}" for c, v in row.items()) for name, row in means.iterrows())
    return "\n".join([f"exit {exits}", *lines])
