"""What each of FreqExit's losses does: every recipe fine-tuned from the same mini, judged at the same exits.

Resumable: each run, each export and each set of samples is kept and made once. Any subset of recipes, seeds and exits
may be asked for at a time, and in a folder of their own: the table holds all that the folder holds, and what it held.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from varlab.analysis.measured import Measured, read_measured
from varlab.errors import VarlabError
from varlab.evaluation.classes import ClassSamples, as_row, described, labels, measures, reference
from varlab.evaluation.distances import FrechetSpace, check_enough
from varlab.evaluation.scattering import scattering_of
from varlab.evaluation.scenes import drawn
from varlab.markup import count
from varlab.measures.statistics import Interval, centred_interval, student_interval
from varlab.models.var_model import VAR
from varlab.outputs import plain, read_facts, refuse_existing
from varlab.studies.exits import facts_of
from varlab.studies.exits.speed import exit_specs
from varlab.training.freqexit.pipeline import Plan, Report, export_freqexit, train_freqexit
from varlab.training.freqexit.recipes import BASES
from varlab.weights.embedded import data_folder
from varlab.weights.zoo import load
from varlab.writing import beside

TABLE = "ablation"
UNTRAINED = "untrained"
BASELINE = "layerskip"
PAPER = "corrected"
ROW = ["recipe", "train_seed", "exits"]  # what tells the rows of a table apart
AVERAGED = ("scattering_frechet", "class_accuracy", "precision", "recall")
NO_SEED = -1  # of the untrained exit
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
    resamples: int = 200

    def __post_init__(self) -> None:
        check_enough(self.n)

    def plans(self) -> Iterator[Plan]:
        """Seed by seed, so that an interrupted ablation has whole seeds."""
        for seed in self.seeds:
            for recipe in self.recipes:
                yield replace(self.plan, recipe=recipe, seed=seed)


def ablate(
    asked: Ablation,
    folder: Path,
    out: Path,
    workers: int,
    device: str,
    report: Report,
    note: Note = lambda _: None,
    overwrite: bool = False,
) -> bool:
    """Train, sample and write ``ablation.csv`` and ``.json`` to ``out``. False when stopped; the same call goes on.

    Raises VarlabError, before any work, where ``out`` holds a table of another model or other sizes, unless
    ``overwrite``; one of other recipes, seeds and exits grows.
    """
    base = cast(VAR, load(asked.plan.model, device=device))
    held = None if overwrite else _held(asked, out, base)
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
        trained = cast(VAR, load(plan.model, checkpoint=mini, device=device))
        judge.samples(trained, folder / plan.label, note)
        if trained.weights not in set(write_table(asked, folder, out, base, held)["weights"]):
            note(f"{plan.label}: {out} keeps its row of another run; give another --out for this one")
    return True


def _same_table(asked: Ablation, model: VAR) -> dict[str, Any]:
    """What all rows of a table share."""
    sizes = {name: value for name, value in asdict(asked.plan).items() if name not in ("recipe", "seed")}
    return plain({"plan": sizes, "weights": model.weights, "n": asked.n, "seed": asked.sample_seed})


def _held(asked: Ablation, out: Path, model: VAR) -> Measured | None:
    """The table that ``out`` holds; refuses one whose rows do not belong beside those of this ablation."""
    place, own = out / f"{TABLE}.json", _same_table(asked, model)
    found = read_facts(place) if place.is_file() else {}
    held = {name: found.get(name) for name in own} | {"plan": {k: found.get("plan", {}).get(k) for k in own["plan"]}}
    if held != own:
        refuse_existing(out / f"{TABLE}.csv", place)
        return None
    return read_measured(out, TABLE)


class _Judge:
    """Draws and describes the samples of a model at every exit, once."""

    def __init__(self, asked: Ablation, folder: Path, specs: dict[str, str]) -> None:
        self.asked, self.folder, self.specs = asked, folder, specs

    def samples(self, model: VAR, place: Path, note: Note) -> None:
        asked, texts = self.asked, labels(model, self.asked.n)
        for exits, spec in self.specs.items():
            path = samples_path(place, exits, asked)
            if path.exists():
                if (held := str(np.load(path)["weights"])) != str(model.weights):
                    raise VarlabError(f"{path} holds images of other weights ({held}). Give another --folder.")
                continue
            note(f"{place.name}: {asked.n} images at exit {exits}")
            found = described(drawn(model, texts, asked.sample_seed, [spec]), texts)
            _save(path, features=found.features, correct=found.correct, weights=np.array(model.weights))
        path = self.folder / f"reference-{asked.n}.npz"
        if not path.exists():
            _save(path, features=scattering_of(scene for scene, _ in reference(model, asked.n)))


def samples_path(place: Path, exits: str, asked: Ablation) -> Path:
    return place / f"samples-{exits.replace('/', '-')}-n{asked.n}-seed{asked.sample_seed}.npz"


def _save(path: Path, **arrays: np.ndarray) -> None:
    with beside(path) as part:
        np.savez(part, **arrays)  # type: ignore[arg-type]


# The table


def write_table(asked: Ablation, folder: Path, out: Path, model: VAR, held: Measured | None = None) -> pd.DataFrame:
    """One row a run and exit: measures with 95 % intervals, and the Frechet distance less that of the untrained exit
    and of the LayerSkip-like run of the same training seed, paired by class and sampling seed.

    ``held``: a table whose rows stay, but for those of the folder's own runs, and of these the differences from runs
    that the folder lacks.
    """
    space = FrechetSpace(np.load(folder / f"reference-{asked.n}.npz")["features"], asked.resamples)
    found = [one for place in _places(asked, folder) for one in _judged(asked, place, space)]
    if held is not None:  # a row of another run stays, and nothing is compared with what the table does not show
        weights = held.table.set_index(ROW)["weights"]
        found = [one for one in found if weights.get((one.recipe, one.seed, one.exits), one.weights) == one.weights]
    table = pd.DataFrame([one.row(found, space) for one in found])
    facts = facts_of(model, labels(model, asked.n), asked.sample_seed) | {"plan": asdict(asked.plan)}
    if held is not None:
        columns = dict.fromkeys([*held.table, *table])
        table = table.set_index(ROW).combine_first(held.table.set_index(ROW)).reset_index()[list(columns)]
        table = table.sort_values(ROW, key=lambda part: part.where(part != UNTRAINED, ""), kind="stable")
        for name in ("device", "git"):  # of all rows; the date is when the table was written last
            facts[name] = "; ".join(dict.fromkeys([*str(held.facts[name]).split("; "), str(facts[name])]))
    Measured(table, facts).save(out, TABLE)
    return table


def _places(asked: Ablation, folder: Path) -> list[Path]:
    """The untrained model, then every finished run of these sizes, whichever call made it."""
    found = [folder / UNTRAINED]
    for path in sorted(folder.glob("*/plan.json")):
        plan = json.loads(path.read_text())
        if replace(Plan(**plan), recipe=asked.plan.recipe, seed=asked.plan.seed) == asked.plan:
            found.append(path.parent)
    return found


@dataclass(frozen=True)
class _Judged:
    """A run's samples at an exit, with the draws of their distance."""

    recipe: str
    seed: int
    updates: int
    exits: str
    samples: ClassSamples
    draws: np.ndarray
    weights: str

    def row(self, others: Sequence["_Judged"], space: FrechetSpace) -> dict[str, Any]:
        values = measures(self.samples, space, self.draws)
        for name in (UNTRAINED, BASELINE, PAPER):
            for other in others:
                same = other.exits == self.exits and other.recipe == name and other.seed in (self.seed, NO_SEED)
                if same and other is not self:
                    values[f"less_{name}"] = centred_interval(self.draws - other.draws)
        start = {"recipe": self.recipe, "train_seed": self.seed, "updates": self.updates, "exits": self.exits}
        return start | {"n": len(self.samples.features)} | as_row(values) | {"weights": self.weights}


def _judged(asked: Ablation, place: Path, space: FrechetSpace) -> Iterator[_Judged]:
    plan: dict[str, Any] = {"recipe": UNTRAINED, "seed": NO_SEED, "steps": 0}
    if (place / "plan.json").exists():
        plan = json.loads((place / "plan.json").read_text())
    for exits in asked.exits:
        path = samples_path(place, exits, asked)
        if path.exists():
            stored = np.load(path)
            samples = ClassSamples(stored["features"], stored["correct"])
            about = str(plan["recipe"]), int(plan["seed"]), int(plan["steps"]), exits
            yield _Judged(*about, samples, space.draws(samples.features), str(stored["weights"]))


def over_trainings(table: pd.DataFrame, exits: str) -> pd.DataFrame:
    """One row a recipe: how many ``trainings`` it has at an exit, how many images ``n`` of them were judged, and the
    mean of each measure over trainings with Student's 95 % interval; of one training, the interval over its images.

    An interval over trainings holds what differs between them. All are judged by the same scenes, classes and sampling
    seeds, so what these add to every training alike is not in it.
    """
    rows = []
    for recipe, part in table[table["exits"].astype(str) == exits].groupby("recipe", sort=False):
        row = {"recipe": recipe, "trainings": int((part["train_seed"] != NO_SEED).sum()), "n": int(part["n"].sum())}
        alone = {name: Interval(*(part[f"{name}{end}"].iloc[0] for end in ("", "_low", "_high"))) for name in AVERAGED}
        rows.append(row | as_row(alone if len(part) == 1 else {x: student_interval(part[x]) for x in AVERAGED}))
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, exits: str) -> str:
    """``over_trainings`` for the terminal, one line a recipe."""
    lines = [f"exit {exits}: means over trainings with 95 % intervals; of one training, over its images"]
    for _, row in over_trainings(table, exits).iterrows():
        means = (
            f"{name} {row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]" for name in AVERAGED[:2]
        )
        lines.append(f"  {row.recipe}, {count(row.trainings, 'training')}: {', '.join(means)}")
    return "\n".join(lines)


def find_ablation(folder: str | Path | None, trained: str) -> Measured:
    """The table in a folder; without one that of ``varlab ablate`` here, else the one shipped with a trained mini."""
    if folder is not None:
        return read_measured(folder, TABLE)
    own = Path("reports/freqexit_ablation")
    return read_measured(own if (own / f"{TABLE}.csv").exists() else data_folder() / trained, TABLE)
