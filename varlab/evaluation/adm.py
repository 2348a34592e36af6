"""Samples in the file that OpenAI's ADM evaluator reads, and FID by an optional library.

The evaluator (github.com/openai/guided-diffusion, evaluations/) takes an npz with ``arr_0``, uint8 [N, H, W, 3], and a
reference batch of the same kind, and computes FID, IS, precision and recall with TensorFlow and Inception weights.
"""

import importlib
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from PIL import Image

from varlab.accelerators import build
from varlab.errors import VarlabError, cause
from varlab.evaluation.benchmarks.distances import distance_rows, read_features, read_references
from varlab.evaluation.scripts import inception_features
from varlab.locks import one_writer
from varlab.models.var_model import VAR
from varlab.outputs import save_json
from varlab.runs import Job, Progress, default_batch, to_pil
from varlab.runs.origins import contents, made_with
from varlab.writing import beside, write_text

CHUNK = 250  # images a part: what an interruption costs


def export_npz(
    model: VAR,
    path: Path,
    n: int = 50_000,
    seed: int = 0,
    accelerators: tuple[str, ...] = (),
    progress: Progress | None = None,
    wait: bool = True,
) -> Path:
    """Write n images, classes in turn (50 of each for ImageNet's 1000), image i from (seed, i) alone.

    Parts are kept in ``<path>.parts`` until the file is whole, so the same call goes on after an interruption; another
    model, seed or method there is refused, and a second process waits (or, without ``wait``, is refused).
    Disk: twice n * H * W * 3 bytes. Colours are cut to uint8, as released.
    """
    if path.suffix != ".npz":
        raise VarlabError(f"The evaluator reads .npz files, not {path.name}.")
    texts = tuple(str(i % model.text.classes) for i in range(n))
    job = Job(model, texts, model.settings, seed, accelerators=accelerators)
    job.try_out()
    parts = path.with_name(path.name + ".parts")
    settings = " ".join(f"{key}={value}" for key, value in asdict(model.settings).items())
    made = f"{model.name} {model.weights} n={n} seed={seed} {'+'.join(accelerators)} {settings}"
    made += f" {more}" if (more := contents(model, build(accelerators))) else ""
    with one_writer(parts, wait=wait):
        _same(parts / "run.txt", made)
        _export(job, parts, path, progress)
        save_json(path.with_suffix(".json"), made_with(model, n=n, seed=seed, accelerators=list(accelerators)))
        shutil.rmtree(parts)
    return path


def _export(job: Job, parts: Path, path: Path, progress: Progress | None) -> None:
    n, files = len(job.prompts), []
    for first in range(0, n, CHUNK):
        files.append(parts / f"{first:08d}.npy")
        last = min(first + CHUNK, n)
        if not files[-1].exists():
            with beside(files[-1]) as draft:
                np.save(draft, _chunk(job, range(first, last)))
        if progress is not None:
            progress(last, n)
    _join(files, path)


def _same(record: Path, text: str) -> None:
    """Refuse parts of another export; none of one that has not finished any."""
    begun = any(record.parent.glob("[0-9]*.npy"))
    if begun and record.exists() and record.read_text("utf-8") != text:
        raise VarlabError(f"{record.parent} holds parts of another export ({record.read_text()}). Remove it first.")
    write_text(record, text)


def _chunk(job: Job, numbers: range) -> np.ndarray:
    """Some of the images, uint8 [n, H, W, 3]."""
    batch, pictures = default_batch(job.model), []
    for first in range(numbers.start, numbers.stop, batch):
        out, _ = job.run(range(first, min(first + batch, numbers.stop)))
        pictures += [np.asarray(image) for image in to_pil(out.image)]
    return np.stack(pictures)


def _join(files: list[Path], path: Path) -> None:
    """The parts as one uncompressed array, never held in memory."""
    shapes = [np.load(file, mmap_mode="r").shape for file in files]
    header = {"descr": "|u1", "fortran_order": False, "shape": (sum(s[0] for s in shapes), *shapes[0][1:])}
    with (
        beside(path) as draft,
        zipfile.ZipFile(draft, "w") as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]
        for name in files:
            file.write(np.load(name).tobytes())


def require_inception() -> ModuleType:
    """The library that knows Inception, or how to get it."""
    try:
        return importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise VarlabError(
            f"FID needs torch-fidelity, which is not here ({cause(error)}). pip install torch-fidelity; it brings "
            "torchvision and downloads Inception weights. `varlab score frechet` needs neither, and is no FID."
        ) from error


def inception_scores(
    pictures: Iterable[np.ndarray], real: Iterable[np.ndarray], folder: Path
) -> tuple[pd.DataFrame, list[str]]:
    """All distances of pictures uint8 [H, W, 3] to real ones, as `varlab score fid FOLDER` gives them; and notes.

    torch-fidelity and its Inception weights are the user's to install; they differ a little from the TensorFlow graph
    of published tables, for which ``export_npz`` feeds the ADM evaluator. ``folder``: for files in between, so that
    pictures which come one by one are not held.
    """
    require_inception()
    own, reference = folder / "own.npz", folder / "real.npz"
    for path, images in ((own, pictures), (reference, real)):
        (place := path.with_suffix("")).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(place / f"{i:08d}.png")
        inception_features.main([str(place), str(path)])
    rows, notes = distance_rows(read_features(own), read_references([reference]))
    return pd.DataFrame(rows), notes
