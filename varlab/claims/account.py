"""A report's account of itself: what was run, the verdicts, and what these numbers cannot say."""

from collections.abc import Sequence

from varlab.analysis.logs import Log, as_log, grids, prompt_count, provenance
from varlab.claims.verdict import Verdict
from varlab.markup import as_markdown, count
from varlab.measures.statistics import FEWEST
from varlab.weight_labels import NAMED, OFFICIAL, RANDOM, WeightsLabel

PAPERS, OTHERS = {"var": "FreqExit looks at 16 x 16"}, "SparseVAR and SkipVAR look at 64 x 64"  # by family of models


def account(log: Log, verdicts: Sequence[Verdict]) -> str:
    """Markdown: what is seen, on which weights and prompts, with the verdicts and the limits."""
    known = {name: as_markdown(fact) for name, fact in provenance(log).items()}
    head = (
        f"**What is seen here.** {known['model']}, weights: **{known['weights']}**; n = "
        f"{count(prompt_count(log), 'prompt')} of *{known['prompt_set']}*, seed {known['seed']}, cfg {known['cfg']}, "
        f"{known['precision']} on {known['device']}. Numbers are means over prompts with 95 % bootstrap intervals (low "
        "to high). Stages and blocks count from 1; the option block= of a method counts from 0."
    )
    rows = [" | ".join(map(as_markdown, (v.claim, v.text, v.outcome))) for v in verdicts]
    table = ["| claim | finding | verdict |", "|---|---|---|", *(f"| {row} |" for row in rows)]
    points = [f"* {as_markdown(limit)}" for limit in limits(log)]
    return "\n".join([head, "", *table, "", "**Limits.**", "", *points])


def facts(log: Log) -> dict[str, object]:
    """Of the log, for ``varlab.reports.record``: model, weights, n, seed, device, dtype."""
    known = provenance(log)
    names = {name: known[name] for name in ("model", "weights", "device")}
    return {**names, "n": prompt_count(log), "seed": as_log(log).attrs.get("seed"), "dtype": known["precision"]}


def weight_limits(weights: WeightsLabel) -> list[str]:
    """What a model's weights leave open."""
    found = []
    if weights.kind == RANDOM:
        found.append(
            "The weights are random: what is seen is what schedule, tokenizer and sampler do by themselves; nothing "
            "of it was learnt."
        )
    elif weights.partly_random:
        found.append(f"A part of the model is random ({weights}): its pictures do not follow the prompts.")
    if weights.kind == NAMED:
        found.append(
            "The files are named as the official checkpoints, but their content was not verified: another training "
            "or a damaged copy would have the same name."
        )
    elif weights.kind != OFFICIAL:
        found.append("These are not the official checkpoints, and no claim about those is made.")
    return found + [f"Doubt about the weights: {doubt}." for doubt in weights.doubts]


def limits(log: Log) -> list[str]:
    """What these numbers cannot say."""
    known, sides = provenance(log), grids(log)
    found = weight_limits(WeightsLabel(known["weights"]))
    size = f"{sides[-1][0]} x {sides[-1][1]} latents in {len(sides)} stages" if sides else "a schedule not recorded"
    found.append(f"One resolution, {size}; {PAPERS.get(str(as_log(log).attrs.get('family')), OTHERS)}.")
    if known["preview"] != "none":
        found[-1] += f" Previews are {known['preview']}."
    if sides and max(sides[-1]) <= 16:
        found.append("A token covers so much of the picture that edges and small objects can hardly be told apart.")
    if known["model"].startswith("nano"):
        found.append(
            "The small tokenizer keeps shapes and colours and loses texture: the high frequencies of these pictures "
            "are outlines."
        )
    if int(known["n"]) < FEWEST:
        found.append(f"With n = {known['n']} there is no 95 % interval worth the name; {FEWEST} is the least.")
    return found
