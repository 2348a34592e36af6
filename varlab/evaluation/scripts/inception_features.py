"""Inception's features of images, written as npz. Needs torch, numpy, pillow and torch-fidelity; no varlab.

    python inception_features.py SAMPLES features.npz

SAMPLES is a folder of pictures, with those of folders in it, or an npz with arr_0, uint8 [n, H, W, 3]. The file holds
features [n, 2048], logits [n, 1008], spatial [n, 2023], names [n] and facts, how it was made.
Logits are without their bias, as in the ADM evaluator, which runs the TensorFlow graph; the weights are the same as
torch-fidelity converted them, so that numbers differ a little. Spatial features, for sFID, are its `mixed_6/conv`: the
first 7 channels after the 1 x 1 branch of the third of the four blocks with 17 x 17 positions.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

KINDS = ("features", "logits", "spatial")
CHANNELS = 7  # of the spatial features
Network = Callable[[Tensor], tuple[Tensor, ...]]  # uint8 [n, 3, H, W] -> one [n, d] for each of KINDS


def samples(place: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels [H, W, 3] of each sample."""
    if place.is_dir():
        for path in sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS):
            with Image.open(path) as picture:
                yield path.relative_to(place).as_posix(), np.asarray(picture.convert("RGB"))
        return
    with np.load(place) as file:
        for i, pixels in enumerate(file["arr_0"]):
            yield str(i), pixels


def features(place: Path, network: Network, batch: int = 50) -> dict[str, np.ndarray]:
    """The arrays of the file; pictures of one size go through the network together."""
    names: list[str] = []
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    held: list[np.ndarray] = []

    def flush() -> None:
        if held:
            for kind, values in zip(KINDS, network(torch.from_numpy(np.stack(held)).movedim(-1, 1)), strict=True):
                found[kind].append(values.float().cpu().numpy())
            held.clear()

    for name, pixels in samples(place):
        if len(held) == batch or (held and held[0].shape != pixels.shape):
            flush()
        names.append(name)
        held.append(pixels)
    flush()
    if not names:
        raise SystemExit(f"{place} holds no pictures.")
    return {kind: np.concatenate(parts) for kind, parts in found.items()} | {"names": np.array(names)}


def load(device: str) -> Network:
    """InceptionV3 of torch-fidelity."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"]).to(device).eval()
    branch: list[Tensor] = []
    model.Mixed_6d.branch1x1.register_forward_hook(lambda module, given, output: branch.append(output))

    @torch.inference_mode()
    def network(pixels: Tensor) -> tuple[Tensor, ...]:
        pool, logits = model(pixels.to(device))
        return pool, logits, branch.pop()[:, :CHANNELS].movedim(1, -1).flatten(1)  # the graph's order: channels last

    return network


def main(arguments: Sequence[str] | None = None, network: Network | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    kinds = {path.suffix.lower() for path in given.samples.rglob("*")} if given.samples.is_dir() else {".npz"}
    facts = {
        "benchmark": "fid", "version": "inception-v3-compat", "precision": "fp32",
        "formats": sorted(kinds & {".npz", *ENDINGS}), "torch": torch.__version__,
    }  # fmt: skip
    found = features(given.samples, network or load(given.device))
    arrays: dict[str, Any] = found | {"facts": np.array(json.dumps(facts))}
    np.savez_compressed(given.out, **arrays)


if __name__ == "__main__":
    main()
