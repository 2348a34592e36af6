"""ImageReward of images, written as a table. Needs torch, numpy, pillow and image-reward with its weights; no varlab.

    python imagereward_score.py IMAGES benchmark-prompts.json scores.csv

IMAGES holds {id}_{k}.png, as the ImageReward repository names them, or {id}/{id}_{k}.jpg, as Infinity's script does.
The table has columns id, index, score; a missing image has no row. scores.json beside it says how it was made.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE, TOKENS = 224, 35
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
REWARD_MEAN, REWARD_DEVIATION = 0.16717362830052426, 1.0333394966054072

Network = Callable[[Tensor, str], Sequence[float]]  # [n, 3, 224, 224] and their prompt -> n raw rewards


def crop_of(picture: Image.Image) -> Image.Image:
    """The middle 224 x 224 of a picture whose shorter side is resized to 224; only then it becomes RGB.

    So a palette's picture is resized without smoothing, and transparent parts weigh as they did.
    """
    width, height = picture.size
    short = min(width, height)
    if short != SIDE:
        longer = int(SIDE * max(width, height) / short)
        width, height = (SIDE, longer) if width <= height else (longer, SIDE)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return picture.crop((left, top, left + SIDE, top + SIDE)).convert("RGB")


def tensor_of(picture: Image.Image) -> Tensor:
    """What the network sees of a picture [3, 224, 224]."""
    values = torch.from_numpy(np.asarray(crop_of(picture)).copy()).movedim(-1, 0).float() / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    return (values - mean) / deviation


def images_of(folder: Path, identity: str) -> dict[int, Path]:
    """The images of a prompt by number."""
    found = {}
    for place in (*folder.glob(f"{identity}_*.*"), *(folder / identity).glob(f"{identity}_*.*")):
        number = place.stem.removeprefix(f"{identity}_")
        if number.isdigit() and place.suffix.lower() in (".png", ".jpg", ".jpeg"):
            found[int(number)] = place
    return dict(sorted(found.items()))


def scores(images: Path, prompts: Sequence[dict[str, str]], network: Network) -> Iterator[tuple[str, int, float]]:
    """Prompt, number and reward of every image that is there."""
    for item in prompts:
        there = images_of(images, str(item["id"]))
        if not there:
            continue
        tensors = []
        for place in there.values():
            with Image.open(place) as picture:
                tensors.append(tensor_of(picture))
        found = network(torch.stack(tensors), item["prompt"])
        for number, raw in zip(there, found, strict=True):
            yield str(item["id"]), number, (float(raw) - REWARD_MEAN) / REWARD_DEVIATION


def formats(images: Path) -> list[str]:
    """The kinds of picture files, which scores feel."""
    kinds = {place.suffix.lower() for place in images.rglob("*") if place.is_file()}
    return sorted(kinds & {".png", ".jpg", ".jpeg", ".webp"})


def write(place: Path, rows: Iterable[tuple[str, int, float]], facts: Mapping[str, object]) -> None:
    """The table and its facts."""
    with place.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("id", "index", "score"))
        table.writerows((name, i, repr(value)) for name, i, value in rows)
    place.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load(weights: str, device: str) -> Network:
    """The network of the package image-reward."""
    import ImageReward

    model = ImageReward.load(weights, device=device)

    @torch.inference_mode()
    def network(tensors: Tensor, prompt: str) -> Sequence[float]:
        words = model.blip.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(device)
        rewards = []
        for tensor in tensors:  # one at a time, as officially
            seen = model.blip.visual_encoder(tensor[None].to(device))
            whole = torch.ones(seen.shape[:-1], dtype=torch.long, device=device)
            read = model.blip.text_encoder(
                words.input_ids, attention_mask=words.attention_mask, encoder_hidden_states=seen,
                encoder_attention_mask=whole, return_dict=True,
            )  # fmt: skip
            rewards.append(float(model.mlp(read.last_hidden_state[:, 0].float())))
        return rewards

    return network


def main(arguments: Sequence[str] | None = None, network: Network | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="ImageReward-v1.0")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    facts = {
        "benchmark": "imagereward", "version": "v1.0", "weights": Path(given.weights).name, "precision": "fp32",
        "formats": formats(given.images), "torch": torch.__version__,
    }  # fmt: skip
    prompts = json.loads(given.prompts.read_text("utf-8"))
    write(given.out, scores(given.images, prompts, network or load(given.weights, given.device)), facts)


if __name__ == "__main__":
    main()
