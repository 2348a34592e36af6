"""Draws the settings of a study one after the other and keeps their rows; the same call goes on where it stopped."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from varlab.accelerators import DENSE
from varlab.accelerators.decisions import DecisionModel
from varlab.accelerators.skipvar import SkipVAR, read_decisions
from varlab.analysis.comparisons import is_baseline
from varlab.analysis.settings_table import COLUMNS, SettingsTable, check_rows, read_settings_table
from varlab.comparison.bench import FIDELITY, job_of, methods_of
from varlab.comparison.notes import fitted_on
from varlab.context import fixed_context
from varlab.engine.hooks import Accelerator
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.sharing import may_share, shared_runs
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.locks import one_writer
from varlab.models.base import NextScaleModel
from varlab.outputs import plain, save_json, save_table
from varlab.runs import Job, Progress, default_batch, to_pil
from varlab.runs.folders import run_key
from varlab.runs.provenance import provenance
from varlab.scenes import CATEGORIES, score_images
from varlab.scenes.prompt_sets import PromptSet, prompts
from varlab.studies.settings.plans import Plan, plan_of

AT_ONCE = 8  # images
TOGETHER = 8  # settings that are drawn at once: as many are lost by a stop
SEED = 7
N = {"methods": 32, "sparsevar": 32, "exits": 48}


@fixed_context()
def draw_study(
    model: NextScaleModel, study: str, out: Path, *, n: int | None = None, seed: int = SEED, full: bool = False,
    command: str = "", overwrite: bool = False, progress: Progress | None = None,
) -> SettingsTable:  # fmt: skip
    """A study of a model: read where ``out`` holds it, and what is missing drawn.

    Parameters
    ----------
    study: one of ``plans.STUDIES``.
    out: folder of ``study.csv`` and ``study.json``.
    n: prompts; intervals narrow with its root, time grows with it. None: ``N``.
    full: of ``sparsevar``, every combination of its axes (thousands).
    command: what is written down as the way to make it again.

    Raises
    ------
    VarlabError: an unknown study; a folder that holds the study of other weights, prompts or settings (``overwrite``
    draws it anew); a model on which no method of the study runs.
    """
    job, chosen = job_of(model, None, n or N.get(study), seed, {})
    plan = plan_of(study, job, full)
    job, chosen, fitted = _unfitted(job, chosen, plan)
    record = _record(job, chosen, study, plan, command) | fitted
    out.mkdir(parents=True, exist_ok=True)
    with one_writer(out):
        held = None if overwrite else _held(out, study, record)
        drawing = _Drawing(job, chosen, study, out, record, held)
        drawing.draw(plan.specs, progress)
    return read_settings_table(out, study)


def _unfitted(job: Job, chosen: PromptSet, plan: Plan) -> tuple[Job, PromptSet, dict[str, Any]]:
    """As many prompts of the same set, none of which a decision model of the plan was fitted on, and what to record.

    Raises
    ------
    VarlabError: the set has too few of them.
    """
    known, seen = [], set()
    for method in (part for spec in plan.specs for part in methods_of(spec)):
        if isinstance(method, SkipVAR) and (decisions := _decisions(method, job.model.name)) is not None:
            known.append(fitted_on(decisions.facts, job.model.name))
            seen |= known[-1] or set()
    if not known:
        return job, chosen, {}
    whole = prompts(chosen.name, model=job.model)
    items = tuple(item for item in whole.items if item.text not in seen)[: len(chosen)]
    if len(items) < len(chosen):
        raise VarlabError(
            f"Of the {len(whole)} prompts of {chosen.name} only {len(items)} were not fitted on by a decision model of "
            f"skipvar, and {len(chosen)} are asked for. Ask for fewer: --n {len(items)}."
        )
    rest = replace(chosen, items=items)
    fitted = {"texts": None if None in known else len(seen)}
    return replace(job, prompts=tuple(rest.texts)), rest, {"fitted": fitted}


def _decisions(method: SkipVAR, model: str) -> DecisionModel | None:
    """None where there is no such model: the method is left out with the reason."""
    if isinstance(method.model, DecisionModel):
        return method.model
    try:
        return read_decisions(method.model, model, method.target)
    except VarlabError:
        return None


def _record(job: Job, chosen: PromptSet, study: str, plan: Plan, command: str) -> dict[str, Any]:
    record: dict[str, Any] = plain(provenance(job, chosen.name))
    about = {"study": study, "axes": plain(plan.axes), "command": command, "left_out": {}}
    return record | about | {"key": run_key(record)}


def _held(out: Path, study: str, record: dict[str, Any]) -> SettingsTable | None:
    if not (out / f"{study}.csv").exists():
        return None
    held = read_settings_table(out, study)
    if held.facts.get("key") != record["key"]:
        raise VarlabError(
            f"{out / study}.csv was drawn with {held.facts['model']}, {held.facts['weights']}, n {held.facts['n']}, "
            f"seed {held.facts['seed']}; asked for is {record['weights']}, n {record['n']}, seed {record['seed']}. "
            "Give another folder, or --overwrite."
        )
    return held


class _Drawing:
    """The rows so far, and the dense images that all others are held against."""

    def __init__(
        self, job: Job, chosen: PromptSet, study: str, out: Path, record: dict[str, Any], held: SettingsTable | None
    ) -> None:
        self.job, self.study, self.out, self.record = job, study, out, record
        self.texts = list(chosen.texts)
        named = job.model.family == "var"  # its classes are scenes of one coloured shape
        self.categories = ["colors"] * len(chosen) if named else list(chosen.categories)
        self.rows = [] if held is None else [held.rows]
        self.batches = job.batches(default_batch(job.model, most=AT_ONCE))
        self.dense: dict[int, Tensor] = {}

    def draw(self, specs: Sequence[str], progress: Progress | None) -> None:
        done = set(pd.concat(self.rows).spec) if self.rows else set()
        missing = [spec for spec in self._possible(specs) if spec not in done]
        if not missing:
            return
        if DENSE in done:  # the others are held against it
            self._together([])
        for sharing, group in groupby(missing, lambda spec: may_share(methods_of(spec))):
            while part := list(islice(group, TOGETHER if sharing else 1)):
                if progress is not None:
                    progress(len(done), len(done) + len(missing))
                self._together(part) if sharing else self._alone(part[0])
                done.update(part)

    def _possible(self, specs: Sequence[str]) -> list[str]:
        """Those that start on this model; of the others the record keeps the reason."""
        run, possible = self._run(), list[str]()
        for spec in specs:
            try:
                for method in methods_of(spec):
                    method.start(run.context)
            except VarlabError as error:
                self.record["left_out"][spec] = str(error)
            else:
                possible.append(spec)
        if set(possible) <= {spec for spec in specs if is_baseline(spec)}:
            raise VarlabError(f"{self.job.model.name} runs no method of the study {self.study}.")
        return possible

    def _together(self, specs: Sequence[str]) -> None:
        """Settings that share what they have in common; the dense run comes first where it is not there yet."""
        found = []
        for samples in self.batches:
            dense = [] if samples.start in self.dense else [DENSE]
            methods = {spec: methods_of(spec) for spec in dict.fromkeys([*dense, *specs])}
            for spec, out in shared_runs(self._run(), self.job.text(samples), list(samples), methods):
                if spec == DENSE:
                    self.dense[samples.start] = out.image.clamp(0, 1)
                if spec in specs:
                    found.append(self._row(spec, samples, out, methods[spec]))
        self._save(sorted(found, key=lambda part: specs.index(part.spec.iloc[0])))

    def _alone(self, spec: str) -> None:
        found = []
        for samples in self.batches:
            methods = methods_of(spec)
            out = self._run().generate(self.job.text(samples), list(samples), methods)
            found.append(self._row(spec, samples, out, methods))
        self._save(found)

    def _run(self) -> Run:
        return Run(self.job.model, self.job.settings, SeededNoise(self.job.seed))

    def _row(self, spec: str, samples: range, out: Generation, methods: Sequence[Accelerator]) -> pd.DataFrame:
        image, dense = out.image.clamp(0, 1), self.dense[samples.start]
        row: dict[str, Any] = {"spec": spec, "prompt": list(samples)}
        row["flops"] = out.ledger.transformer_flops / len(samples)
        row |= {name: measure(image, dense).double().cpu().numpy() for name, measure in FIDELITY.items()}
        if set(self.categories) <= set(CATEGORIES):
            texts, categories = ([values[i] for i in samples] for values in (self.texts, self.categories))
            pictures = [np.asarray(picture) for picture in to_pil(out.image)]
            version = self.job.model.scene_version
            row["correct"] = score_images(pictures, texts, categories, version=version)["correct"].to_numpy(int)
        for method in methods:
            row |= told(method, self.job.model.schedule.lengths)
        return pd.DataFrame(row).reindex(columns=list(COLUMNS))

    def _save(self, found: list[pd.DataFrame]) -> None:
        if not found:
            return
        new = pd.concat(found).sort_values(["spec", "prompt"], kind="stable")
        order = list(dict.fromkeys(part.spec.iloc[0] for part in found))
        self.rows.append(pd.concat([new[new.spec == spec] for spec in order]))
        whole = pd.concat([part.astype({"spec": str}) for part in self.rows], ignore_index=True)
        check_rows(whole, self.record)
        save_table(self.out / f"{self.study}.csv", whole, digits="%.6g")
        save_json(self.out / f"{self.study}.json", self.record)


def told(method: Accelerator, lengths: Sequence[int]) -> dict[str, Any]:
    """What a method says of each image: the share of tokens it computed at the stages it prunes; SkipVAR's decision."""
    report, names = method.report(), ("hf_diff", "hf_ratio", "drop", "replace")
    found: dict[str, Any] = {name: report[name][1] for name in names if name in report}
    last = getattr(method, "last", 0)
    if "share" in report and last:
        share, tokens = report["share"][1][:, -last:], np.array(lengths[-last:])
        found["computed"] = (share * tokens).sum(-1) / tokens.sum()
    return found
