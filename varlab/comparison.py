"""All methods on one engine: same prompts, seeds, timer and code; one table with controls and intervals.

Every batch of prompts is drawn by each method in turning order, the dense run among them, so that a drift of the
machine falls on all alike. What a method needs beside (a dense run for an oracle) is made outside its time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from varlab.accelerators import DENSE, build
from varlab.engine.hooks import Accelerator, Probe
from varlab.engine.ledger import Ledger
from varlab.engine.loop import Run
from varlab.engine.randomness import SeededNoise
from varlab.engine.stage import Stage
from varlab.engine.state import Generation
from varlab.errors import VarlabError
from varlab.folders import keep
from varlab.inputs import at_least, check_prompts, with_overrides
from varlab.machine import device_name, now, peak_mib, reset_peak
from varlab.metrics import high_frequency_ssim, psnr, ssim
from varlab.models.base import NextScaleModel
from varlab.perceptual import load_lpips
from varlab.probes.log import Log, join, of_methods, tree
from varlab.prompt_sets import CUSTOM, PromptSet, dealt, digest_of, prompts
from varlab.runs import Job, provenance, to_pil
from varlab.scenes import score_images
from varlab.statistics import bootstrap_interval, paired_difference

Progress = Callable[[float, int], None]
SCORE_FROM = 100  # prompts below which a scene score says too little
Measure = Callable[[Tensor, Tensor], Tensor]
FIDELITY: dict[str, Measure] = {
    "psnr": psnr,
    "ssim": ssim,
    "high_frequency_ssim": high_frequency_ssim,
}


class StageClock(Probe):
    """Wall time of the transformer: from the first stage's entry to the end of the last."""

    name = "clock"

    def __init__(self, device: torch.device) -> None:
        self.device, self.first, self.last = device, 0.0, 0.0

    def on_stage(self, stage: Stage, x: Tensor) -> None:
        if stage.index == 0:
            self.first = now(self.device)

    def on_progress(self, stage: Stage) -> None:
        self.last = now(self.device)


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found.

    ``table``: one row a method. ``images``: method -> pictures in prompt order. ``prompts``: one row a prompt and
    method. ``timings``: one row a batch and method. ``ledgers`` by method, and ``logs`` of those that tell what they
    decided; ``facts`` are the provenance, the same for all rows, and ``notes`` on what a reader of the table must know.
    All rows come from one call and share its settings: tables made apart are not to be joined.
    """

    table: pd.DataFrame
    prompts: pd.DataFrame
    timings: pd.DataFrame
    images: dict[str, list[Image.Image]]
    ledgers: dict[str, Ledger]
    logs: dict[str, xr.DataTree]
    facts: dict[str, Any]

    def only(self, *specs: str) -> "Comparison":
        """The dense row and those of ``specs``, of the same run: what must not share a table is shown apart."""
        names = [DENSE, *(name for name in self.images if name in specs and name != DENSE)]
        prompts, timings = (frame[frame.method.isin(names)] for frame in (self.prompts, self.timings))
        images, ledgers = ({name: self.images[name] for name in names}, {name: self.ledgers[name] for name in names})
        logs = {name: self.logs[name] for name in names if name in self.logs}
        return Comparison(self.table.loc[names], prompts, timings, images, ledgers, logs, self.facts)

    def speed(self) -> pd.DataFrame:
        """The half of the table on time and work, as people read it. batches: timed runs, the n of its intervals."""
        table = self.table.reset_index()
        quartiles = zip(table.seconds, table.seconds_q25, table.seconds_q75, strict=True)
        shown = table[["method", "timings"]].rename(columns={"timings": "batches"})
        shown["ms/image"] = [f"{1000 * s:.0f} ({1000 * a:.0f} to {1000 * b:.0f})" for s, a, b in quartiles]
        shown["speed-up"] = _cells(table, "speedup", "{:.2f}")
        shown["work"] = table.work_ratio.map("{:.3f}".format)
        shown["efficiency"] = table.efficiency.map("{:.2f}".format).replace("nan", "-")
        shown["engaged"] = np.where(table.engaged, "yes", "no")
        shown["MiB"] = table.peak_mib.map("{:.0f}".format)
        return shown

    def fidelity(self) -> pd.DataFrame:
        """The half on the images, with 95 % intervals over prompts."""
        table = self.table.reset_index()
        shown = table[["method", "n"]].copy()
        shown["PSNR (dB)"] = _cells(table, "psnr", "{:.1f}")
        shown["SSIM"] = _cells(table, "ssim", "{:.3f}")
        shown["SSIM of detail"] = _cells(table, "high_frequency_ssim", "{:.3f}")
        if "lpips" in table:
            shown["LPIPS"] = _cells(table, "lpips", "{:.3f}")
        if "score" in table:
            shown["score"] = table.score.map("{:.3f}".format)
            shown["less dense"] = _cells(table, "score_delta", "{:+.3f}")
        return shown

    def save(self, folder: Path | str) -> Path:
        """Write ``comparison.csv`` and ``.json``, ``prompts.csv``, ``timings.csv``, ``images/<row>/<prompt>.png`` and
        ``decisions/<row>``, each a log that ``open_log`` and the figures read. Rows count from 0, the dense run."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(place / "comparison.csv")
        self.prompts.to_csv(place / "prompts.csv", index=False)
        self.timings.to_csv(place / "timings.csv", index=False)
        rows = json.loads(self.table.reset_index().to_json(orient="records"))
        record = {"facts": self.facts, "rows": rows}
        (place / "comparison.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        for row, name in enumerate(self.images):
            if name in self.logs:
                keep(place / "decisions" / f"{row:02d}", self.logs[name])
        for row, pictures in enumerate(self.images.values()):
            (place / "images" / f"{row:02d}").mkdir(parents=True, exist_ok=True)
            for i, picture in enumerate(pictures):
                picture.save(place / "images" / f"{row:02d}" / f"{i:04d}.png")
        return place


def _cells(table: pd.DataFrame, name: str, form: str) -> list[str]:
    """Figures with their intervals, where there are any and these have a width."""
    columns = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
    return [
        form.format(value)
        if low == high or np.isnan(low)
        else f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"
        for value, low, high in columns
    ]


def compare(
    model: NextScaleModel,
    prompt_set: str | PromptSet | Sequence[str] = "scenes",
    specs: Sequence[str] = (),
    *,
    n: int = 32,
    seed: int = 0,
    batch: int = 4,
    rounds: int = 1,
    lpips: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Comparison:
    """One row for the dense run and for each method; joined specs (``sparsevar:tau=0.6+skipvar``) run together.

    n: prompts; intervals narrow with its root, time grows with it. batch: images at a time in the latency. rounds:
    how often every batch is timed. Fidelity is to the dense image of the same seed: PSNR in dB, SSIM (Gaussian 11,
    sigma 1.5, mean of RGB, range 1), SSIM of the detail (our own high-pass). The scene score comes from 100 prompts
    of a scene set on. lpips: folder with the weights of LPIPS, by default ``$VARLAB_LPIPS``; without them the table has
    no such column. Unknown names, needs that are not met and pairs that cannot run together stop before any work.
    """
    at_least(1, n=n, batch=batch, rounds=rounds)
    chosen = prompts(prompt_set, n=n) if isinstance(prompt_set, str) else prompt_set[:n]
    texts = check_prompts(list(chosen))
    names = list(dict.fromkeys([DENSE, *specs]))
    job = Job(model, tuple(texts), with_overrides(model.settings, **settings), seed)
    _try_out(job, names)
    if (perceptual := load_lpips(lpips)) is not None:
        perceptual.check_size(*(side * model.stride for side in model.latent_grid(model.schedule.final)))
    bench = _Bench(job, names, batch, FIDELITY if perceptual is None else FIDELITY | {"lpips": perceptual})
    batches = job.batches(batch)
    bench.warm_up()
    for turn in range(rounds * len(batches)):
        bench.turn(batches[turn % len(batches)], turn, turn // len(batches) == 0)
        if progress is not None:
            progress(min(n, (turn + 1) * batch // rounds), n)
    categories = chosen.categories if isinstance(chosen, PromptSet) else [CUSTOM] * len(texts)
    rows = bench.prompt_rows(texts, categories)
    facts = provenance(job, chosen.name if isinstance(chosen, PromptSet) else CUSTOM) | {
        "batch": batch,
        "rounds": rounds,
        "device": device_name(model.device),
    }
    timings = pd.DataFrame(bench.timings)
    table = pd.DataFrame([_row(name, bench, rows, timings) for name in names]).set_index("method")
    logs = bench.told(facts)
    facts["notes"] = _notes(logs, texts)
    return Comparison(table, rows, timings, bench.images, bench.ledgers, logs, facts)


def methods_of(spec: str) -> list[Accelerator]:
    """``none``, one method, or several joined by ``+``."""
    return build([part for part in spec.split("+") if part != DENSE])


def _try_out(job: Job, names: Sequence[str]) -> None:
    """Every method starts once, so that what is missing is told before the first image."""
    run = Run(job.model, job.settings, SeededNoise(job.seed))
    for name in names:
        for method in methods_of(name):
            method.start(run)


class _Bench:
    """Runs the methods in turn and keeps what they gave."""

    def __init__(self, job: Job, names: Sequence[str], batch: int, measures: Mapping[str, Measure]) -> None:
        self.job, self.names, self.batch, self.measures = job, list(names), batch, measures
        self.timings: list[dict[str, Any]] = []
        self.tensors: dict[str, list[Tensor]] = {name: [] for name in names}
        self.images: dict[str, list[Image.Image]] = {name: [] for name in names}
        self.ledgers = {name: Ledger.of(len(job.model.schedule)) for name in names}
        self.parts: dict[str, list[Log]] = {name: [] for name in names}
        self.methods = {name: methods_of(name) for name in names}
        self.peaks: dict[str, float] = {}

    def warm_up(self) -> None:
        samples = range(min(self.batch, len(self.job.prompts)))
        for name in self.names:
            forgot = reset_peak(self.job.model.device)  # not while time is taken: the pages that it frees cost some
            self._run(name, samples)
            self.peaks[name] = peak_mib(self.job.model.device, forgot)

    def turn(self, samples: range, turn: int, keep: bool) -> None:
        for i in range(len(self.names)):
            name = self.names[(i + turn) % len(self.names)]
            out, seconds, transformer = self._run(name, samples)
            self.timings.append(
                {
                    "method": name,
                    "turn": turn,
                    "images": len(samples),
                    "seconds": seconds / len(samples),
                    "transformer_seconds": transformer / len(samples),
                }
            )
            if keep:
                self.tensors[name].append(out.image.cpu())
                self.images[name] += to_pil(out.image)
                self.ledgers[name] += out.ledger
                self.parts[name].append(of_methods(out.reports, samples))

    def _run(self, name: str, samples: range) -> tuple[Generation, float, float]:
        job = self.job
        clock = StageClock(job.model.device)
        run = Run(job.model, job.settings, SeededNoise(job.seed), [clock], on_progress=clock.on_progress)
        texts = [job.prompts[i] for i in samples]
        needs = any("dense" in method.needs for method in self.methods[name])
        dense = run.dense_run(texts, list(samples)) if needs else None
        start = now(job.model.device)
        out = run.generate(texts, list(samples), self.methods[name], dense=dense)
        seconds = now(job.model.device) - start
        return out, seconds, clock.last - clock.first

    def told(self, facts: dict[str, Any]) -> dict[str, xr.DataTree]:
        """What the methods decided, of those that say."""
        plain = json.loads(json.dumps(facts, default=list))
        joined = {name: join(parts) for name, parts in self.parts.items()}
        return {name: tree(log, plain | {"accelerators": name.split("+")}) for name, log in joined.items() if log}

    def prompt_rows(self, texts: Sequence[str], categories: Sequence[str]) -> pd.DataFrame:
        """One row a prompt and method: fidelity to the dense image, and whether the scene is right."""
        dense = torch.cat(self.tensors[DENSE]).clamp(0, 1)
        scored = len(texts) >= SCORE_FROM and CUSTOM not in categories
        parts = []
        for name in self.names:
            image = torch.cat(self.tensors[name]).clamp(0, 1)
            part = pd.DataFrame({"method": name, "prompt": texts, "category": categories})
            for measure, function in self.measures.items():
                part[measure] = function(image, dense).double().numpy() if min(image.shape[-2:]) >= 11 else np.nan
            pictures = [np.asarray(picture) for picture in self.images[name]]
            part["correct"] = score_images(pictures, texts, categories)["correct"] if scored else np.nan
            parts.append(part)
        return pd.concat(parts, ignore_index=True)


def _row(name: str, bench: _Bench, rows: pd.DataFrame, timings: pd.DataFrame) -> dict[str, Any]:
    """All figures of one method, differences paired with the dense run's over batches or prompts."""
    own, dense = (timings[timings.method == which].sort_values("turn") for which in (name, DENSE))
    q25, median, q75 = own.seconds.quantile([0.25, 0.5, 0.75])
    ratios = own.seconds.to_numpy() / dense.seconds.to_numpy()
    speedup = bootstrap_interval(1 / ratios, np.nanmedian)
    transformer = bootstrap_interval(
        own.transformer_seconds.to_numpy() / dense.transformer_seconds.to_numpy(), np.nanmedian
    )
    ledger, reference = bench.ledgers[name], bench.ledgers[DENSE]
    work = ledger.transformer_flops / reference.transformer_flops
    row: dict[str, Any] = {
        "method": name,
        "n": len(bench.job.prompts),
        "seconds": median,
        "seconds_q25": q25,
        "seconds_q75": q75,
        "timings": len(own),
        "speedup": speedup.estimate,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
        "transformer_ratio": transformer.estimate,
        "transformer_ratio_low": transformer.low,
        "transformer_ratio_high": transformer.high,
        "work_ratio": work,
        "efficiency": (1 - transformer.estimate) / (1 - work) if work < 1 else np.nan,
        "engaged": ledger.engaged,
        "peak_mib": bench.peaks[name],
    }
    part, plain = rows[rows.method == name], rows[rows.method == DENSE]
    for measure in bench.measures:
        statistic = np.nanmedian if measure == "psnr" else np.nanmean  # PSNR of equal images is infinite
        found = bootstrap_interval(part[measure], statistic)
        low, high = (found.estimate if np.isinf(found.estimate) else bound for bound in found[1:])
        row |= {measure: found.estimate, f"{measure}_low": low, f"{measure}_high": high}
    if part.correct.notna().all():
        delta = paired_difference(part.correct.astype(float), plain.correct.astype(float))
        row |= {"score": part.correct.astype(float).mean(), "score_delta": delta.estimate}
        row |= {"score_delta_low": delta.low, "score_delta_high": delta.high}
    return row


def _fitted_on(record: Mapping[str, Any]) -> set[str] | None:
    """The texts that a decision model was fitted on; None where its record or its file of prompts do not tell."""
    try:
        seen = dealt(*(record[key] for key in ("prompt_set", "n", "held_out", "seed")))[0]
    except (KeyError, VarlabError):  # an older record; a file that is gone
        return None
    return set(seen) if digest_of(seen) == record.get("texts") else None


def _notes(logs: Mapping[str, xr.DataTree], texts: Sequence[str]) -> list[str]:
    """A line on every row whose decision model was fitted on prompts of this comparison, whatever the seed."""
    found = []
    for name, log in logs.items():
        for node in log.children.values():
            fitted = node.attrs.get("decision_model", {})
            if "prompt_set" not in fitted:  # the official ones do not say
                continue
            seen = _fitted_on(fitted)
            if seen is None:
                found.append(f"{name}: the prompts that its decision model was fitted on cannot be told.")
            elif known := sum(text in seen for text in texts):
                found.append(
                    f"{name}: {known} of these {len(texts)} prompts are among the {fitted['n']} that its decision "
                    "model was fitted on, which flatters it."
                )
    return found
