"""GenEval's detections, written a line an image. Needs torch, numpy, pillow, mmdet 2.x and open_clip; no varlab.

    python geneval_detect.py IMAGES detections.jsonl --config mask2former_swin-s...py --checkpoint ....pth

IMAGES holds 00000/metadata.jsonl and 00000/samples/0000.png, ... Of every image the detections with a score of at least
--floor are kept, and the colours that CLIP sees in those that a colour is asked of; thresholds are left to the scorer.
The first line says how the file was made. --transformers takes Mask2Former and CLIP of that library in place of mmdet
and open_clip: other code and converted weights, which the file says.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
BACKGROUND = "#999"
RENAMED = {  # COCO's names that GenEval calls otherwise
    "mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard",
}  # fmt: skip

Seen = dict[str, tuple[np.ndarray, np.ndarray | None]]  # class -> boxes [n, 5] with scores, masks [n, H, W]
Detector = Callable[[Path], Seen]


class Clip(NamedTuple):
    """Features [n, d] of pictures and of texts."""

    images: Callable[[Sequence[Image.Image]], torch.Tensor]
    texts: Callable[[Sequence[str]], torch.Tensor]


def crop_of(
    picture: Image.Image, box: Sequence[float], mask: np.ndarray | None, background: str = BACKGROUND, crop: bool = True
) -> Image.Image:
    """The picture that CLIP is shown of an object: its box, whatever the mask leaves out painted over.

    Edges are rounded to whole pixels, halves to even; outside the picture it is black. ``original`` as background
    paints nothing over.
    """
    whole = picture.convert("RGB")
    if mask is not None and background != "original":
        flat = Image.new("RGB", whole.size, background)
        whole = Image.composite(whole, flat, Image.fromarray(mask.astype(np.uint8) * 255))
    return whole.crop(tuple(round(float(edge)) for edge in box[:4])) if crop else whole  # type: ignore[arg-type]


def colours_of(clip: Clip, crops: Sequence[Image.Image], name: str) -> list[str | None]:
    """The colour that each crop of an object is nearest to, by the mean of three sentences; none of an empty crop."""
    if not (whole := [crop for crop in crops if min(crop.size) > 0]):
        return [None] * len(crops)
    texts = [template.format(colour=colour, name=name) for colour in COLOURS for template in TEMPLATES]
    known = torch.nn.functional.normalize(clip.texts(texts).float(), dim=-1)
    known = torch.nn.functional.normalize(known.reshape(len(COLOURS), len(TEMPLATES), -1).mean(1), dim=-1)
    seen = torch.nn.functional.normalize(clip.images(whole).float(), dim=-1)
    best = iter((seen @ known.T).argmax(1).tolist())
    return [COLOURS[next(best)] if min(crop.size) > 0 else None for crop in crops]


def pictures(images: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every picture and the metadata of its folder."""
    for folder in sorted(place for place in images.iterdir() if place.is_dir() and place.name.isdigit()):
        about = json.loads((folder / "metadata.jsonl").read_text("utf-8"))
        for place in sorted((folder / "samples").iterdir()):
            if re.fullmatch(r"\d+\.(png|jpe?g)", place.name):
                yield place, about


def formats(images: Path) -> list[str]:
    """The kinds of picture files, which scores feel."""
    kinds = {place.suffix.lower() for place in images.rglob("*") if place.is_file()}
    return sorted(kinds & {".png", ".jpg", ".jpeg", ".webp"})


def line_of(
    place: Path, about: dict[str, Any], detector: Detector, clip: Clip, floor: float, options: dict[str, Any]
) -> dict[str, Any]:
    """What is written of a picture."""
    asked = {clause["class"] for clause in about.get("include", []) if "color" in clause}
    boxes: dict[str, list[list[float]]] = {}
    colours: dict[str, list[str | None]] = {}
    with Image.open(place) as picture:
        for name, (rows, masks) in detector(place).items():
            kept = [i for i in range(len(rows)) if rows[i, 4] >= floor]
            if kept:
                boxes[name] = rows[kept].astype(np.float32).tolist()
            if kept and name in asked:
                crops = [crop_of(picture, rows[i], None if masks is None else masks[i], **options) for i in kept]
                colours[name] = colours_of(clip, crops, name)
    return {"metadata": about, "detections": boxes, "colours": colours}


def with_mmdet(config: str, checkpoint: str, device: str) -> Detector:
    """The official detector: Mask2Former Swin-S of mmdet 2.x."""
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(config, checkpoint, device=device)

    def detect(place: Path) -> Seen:
        found = inference_detector(model, str(place))
        boxes, masks = found if isinstance(found, tuple) else (found, [None] * len(found))
        return {
            RENAMED.get(name, name): (rows, None if own is None or not len(own) else np.stack(own))
            for name, rows, own in zip(model.CLASSES, boxes, masks, strict=True)
        }

    return detect


def with_open_clip(device: str, precision: str) -> Clip:
    """ViT-L/14 of OpenAI, under fp16 autocast on CUDA as officially."""
    import open_clip

    model, _, prepare = open_clip.create_model_and_transforms("ViT-L-14", "openai", device=device)
    read = open_clip.get_tokenizer("ViT-L-14")

    @torch.inference_mode()
    def images(crops: Sequence[Image.Image]) -> torch.Tensor:
        with torch.autocast(device, torch.float16, enabled=precision == "fp16"):
            return model.encode_image(torch.stack([prepare(crop) for crop in crops]).to(device))

    @torch.inference_mode()
    def texts(sentences: Sequence[str]) -> torch.Tensor:
        with torch.autocast(device, torch.float16, enabled=precision == "fp16"):
            return model.encode_text(read(list(sentences)).to(device))

    return Clip(images, texts)


def resized(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Masks [q, h, w] at another size."""
    return torch.nn.functional.interpolate(masks[None], tuple(size), mode="bilinear", align_corners=False)[0]


def instances(logits: torch.Tensor, masks: torch.Tensor, size: tuple[int, int], names: dict[int, str]) -> Seen:
    """Objects of Mask2Former's output as mmdet gives them: logits [q, classes + 1], masks [q, h, w] of one image.

    The 100 best pairs of query and class; a score is that of the class times the mean of its mask.
    """
    chances = logits.softmax(-1)[:, :-1]
    best, place = chances.flatten().topk(min(100, chances.numel()))
    large = resized(masks, size)
    found: dict[str, tuple[list[list[float]], list[np.ndarray]]] = {}
    for chance, where in zip(best.tolist(), place.tolist(), strict=True):
        query, kind = divmod(where, chances.shape[1])
        inside = large[query] > 0
        ys, xs = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        if not len(ys):
            continue
        sure = float(large[query].sigmoid()[inside].mean())
        box = [float(xs[0]), float(ys[0]), float(xs[-1]) + 1, float(ys[-1]) + 1, chance * sure]
        name = RENAMED.get(names[kind], names[kind])
        boxes, own = found.setdefault(name, ([], []))
        boxes.append(box)
        own.append(inside.numpy())
    return {name: (np.array(boxes, dtype=np.float32), np.stack(own)) for name, (boxes, own) in found.items()}


def with_transformers(detector: str, clip: str, device: str) -> tuple[Detector, Clip]:
    """Mask2Former and CLIP of transformers, by the names of their files there."""
    import transformers as hub

    prepare, reader = hub.AutoImageProcessor.from_pretrained(detector), hub.CLIPProcessor.from_pretrained(clip)
    model: Any = hub.Mask2FormerForUniversalSegmentation.from_pretrained(detector)
    encoder: Any = hub.CLIPModel.from_pretrained(clip)
    model.to(device).eval()
    encoder.to(device).eval()

    @torch.inference_mode()
    def detect(place: Path) -> Seen:
        with Image.open(place) as picture:
            whole = picture.convert("RGB")
        given = prepare(images=[whole], return_tensors="pt").to(device)
        out = model(**given)
        masks = resized(out.masks_queries_logits[0].float().cpu(), given["pixel_values"].shape[-2:])
        inside = given["pixel_mask"][0].cpu()  # the rest is padding
        masks = masks[:, : int(inside.any(1).sum()), : int(inside.any(0).sum())]
        return instances(out.class_queries_logits[0].float().cpu(), masks, whole.size[::-1], model.config.id2label)

    @torch.inference_mode()
    def images(crops: Sequence[Image.Image]) -> torch.Tensor:
        return pooled(encoder.get_image_features(**reader(images=list(crops), return_tensors="pt").to(device))).cpu()

    @torch.inference_mode()
    def texts(sentences: Sequence[str]) -> torch.Tensor:
        words = reader(text=list(sentences), padding=True, return_tensors="pt").to(device)
        return pooled(encoder.get_text_features(**words)).cpu()

    def pooled(found: Any) -> torch.Tensor:
        """The features: from transformers 5 on they come with others."""
        return found if isinstance(found, torch.Tensor) else found.pooler_output

    return detect, Clip(images, texts)


def main(arguments: Sequence[str] | None = None, detector: Detector | None = None, clip: Clip | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py")
    parser.add_argument("--checkpoint", default="mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth")
    parser.add_argument("--transformers", action="store_true", help="Mask2Former and CLIP of transformers instead")
    parser.add_argument("--floor", type=float, default=0.25)
    parser.add_argument("--background", default=BACKGROUND)
    parser.add_argument("--crop", choices=("1", "0"), default="1")
    parser.add_argument(
        "--precision", choices=("fp16", "fp32"), default="fp16" if torch.cuda.is_available() else "fp32"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    kind = "given" if detector else "transformers" if given.transformers else "mmdet"
    facts = {
        "benchmark": "geneval", "version": "2023", "kind": "header", "detector": kind, "floor": given.floor,
        "background": given.background, "crop": given.crop,
        "formats": formats(given.images), "precision": given.precision, "torch": torch.__version__,
    }  # fmt: skip
    if given.transformers and detector is None:
        detector, clip = with_transformers(
            "facebook/mask2former-swin-small-coco-instance", "openai/clip-vit-large-patch14", given.device
        )
    seen = detector or with_mmdet(given.config, given.checkpoint, given.device)
    known = clip or with_open_clip(given.device, given.precision)
    options = {"background": given.background, "crop": given.crop == "1"}
    with given.out.open("w", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")
        for place, about in pictures(given.images):
            line = {"filename": place.relative_to(given.images).as_posix()}
            line |= line_of(place, about, seen, known, given.floor, options)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
