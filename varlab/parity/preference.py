"""Golden inputs and means of HPSv2 and ImageReward: what their networks see, ImageReward's head, what is reported."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from varlab.evaluation import hps, imagereward
from varlab.evaluation.scripts import hps_score, imagereward_score
from varlab.parity.comparison import Comparison, held_to
from varlab.parity.golden import Golden
from varlab.parity.weights import normal

Case = Mapping[str, Any]
ROWS, BLOCK = [0, 1, 34, 35, 111, 222, 223], slice(96, 128)  # of a tensor that is stored in parts


@held_to(given="*_image agg_scores", stated="*")
def compare_hps(comparison: Comparison) -> None:
    """Tensors without and with antialiasing, and the means of styles."""
    golden = comparison.golden
    for image in golden.config.get("images", ()):
        picture = Image.fromarray(golden.array(f"{image['name']}_image"))
        for way in ("noaa", "aa"):
            _compare_tensor(comparison, way, hps_score.tensor_of(picture, way == "aa"), image)
    if golden.stored("agg_scores"):
        for number, run in enumerate(golden.require("aggregation")):
            _compare_styles(comparison, run.get("name", str(number)), run)
        if golden.config.get("aggregation_empty_style") == "no error":
            comparison.verify("a style without images", bool(np.isnan(hps.style([]).score)))


def _compare_tensor(comparison: Comparison, way: str, tensor: Tensor, image: Case) -> None:
    golden, name = comparison.golden, f"{image['name']}_{way}"
    comparison.verify(f"shape [{name}]", list(tensor.shape) == image["tensor_shape"], str(tuple(tensor.shape)))
    parts = {
        name: tensor if image["stored"] == "full" else tensor[:, ::4, ::4],
        f"{name}_rows": tensor[:, [row for row in ROWS if row < tensor.shape[1]]],
        f"{name}_block": tensor[:, BLOCK, BLOCK],
    }
    comparison.hold(parts)
    sums, ends = tensor.double().sum((1, 2)), [float(tensor.min()), float(tensor.max())]
    for fact, values, tolerance in (("sum_per_channel", sums, "sum_per_channel"), ("min_max", ends, name)):
        if f"{fact}_{way}" in image:
            comparison.within(f"{fact} [{name}]", values, image[f"{fact}_{way}"], golden.stated(tolerance))


def _compare_styles(comparison: Comparison, name: str, run: Case) -> None:
    """One aggregation; one whose images are not stored has them all."""
    golden = comparison.golden
    scores, near = golden.arrays["agg_scores"].astype(np.float64), golden.stated("aggregation")
    there = _present(comparison, name, np.ones_like(scores))
    rows = zip(golden.require("aggregation_styles"), scores, there, strict=True)
    held = {style: np.where(own, row, np.nan) for style, row, own in rows}
    printed = {}
    for style, expected in run["styles"].items():
        found = hps.style([None if np.isnan(v) else float(v) for v in held[style]])
        label = f"[{name}, {style}]"
        comparison.within(f"chunk_sizes {label}", found.sizes, expected["chunk_sizes"])
        comparison.within(f"images {label}", sum(found.sizes), expected["images"])
        comparison.within(f"chunk_means {label}", found.chunks, expected["chunk_means"], near)
        comparison.within(f"score_and_spread {label}", found[:2], [expected["score"], expected["spread"]], near)
        printed[style] = [f"{found.score:.2f}", f"{found.spread:.4f}"]
    average = hps.average({style: held[style] for style in run["styles"]})
    comparison.within(f"average [{name}]", average, run["average"], near)
    printed["Average"] = [f"{average:.2f}"]
    wrong = [style for style, text in run.get("printed", printed).items() if printed.get(style) != text]
    comparison.verify_all(f"printed [{name}]", wrong)
    missing = sum(int(np.isnan(held[style]).sum()) for style in run["styles"])
    comparison.within(f"missing [{name}]", missing, run.get("missing_messages", missing))


def _present(comparison: Comparison, name: str, usual: np.ndarray) -> np.ndarray:
    """Which images exist in a run: stored under its name, or that of the run which it repeats in another order."""
    stored = [found[0] for found in comparison.golden.matching(r"agg_present_.+")]
    for known in sorted(stored, key=len, reverse=True):
        if name.startswith(known.removeprefix("agg_present_")):
            comparison.known(known)
            return comparison.golden.arrays[known]
    return usual


@held_to(given="*_image *_palette_rgb head_features head_reward_if_it_had_relu_NOT_official", stated="*")
def compare_imagereward(comparison: Comparison) -> None:
    """Crops and tensors, the reward head, the official calls, and both means."""
    golden = comparison.golden
    for image in golden.config.get("images", ()):
        _compare_image(comparison, image)
    if golden.stored("head_features"):
        _compare_head(comparison)
    for run in golden.config.get("aggregation", ()):
        _compare_upstream(comparison, run)
        _compare_infinity(comparison, run)
    _compare_missing(comparison, golden.config.get("missing_files", {}))


def _compare_image(comparison: Comparison, image: Case) -> None:
    golden, name = comparison.golden, image["name"]
    pixels = golden.array(f"{name}_image")
    picture = Image.frombytes(image["mode"], pixels.shape[1::-1], pixels.tobytes())
    if image["mode"] == "P":
        picture.putpalette(golden.array(f"{name}_palette_rgb").astype(np.uint8).tobytes())
    crop = np.moveaxis(np.asarray(imagereward_score.crop_of(picture)), -1, 0)
    tensor = imagereward_score.tensor_of(picture)
    comparison.hold({f"{name}_crop_u8": crop, f"{name}_t_sub": tensor[:, ::7, ::7]})
    if "sum_per_channel" in image:
        # Each pixel within its own allowance: that of whole levels only where Pillow is another.
        level = golden.stated(f"{name}_crop_u8") / 255 / min(imagereward_score.DEVIATION)
        equal = np.array_equal(crop, golden.arrays.get(f"{name}_crop_u8", crop))
        allowed = tensor[0].numel() * (golden.stated(f"{name}_t_sub") + (0.0 if equal else level))
        sums = tensor.double().sum((1, 2))
        comparison.within(f"sum_per_channel [{name}]", sums, image["sum_per_channel"], allowed)


def _compare_head(comparison: Comparison) -> None:
    """The head is linear; its weights come from their names."""
    golden = comparison.golden
    single = golden.stated("head_*", "float32")
    exact = max(golden.stated("head_*", "float64"), 1e-7 * single)
    features = torch.from_numpy(golden.array("head_features"))
    raw, raw64 = _head(golden, features.float()), _head(golden, features.double())
    mean, deviation = golden.require("reward_mean"), golden.require("reward_std")
    comparison.verify("constants", (mean, deviation) == (imagereward.MEAN, imagereward.DEVIATION))
    reward, reward64 = ((values - imagereward.MEAN) / imagereward.DEVIATION for values in (raw, raw64))
    base = _head(golden, torch.zeros(1, features.shape[1], dtype=torch.float64))
    slope = _head(golden, torch.eye(features.shape[1], dtype=torch.float64)) - base
    comparison.near("head_raw", raw, single)
    comparison.near("head_reward", reward, single)
    comparison.near("head_reward_float64", reward64, exact)
    comparison.near("head_collapsed_bias", base[0], exact)
    comparison.near("head_collapsed_weight", slope[:, 0], exact)
    _compare_calls(comparison, reward[:, 0].tolist(), single)


def _head(golden: Golden, values: Tensor) -> Tensor:
    params, seed = golden.require("head_weights")["params"], golden.require("seed")
    for layer in sorted({int(name.split(".")[1]) for name in params}):
        own = {}
        for part in ("weight", "bias"):
            key = f"layers.{layer}.{part}"
            shape = tuple(params[key][0])
            factor = 0.05 if part == "bias" else 1 / np.sqrt(np.prod(shape[1:]))
            drawn = (factor * normal(f"imagereward.{key}", seed, shape)).astype(np.float32)
            own[part] = torch.from_numpy(drawn).to(values.dtype)
        values = values @ own["weight"].T + own["bias"]
    return values


def _compare_calls(comparison: Comparison, rewards: list[float], near: float) -> None:
    """What ``score`` and ``inference_rank`` return; of equal rewards either rank will do."""
    for number, call in enumerate(comparison.golden.config.get("calls", ())):
        ours, returned = [rewards[i] for i in call["features"]], call["returns"]
        if call["call"].startswith("inference_rank"):
            ranks, returned = returned
            place = sorted(range(len(ranks)), key=ranks.__getitem__)
            fall = [ours[a] >= ours[b] for a, b in pairwise(place)]
            comparison.verify(f"call_{number}_ranks", sorted(ranks) == list(range(1, len(ours) + 1)) and all(fall))
        one = not isinstance(returned, list)
        comparison.within(f"call_{number}", ours[0] if one else ours, returned, near)


def _compare_upstream(comparison: Comparison, run: Case) -> None:
    name, near = run["name"], comparison.golden.stated("aggregation")
    found, expected = imagereward.upstream(run["rewards"]), run["upstream"]
    if "error" in expected or found.error:
        ours = (found.error or "").partition(":")[0]
        comparison.verify(f"upstream_error [{name}]", ours == expected.get("error", "").partition(":")[0], ours)
        return
    comparison.within(f"upstream [{name}]", found.score, expected["score"], near)
    comparison.within(f"per_prompt [{name}]", found.prompts, expected["per_prompt"], near)
    asked = [found.asked] * len(found.prompts)
    comparison.within(f"asked [{name}]", asked, expected["images_asked_per_prompt"])
    comparison.within(f"short [{name}]", found.short, expected["prompts_with_missing_images"])
    same = f"{found.score:.4f}" == expected.get("printed", f"{found.score:.4f}")
    comparison.verify(f"printed [{name}]", same, "" if same else f"{found.score:.4f}")


def _compare_infinity(comparison: Comparison, run: Case) -> None:
    name, near = run["name"], comparison.golden.stated("aggregation")
    flat, expected = imagereward.infinity(run["rewards"]), run["infinity"]
    if "error" in expected or flat.error:
        comparison.verify(f"infinity_error [{name}]", flat.error == expected.get("error"), str(flat.error))
        return
    comparison.within(f"infinity [{name}]", flat.score, expected["average_image_reward"], near)
    images = sum(map(len, run["rewards"]))
    comparison.within(f"counts [{name}]", [len(run["rewards"]), images], [expected["prompts"], expected["images"]])


def _compare_missing(comparison: Comparison, stated: Case) -> None:
    """What the official list scorer does without a file."""
    cases: dict[str, list[float | None]] = {"first_missing": [None, 1.0], "empty_list": []}
    for name, rewards in cases.items():
        if name in stated:
            comparison.verify(f"missing_{name}", _error(rewards) == stated[name], _error(rewards))
    if "second_missing_is_scored_as_the_one_before" in stated:
        as_before = imagereward.listed([1.0, None]) == [1.0, 1.0]
        comparison.verify("missing_second", as_before == stated["second_missing_is_scored_as_the_one_before"])


def _error(rewards: list[float | None]) -> str:
    try:
        imagereward.listed(rewards)
    except (UnboundLocalError, ValueError) as error:
        return type(error).__name__
    return ""
