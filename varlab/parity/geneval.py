"""Golden verdicts of GenEval on canned detections, and the crops that its colour network sees."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from varlab.evaluation import geneval
from varlab.evaluation.scripts import geneval_detect
from varlab.parity.comparison import Comparison, held_to

Case = Mapping[str, Any]
OWN = ("kind", "id", "note", "prompt_index", "image_index", "raw", "raw_colours", "options", "entry", "metadata",
       "in_summary", "position_margin", "score_tie", "order_of_ties_matters")  # fmt: skip


@held_to()
def compare(comparison: Comparison) -> None:
    """Every field of every case, the summary, and which file names are read."""
    lines = comparison.golden.require("lines")
    cases = [line for line in lines if line.get("kind") == "case"]
    wrong: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for case in cases:
        found = _judged(case)
        for name, value in found.items():
            if name in case:
                counts[name] += 1
                if value != case[name]:
                    wrong[name].append(str(case.get("id", counts[name])))
    for name in counts:
        comparison.verify_all(name, wrong[name])
    _compare_header(comparison)
    for line in lines:
        if line.get("kind") == "summary":
            _compare_summary(comparison, line, [case for case in cases if case.get("in_summary")])
    comparison.note(f"{len(cases)} cases")
    strange = sorted({name for case in cases for name in case} - counts.keys() - set(OWN))
    if strange:
        comparison.note(f"NOT COMPARED, no check knows them: {', '.join(strange)}")
    comparison.note("of the golden's own making, and no output: position_margin, score_tie, order_of_ties_matters")


def _judged(case: Case) -> dict[str, Any]:
    """The fields of a case as they come out here."""
    options, about = geneval.Options.read(case.get("options", {})), case["metadata"]
    kept: dict[str, list[int]] | None = None
    if case.get("entry") == "evaluate":
        objects = {name: geneval.as_rows(rows) for name, rows in case["details"].items()}
        colours = case["raw_colours"]
    else:
        raw = {name: geneval.as_rows(rows) for name, rows in case["raw"].items()}
        threshold = options.threshold_of(about["tag"])
        kept = {name: own for name, rows in raw.items() if (own := geneval.selected(rows, threshold, options))}
        objects = {name: raw[name][own] for name, own in kept.items()}
        colours = {name: [case["raw_colours"][name][i] for i in own] for name, own in kept.items()}
    try:
        verdict = geneval.judge(about, objects, colours, options)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        nothing = dict.fromkeys(("kept", "details", "correct", "reason_lines"))
        return nothing | {"error": type(error).__name__, "colour_calls": case.get("colour_calls")}
    return {
        "kept": kept,
        "details": {name: rows.tolist() for name, rows in objects.items()},
        "colour_calls": [[name, list(labels)] for name, labels in verdict.asked],
        "correct": verdict.correct,
        "reason_lines": sorted(set(verdict.reasons)),
        "error": None,
    }


def _compare_header(comparison: Comparison) -> None:
    config = comparison.golden.config
    stated = {
        "defaults": vars(geneval.Options()),
        "colours": list(geneval.COLOURS),
        "colour_templates": [t.format(colour="{c}", name="CLASS") for t in geneval_detect.TEMPLATES],
    }
    for name, value in stated.items():
        if name in config:
            comparison.verify(name, config[name] == value, "" if config[name] == value else "differs")
    names = config.get("file_filter", [])
    wrong = [
        entry["path"]
        for entry in names
        if bool(re.match(geneval.OFFICIAL_NAME, entry["path"].rpartition("/")[2])
                and entry["path"].startswith("samples/")) != entry["read_by_official"]
    ]  # fmt: skip
    if names:
        comparison.verify_all("file_filter", wrong)


def _compare_summary(comparison: Comparison, expected: Case, cases: list[Case]) -> None:
    near = comparison.golden.stated("summary")
    summary = geneval.summarise(
        [case["correct"] for case in cases], [case["metadata"]["tag"] for case in cases],
        [repr(case["metadata"]) for case in cases],
    )  # fmt: skip
    numbers = {
        "total_images": summary.images, "total_prompts": summary.prompts, "correct_images": summary.correct_images,
        "correct_prompts": summary.correct_prompts, "overall": summary.overall,
    }  # fmt: skip
    for name, value in numbers.items():
        comparison.within(f"summary_{name}", value, expected[name], near)
    for tag, stated in expected["per_tag"].items():
        right, total = summary.tags.get(tag, (0, 0))
        rate = summary.rates.get(tag, np.nan)
        comparison.within(
            f"summary_{tag}", [right, total, rate], [stated["correct"], stated["total"], stated["mean"]], near
        )
    wrong = sorted(set(summary.lines) ^ set(expected.get("printed_lines_sorted", summary.lines)))
    comparison.verify_all("summary_printed_lines", wrong)


@held_to(given="mask", stated="*")
def compare_crops(comparison: Comparison) -> None:
    """The picture of each object that goes to the colour network."""
    golden = comparison.golden
    mask = golden.array("mask")
    for case in golden.require("cases"):
        comparison.known(case["image"])
        name, crop = f"crop_{case['n']}", _crop(golden.array(case["image"]), mask, case)
        if isinstance(crop, str) or case.get("error"):
            comparison.verify(f"error_{case['n']}", crop == str(case["error"]).partition(":")[0], str(crop))
            continue
        comparison.verify(f"size_{case['n']}", list(crop.size) == case["size_wh"], f"{crop.size}")
        comparison.hold({name: np.asarray(crop).reshape(crop.size[1], crop.size[0], 3)})


def _crop(pixels: np.ndarray, mask: np.ndarray, case: Case) -> Image.Image | str:
    """The crop of a case, or the kind of error that it ends with."""
    options = case.get("options", {})
    background, whole = options.get("bgcolor", geneval_detect.BACKGROUND), options.get("crop", "1") != "1"
    try:
        return geneval_detect.crop_of(
            Image.fromarray(pixels), case["box"], mask if case["mask"] else None, background, not whole
        )
    except ValueError as error:
        return type(error).__name__
