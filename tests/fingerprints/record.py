"""Fingerprints of what the shipped minis draw and log: ``python -m tests.fingerprints.record FILE`` writes them,
``python -m tests.fingerprints.record FILE --against BEFORE`` says what has changed since, bit for bit.

Exact hashes hold on one processor and one torch; the small pictures and counts in ``small.json`` hold anywhere.
"""

import argparse
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image

import varlab as vl
from varlab.accelerators import ACCELERATORS
from varlab.errors import VarlabError
from varlab.probes import PROBES

MINIS = ("nano-infinity", "mini-infinity", "mini-hart", "mini-var", "mini-var-freqexit")
SMALL = ("nano-infinity", "mini-var")  # minis of the small fingerprints
SIDE = 8  # of the small pictures


def entries() -> list[tuple[str, str]]:
    """Every mini with every shipped method that a spec can name; other tests may have registered their own."""
    shipped = [entry for entry in ACCELERATORS.values() if entry.kind.__module__.startswith("varlab.")]
    specs = [entry.engaging for entry in shipped if isinstance(entry.engaging, str)]
    return [(mini, spec) for mini in MINIS for spec in ["none", "skipvar:target=0.86", *specs]]


def drawn(spec: str, model: Any, logged: bool = True) -> tuple[list[Image.Image], xr.DataTree, Any]:
    """Two images of a mini by a method, logged by all probes, which change neither images nor ledger."""
    texts = ["a red star", "a blue ring"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = vl.sample(model, texts, seed=3, batch=2, probes=list(PROBES) if logged else [], accelerators=spec)
    return run.images, run.log, run.ledger


def exact(images: list[Image.Image], log: xr.DataTree, ledger: Any) -> dict[str, str]:
    """Hashes of the pictures, of the ledger and of each variable of the log."""
    found = {f"image {i}": _digest(np.asarray(image)) for i, image in enumerate(images)}
    found["ledger"] = hashlib.sha256(ledger.table().to_csv().encode()).hexdigest()[:16]
    for group in log.subtree:
        for name, values in group.dataset.data_vars.items():
            found[f"{group.path}/{name}"] = _digest(values.values)
    return found


def small(images: list[Image.Image], ledger: Any) -> dict[str, Any]:
    """What holds on any processor: pictures of 8 x 8 greys and the counts of the ledger."""
    grey = [np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    counts = ledger.table()[["tokens", "token_blocks", "pairs"]].sum().astype(int).to_dict()
    return {"grey": ["".join(f"{v:02x}" for v in picture.ravel()) for picture in grey], **counts}


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--small", action="store_true", help="write what test_fingerprints.py reads")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    chosen = [entry for entry in entries() if not given.small or entry[0] in SMALL]
    models = {name: vl.load(name) for name in {mini for mini, _ in chosen}}
    for mini, spec in chosen:
        try:
            images, log, ledger = drawn(spec, models[mini])
        except VarlabError as error:
            found[f"{mini} {spec}"] = {"refused": str(type(error).__name__)}
            continue
        found[f"{mini} {spec}"] = small(images, ledger) if given.small else exact(images, log, ledger)
    given.file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    if given.against is not None:
        before = json.loads(given.against.read_text())
        changed = [
            f"{key}: {name}"
            for key in before
            for name in before[key]
            if found.get(key, {}).get(name) != before[key][name]
        ]
        raise SystemExit("\n".join([*changed, f"{len(changed)} values changed"]) if changed else None)


if __name__ == "__main__":
    main()
