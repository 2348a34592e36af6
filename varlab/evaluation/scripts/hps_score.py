"""HPSv2 cosines of images, written as a table. Needs torch, numpy, pillow and hpsv2 with its weights; no varlab.

    python hps_score.py IMAGES PROMPTS scores.csv --weights HPS_v2.1_compressed.pt --version v2.1

IMAGES holds a folder a style with 00000.jpg, 00001.jpg, ...; PROMPTS is a folder of STYLE.json, lists of texts. The
table has columns style, index, score (the cosine, not times 100); scores.json beside it says how it was made.
Scores depend on --antialias: torchvision up to 0.16 did not smooth while it resized tensors, from 0.17 on it does; and
on --precision: the official code runs in fp16 on CUDA.
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
from torch.nn import functional

SIDE = 224
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Network = Callable[[Tensor, Sequence[str]], Sequence[float]]  # [n, 3, 224, 224] and n texts -> n cosines


def tensor_of(picture: Image.Image, antialias: bool) -> Tensor:
    """What the network sees of a picture [3, 224, 224]: the longest side resized to 224, the rest black.

    As officially, one whose longest side is 224 already is neither resized nor padded, and one with an alpha channel
    keeps it, as a fourth that is not normalised.
    """
    pixels = np.asarray(picture if picture.mode == "RGBA" else picture.convert("RGB"))
    values = torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255
    height, width = values.shape[-2:]
    if max(height, width) != SIDE:
        scale = SIDE / float(max(height, width))
        size = (round(height * scale), round(width * scale))
        values = functional.interpolate(values[None], size, mode="bicubic", align_corners=False, antialias=antialias)[0]
        down, right = SIDE - size[0], SIDE - size[1]
        values = functional.pad(values, (right // 2, right - right // 2, down // 2, down - down // 2))
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    return torch.cat([(values[:3] - mean) / deviation, values[3:]])


def scores(
    images: Path, prompts: dict[str, list[str]], network: Network, antialias: bool, batch: int = 20
) -> Iterator[tuple[str, int, float]]:
    """Style, number and cosine of every image that is there."""
    for style, texts in prompts.items():
        places = [(i, images / style / f"{i:05d}.jpg") for i in range(len(texts))]
        there = [(i, place) for i, place in places if place.is_file()]
        for first in range(0, len(there), batch):
            part = there[first : first + batch]
            tensors = torch.stack([_checked(place, antialias) for _, place in part])
            found = network(tensors, [texts[i] for i, _ in part])
            yield from ((style, i, float(value)) for (i, _), value in zip(part, found, strict=True))


def _checked(place: Path, antialias: bool) -> Tensor:
    with Image.open(place) as picture:
        tensor = tensor_of(picture, antialias)
    if tensor.shape != (3, SIDE, SIDE):
        raise SystemExit(
            f"{place}: HPSv2 makes {tuple(tensor.shape)} of it, which its network does not take. Save it as RGB, with "
            f"a longest side other than {SIDE}."
        )
    return tensor


def read_prompts(place: Path) -> dict[str, list[str]]:
    """Texts by style."""
    if not (files := sorted(place.glob("*.json"))):
        raise SystemExit(f"{place} holds no STYLE.json. HPSv2 keeps its prompts so, in a folder benchmark.")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in files}


def write(place: Path, rows: Iterable[tuple[str, int, float]], facts: Mapping[str, object]) -> None:
    """The table and its facts."""
    with place.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("style", "index", "score"))
        table.writerows((style, i, repr(value)) for style, i, value in rows)
    place.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load(weights: str, device: str, precision: str) -> Network:
    """The network of the package hpsv2."""
    from hpsv2.src.open_clip import create_model_and_transforms, get_tokenizer

    model = create_model_and_transforms("ViT-H-14", "laion2B-s32B-b79K", precision="amp", device=device)[0]
    model.load_state_dict(torch.load(weights, map_location=device, weights_only=True)["state_dict"])
    model.eval()
    read = get_tokenizer("ViT-H-14")

    @torch.inference_mode()
    def network(tensors: Tensor, texts: Sequence[str]) -> Sequence[float]:
        with torch.autocast(device, torch.float16, enabled=precision == "fp16"):
            found = model(tensors.to(device), read(list(texts)).to(device))
        return [float(v) for v in (found["image_features"].float() * found["text_features"].float()).sum(1)]

    return network


def main(arguments: Sequence[str] | None = None, network: Network | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="HPS_v2.1_compressed.pt")
    parser.add_argument("--version", default="v2.1", help="of the weights; those of v2.0 give other scores")
    parser.add_argument("--antialias", choices=("yes", "no"), default="yes")
    parser.add_argument(
        "--precision", choices=("fp16", "fp32"), default="fp16" if torch.cuda.is_available() else "fp32"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    facts = {
        "benchmark": "hps", "version": given.version, "weights": Path(given.weights).name,
        "antialias": given.antialias == "yes", "precision": given.precision, "formats": [".jpg"],
        "torch": torch.__version__,
    }  # fmt: skip
    chosen = network or load(given.weights, given.device, given.precision)
    write(given.out, scores(given.images, read_prompts(given.prompts), chosen, given.antialias == "yes"), facts)


if __name__ == "__main__":
    main()
