"""Folders of small pictures in the layouts of the official scripts."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from varlab.outputs import save_image

SIDE = 24


def pixels(i: int, noise: float = 0.0, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(i)
    smooth = np.roll(np.kron(rng.random((side // 4, side // 4, 3)), np.ones((4, 4, 1))), 1, (0, 1))
    return (255 * np.clip(smooth + noise * rng.normal(size=smooth.shape), 0, 1)).astype(np.uint8)


def draw(path: Path, i: int, noise: float = 0.0, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(i, noise, side)).save(path)


def geneval(
    root: Path, noise: float = 0.0, name: str = "{:04d}.png", n: int = 3, prompt: str = "a photo of {}"
) -> Path:
    for i in range(n):
        for k in range(2):
            draw(root / f"{i:05d}/samples" / name.format(k), 10 * i + k, noise)
        about = {"tag": "colors" if i else "counting", "prompt": f"a photo of {i}"}
        (root / f"{i:05d}/metadata.jsonl").write_text(json.dumps(about))
        Image.new("RGB", (9, 9)).save(root / f"{i:05d}/grid.png")  # beside the samples, as upstream has it
    return root


def dpg(root: Path, noise: float = 0.0) -> Path:
    for i, stem in enumerate(("partiprompts12", "007", "COCOval2014_000000000042")):
        draw(root / f"{stem}.png", i, noise)
    return root


def hps(root: Path, noise: float = 0.0) -> Path:
    for style in ("anime", "photo"):
        for i in range(2):
            draw(root / style / f"{i:05d}.jpg", i + 5 * (style == "anime"), noise)
    return root


def imagereward(root: Path, noise: float = 0.0) -> Path:
    for i in (3, 12):
        for k in range(2):
            draw(root / f"{i:06d}" / f"{i:06d}_{k}.jpg", i + k, noise)
    return root


def by_varlab(root: Path, noise: float = 0.0, **changed: object) -> Path:
    for i in range(3):
        facts = {"prompt": f"p{i}", "image": i, "seed": 4, "model": "m", "settings": {"cfg": 3}, **changed}
        save_image(root / f"m-seed4-{i:04d}-{noise}.png", Image.fromarray(pixels(i, noise)), facts)
    return root


def cut(path: Path) -> None:
    """Half a file, as a full disk or a broken copy leaves it."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
