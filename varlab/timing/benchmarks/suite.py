"""The benchmarks by topic, each with ratios within one run, and their history on disk."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from varlab.figures.growth import growth_curves
from varlab.locks import one_writer
from varlab.machine import clocks, device_name
from varlab.models.base import NextScaleModel
from varlab.outputs import in_picture, key_of, refuse_existing, save_table
from varlab.resources import git_state
from varlab.runs import Progress, runs_folder
from varlab.timing.benchmarks import attach_cost, precision_cost
from varlab.timing.benchmarks.dense import LEAD, NEEDS_UNITS, dense_bench
from varlab.timing.benchmarks.growth import WITHIN, growth
from varlab.timing.benchmarks.probe_cost import ALLOWED, BARE, PROBED, TARGETS, WHOLE, ProbeCost, probe_cost
from varlab.timing.benchmarks.sharing import ROUND, SEED, SPECS, sharing
from varlab.weights.zoo import load
from varlab.writing import beside

SIZES = ("0.25M", "1M")  # of dense runs, pixels of Infinity
QUIET = 0.9  # share of its threads' time below which a run shared the machine with others


@dataclass(frozen=True)
class Measured:
    """A topic's table, one line that judges it, and what it rests on; ``rounds``: kept until the table is written;
    ``of_one_model``: rows of others stay in the table on disk."""

    topic: str
    table: pd.DataFrame
    verdict: str
    facts: dict[str, Any]
    rounds: Path | None = None
    of_one_model: bool = False


def dense(rounds: int, progress: Progress | None) -> Measured:
    made = {pixels: dense_bench(pixels=pixels, rounds=rounds, progress=progress) for pixels in SIZES}
    table = pd.concat([one.table.assign(pixels=pixels) for pixels, one in made.items()], ignore_index=True)
    facts = next(iter(made.values())).facts | {"pixels": list(made)}
    missed = [f"{row.figure} at {row.pixels}" for row in table.itertuples() if row.met is False]
    verdict = "all targets that apply are met" if not missed else f"NOT met: {', '.join(missed)}"
    unrun = list(dict.fromkeys(table.figure[table.n == 0]))
    silent = [
        figure for figure in NEEDS_UNITS if figure not in unrun and table.met[table.figure == figure].isna().all()
    ]
    verdict += f"; not applicable without bf16 matrix units: {', '.join(silent)}" if silent else ""
    verdict += f"; not run, as the processor has no instructions for bf16: {', '.join(unrun)}" if unrun else ""
    lead = " and ".join(f"{share:.0%} ({precision})" for precision, share in LEAD.items())
    verdict += f"; the reference was {lead} faster than the official code where both were measured"
    return Measured("dense", table, verdict, facts)


def grown(rounds: int, progress: Progress | None) -> Measured:
    made = growth(rounds=rounds, progress=progress)
    word = "within" if made.within else "NOT within"
    verdict = f"fp32 time over account {word} {WITHIN[0]} to {WITHIN[1]} from 0.25M to 1M"
    return Measured("growth", made.table, verdict, made.facts)


def probes(rounds: int, progress: Progress | None, model: str = "nano-infinity") -> Measured:
    """Of a small model, at the batch that `varlab log` takes: an image alone pays more for the same calls."""
    loaded = load(model)
    made = probe_cost(loaded, max(rounds, 5), progress=progress)
    ratio = made.ratio(BARE)
    verdict = (
        f"batch {made.batch}: {BARE} {ratio:.3f} times plain, {_word(ratio, ALLOWED)} {ALLOWED:g}; {_equal(made.equal)}"
    )
    return _of_probes("probes", loaded, made, verdict, max(rounds, 5))


def full_probes(rounds: int, progress: Progress | None, model: str = "infinity-2b", pixels: str = "0.25M") -> Measured:
    """All probes at full width and depth, previews at an eighth of the side."""
    loaded = load(model, "random", pixels=pixels, precision="bf16")
    made = probe_cost(loaded, rounds, 1, progress, {"plain": (), WHOLE: PROBED})
    figures = {"time": made.ratio(WHOLE), "memory": made.memory(WHOLE), "log": made.log_mb(WHOLE)}
    units = {"time": "times plain", "memory": "times plain", "log": "MB an image"}
    told = [
        f"{name} {value:.3f} {units[name]}, {_word(value, TARGETS[name])} {TARGETS[name]:g}"
        for name, value in figures.items()
    ]
    return _of_probes("probes-full", loaded, made, "; ".join([*told, _equal(made.equal)]), rounds)


def shared(rounds: int, progress: Progress | None, model: str = "mini-infinity") -> Measured:
    """Methods drawn together and each alone, round by round beside the runs: a call that was cut goes on."""
    loaded = load(model)
    facts = {"model": loaded.name, "weights": loaded.weights, "precision": loaded.precision,
             "batch": ROUND, "images_per_prompt": ROUND, "seed": SEED, "specs": list(SPECS)}  # fmt: skip
    machine = {"device": device_name(loaded.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    kept = runs_folder() / f"bench-sharing-{key_of(facts | machine)}" / "rounds.csv"
    with one_writer(kept.parent):
        earlier = len(pd.read_csv(kept)) if kept.is_file() else 0  # rounds, which the facts' seconds leave out
        table, equal = sharing(loaded, rounds, kept, progress)
    last = table.iloc[-1]
    verdict = (
        f"{last.ratio:.2f} [{last.low:.2f}, {last.high:.2f}] of the processor time of dense images for each method, "
        f"{last.step:.2f} [{last.step_low:.2f}, {last.step_high:.2f}] of that of dense images once; {_equal(equal)}"
    )
    return Measured("sharing", table, verdict, facts | {"n": int(last.images), "earlier_rounds": earlier}, kept)


def attached(rounds: int, progress: Progress | None, model: str) -> Measured:
    """Of a sampler under the released names, at least five rounds unless a call takes minutes."""
    rounds = rounds if model in attach_cost.LONG else max(rounds, 5)
    cost = attach_cost.attach_cost(model, rounds, progress)
    ratio = cost.ratio(WHOLE)
    word = f"{_word(ratio, attach_cost.ALLOWED)} {attach_cost.ALLOWED:g}"
    verdict = f"{WHOLE} {ratio:.3f} times plain, {word}; {_equal(cost.equal)}"
    first = cost.table.iloc[0]
    facts = {"model": model, "weights": first.weights, "precision": first.precision, "n": rounds, "batch": 1, "seed": 0}
    return Measured("attach", cost.table, verdict, facts, of_one_model=True)


def by_precision(rounds: int, progress: Progress | None, model: str) -> Measured:
    """Of two blocks at Infinity-2B's width on one pixel budget, and of the whole model by the account."""
    cost = precision_cost.precision_cost(model, rounds, progress)
    allowed, share = precision_cost.ALLOWED, cost.of_auto()
    told = [f"{share[name]:.3f} times the {name} of {precision_cost.OTHER}, {_word(share[name], most)} {most:g}"
            for name, most in allowed.items()]  # fmt: skip
    verdict = f"{cost.why}; auto takes {cost.auto}"
    if cost.auto != precision_cost.OTHER:
        verdict += f": {'; '.join(told)}, the latter of all blocks by the account"
    facts = {"model": model, "weights": cost.table.weights[0], "auto": cost.auto, "n": rounds, "batch": 1, "seed": 0}
    return Measured("precision", cost.table, verdict, facts, of_one_model=True)


def _word(value: float, most: float) -> str:
    return "not measured against" if value != value else "within" if value <= most else "NOT within"


def _equal(equal: bool) -> str:
    return f"images {'bit-equal' if equal else 'NOT bit-equal'}"


def _of_probes(topic: str, model: NextScaleModel, made: ProbeCost, verdict: str, rounds: int) -> Measured:
    named = {"model": model.name, "weights": model.weights, "precision": model.precision, "seed": 0}
    facts = named | {"schedule": model.schedule.name, "batch": made.batch, "n": rounds}
    return Measured(topic, made.table.assign(**named), verdict, facts)


TOPICS: dict[str, Callable[..., Measured]] = {
    "dense": dense, "growth": grown, "probes": probes, "probes-full": full_probes, "sharing": shared,
    "attach": attached, "precision": by_precision,
}  # fmt: skip


def models_of(topic: str, long: bool = False) -> list[str]:
    """Those that a topic measures one by one, each written before the next; ``long``: those too that take minutes a
    call and are measured where they are asked for."""
    kind = {"attach": attach_cost, "precision": precision_cost}.get(topic)
    return [] if kind is None else [*kind.MODELS, *(kind.LONG if long else ())]


def measure(topic: str, rounds: int, progress: Progress | None = None, **of: str) -> Measured:
    """One topic, or ``model=`` of it, with what the machine was and how much of it the run had."""
    device = torch.device("cpu")
    before, wall, busy = clocks(device), time.perf_counter(), time.process_time()
    made = TOPICS[topic](rounds, progress, **of)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    share = busy / wall / torch.get_num_threads()
    facts = made.facts | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "git": git_state(), "torch": torch.__version__,
        "device": device_name(device), "threads": torch.get_num_threads(), "seconds": round(wall, 1),
        "share_of_threads": round(share, 3), "load": os.getloadavg()[0], "clocks": [before, clocks(device)],
    }  # fmt: skip
    note = "" if share >= QUIET else f"; the machine was shared (this run had {share:.0%} of its threads' time)"
    return replace(made, verdict=made.verdict + note, facts=facts)


def save(made: Measured, folder: Path) -> None:
    """The table as ``TOPIC.csv``, one more line of ``TOPIC.jsonl``, which keeps all, and the figure of growth."""
    file, ours = folder / f"{made.topic}.csv", (folder / f"{made.topic}.jsonl").is_file()
    others = [_others(file, made.table)] if made.of_one_model and ours and file.is_file() else []
    save_table(file, pd.concat([*others, made.table]), digits="%.6g")
    entry = {"facts": made.facts, "verdict": made.verdict, "rows": json.loads(made.table.to_json(orient="records"))}
    with (folder / f"{made.topic}.jsonl").open("a") as history:
        history.write(json.dumps(entry, default=str) + "\n")
    if made.rounds is not None:
        made.rounds.unlink(missing_ok=True)
    if made.topic == "growth":
        facts = made.facts
        line = (
            f"random weights · {facts['precision']} · {facts['device']} · {facts['threads']} threads · n={facts['n']}"
        )
        with beside(folder / "growth.png") as part:
            growth_curves(made.table, line).savefig(part, dpi=150, metadata=in_picture({"benchmark": "growth"} | facts))


def _others(file: Path, table: pd.DataFrame) -> pd.DataFrame:
    """What a file holds of models that are not in the table."""
    former = pd.read_csv(file)
    return former[~former.model.isin(table.model)]


def refuse_former(topics: Iterable[str], folder: Path, overwrite: bool = False) -> None:
    """Refuse files that a measurement would replace and that no history holds: they are not of this benchmark."""
    for topic in topics:
        if not (folder / f"{topic}.jsonl").is_file():
            figure = [folder / "growth.png"] if topic == "growth" else []
            refuse_existing(folder / f"{topic}.csv", *figure, overwrite=overwrite)
