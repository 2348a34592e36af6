"""Folders of pictures that other code made: their layouts, and which file is which image of which prompt."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from varlab.errors import VarlabError, quoted
from varlab.json_files import read_json
from varlab.outputs import CHUNK

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LAYOUTS = """DIR/00000/samples/0000.png with metadata.jsonl (GenEval; Infinity's 00000.jpg as well), DIR/ID/ID_0.jpg or
DIR/ID_0.png (ImageReward), DIR/STYLE/00000.jpg (HPSv2, MJHQ-30K), DIR/ID.png (DPG-Bench), DIR/00000/0000.png (varlab's
scenes, classes) or what varlab sample, log, generate and compare write""".replace("\n", " ")
DRAWN = "benchmark.json"  # of ``varlab generate``
OF_SOME = ("n", "pictures")  # in it: of how much was drawn, which partners tell
REWARD_ID = re.compile(r"\d+(-\d+)?")  # of a prompt of ImageReward


class Picture(NamedTuple):
    """Image ``k`` of the prompt called ``name``."""

    name: str
    k: int
    path: Path
    category: str = ""
    prompt: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What pairs it."""
        return unpadded(self.name), self.k


def unpadded(name: str) -> str:
    """Numbers do not care for leading zeros, other names are text."""
    *folders, last = name.split("/")
    return "/".join([*folders, str(int(last)) if last.isdigit() else last])


class Layout(NamedTuple):
    """The pictures of a folder in order, and what the folder was taken for."""

    kind: str
    pictures: dict[tuple[str, int], Picture]
    facts: dict[str, Any]  # how varlab made the first of them


def read_layout(folder: Path) -> Layout:
    """The pictures of a folder by (prompt, number).

    Raises
    ------
    VarlabError
        No folder; no picture in a known layout; a file of another layout among them; two for one image; metadata
        that cannot be read.
    """
    if not folder.is_dir():
        raise VarlabError(f"There is no folder {folder}.")
    if (folder / "comparison.json").is_file():
        rows = ", ".join(str(path) for path in sorted(folder.glob("images/*"))[:3])
        raise VarlabError(f"{folder} holds a comparison of several methods. Give the pictures of each: {rows} ...")
    drawn = (folder / DRAWN).is_file()
    place = folder / "images" if drawn or (folder / "run.json").is_file() else folder
    inner = [path for path in sorted(place.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    flat = _images(place)
    if flat and any(_images(path) or (path / "samples").is_dir() for path in inner):
        raise VarlabError(f"{place} holds pictures both beside and within folders, such as {flat[0].name}. Move these.")
    kind, reader = _kind(place, inner, flat)
    found: dict[tuple[str, int], Picture] = {}
    for picture in reader(place, inner or flat):
        if (other := found.get(picture.key)) is not None:
            raise VarlabError(
                f"{picture.path} and {other.path} are both image {picture.k} of {quoted(picture.name)}. Remove one."
            )
        found[picture.key] = picture
    if not found:
        raise VarlabError(f"{folder} holds no pictures in a layout that is known: {LAYOUTS}.")
    if drawn:
        return _as_recorded(kind, found, read_json(folder / DRAWN, "Generate the images again."))
    return Layout(kind, found, _facts(next(iter(found.values())).path))


def _as_recorded(kind: str, found: dict[tuple[str, int], Picture], record: dict[str, Any]) -> Layout:
    """Pictures of ``varlab generate``, whose record knows more than a JPG file or a name."""
    given = record.pop("items", ())
    items = {name: item for item in given for name in (item["id"], f"{item['category']}/{item['id']}")}  # of MJHQ-30K
    for key, picture in found.items():
        if item := items.get(picture.name):
            found[key] = picture._replace(prompt=item["text"], category=item["category"])
    return Layout(kind, found, {name: value for name, value in record.items() if name not in OF_SOME})


def _kind(place: Path, inner: list[Path], flat: list[Path]) -> tuple[str, Callable[..., Iterator[Picture]]]:
    if flat:
        return ("varlab", _varlab) if all("image" in _facts(path) for path in (flat[0], flat[-1])) else ("flat", _flat)
    if any((path / "samples").is_dir() or (path / "metadata.jsonl").is_file() for path in inner):
        return "geneval", _geneval
    numbered = [path for path in inner if _images(path)]
    files = [file for path in numbered for file in _images(path)]
    if files and all(_number(file, file.parent.name) is not None for file in files):
        return "imagereward", _imagereward
    if files and all(file.stem.isdigit() and file.parent.name.isdigit() for file in files):
        return "numbered", _numbered
    return "styles", _styles


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS and path.name[0] != "."]


def _number(file: Path, name: str) -> int | None:
    """k of ``name_k.jpg``."""
    rest = file.stem.removeprefix(f"{name}_")
    return int(rest) if rest != file.stem and rest.isdigit() else None


def _facts(path: Path) -> dict[str, Any]:
    """What a PNG of varlab says of itself, without decoding it."""
    if path.suffix.lower() != ".png":
        return {}
    try:
        with Image.open(path) as image:
            found = json.loads(str(image.info.get(CHUNK, "{}")))
    except (OSError, ValueError):
        return {}  # whether it can be read is asked of all pictures later
    return found if isinstance(found, dict) else {}


def _varlab(place: Path, files: list[Path]) -> Iterator[Picture]:
    """By prompt, place in the run and seed, whatever the files are called."""
    for file in files:
        facts = _facts(file)
        if not {"prompt", "image", "seed"} <= facts.keys():
            raise VarlabError(f"{file} is not of varlab, the others of {place} are. Move it.")
        yield Picture(in_run(str(facts["prompt"]), facts["seed"]), int(facts["image"]), file, "", str(facts["prompt"]))


def in_run(prompt: str, seed: int) -> str:
    """The name of a prompt in a run of varlab: what is drawn again in intervals."""
    return f"{prompt}, seed {seed}".replace("/", " ")


def _flat(place: Path, files: list[Path]) -> Iterator[Picture]:
    """``ID.png`` as DPG-Bench has it, or ``7_0.png`` of ImageReward; an id ends at the first dot."""
    stems = [file.name.partition(".")[0] for file in files]
    pairs = [stem.rpartition("_") for stem in stems]
    several = all(REWARD_ID.fullmatch(name) and k.isdigit() for name, _, k in pairs)
    for file, stem, (name, _, k) in zip(files, stems, pairs, strict=True):
        prompt = str(_facts(file).get("prompt", ""))
        yield Picture(name, int(k), file, "", prompt) if several else Picture(stem, 0, file, "", prompt)


def _geneval(place: Path, folders: list[Path]) -> Iterator[Picture]:
    for folder in folders:
        if not folder.name.isdigit():
            if _images(folder) or (folder / "samples").is_dir():
                raise VarlabError(f"{folder} is no number, the other folders of {place} are. Move it.")
            continue
        about = _metadata(folder / "metadata.jsonl")
        files = _images(folder / "samples") if (folder / "samples").is_dir() else []
        if not files:
            raise VarlabError(f"{folder}/samples holds no pictures: draw them, or remove {folder}.")
        for file in files:
            if not file.stem.isdigit():
                raise VarlabError(f"{file} is no number and would not be scored. Move it.")
            yield Picture(folder.name, int(file.stem), file, str(about.get("tag", "")), str(about.get("prompt", "")))


def _metadata(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path, "It tells the prompt: copy it from the folder of the dense run.")
    return found


def _imagereward(place: Path, folders: list[Path]) -> Iterator[Picture]:
    for folder in folders:
        for file in _images(folder):
            k = _number(file, folder.name)
            assert k is not None
            yield Picture(folder.name, k, file)


def _numbered(place: Path, folders: list[Path]) -> Iterator[Picture]:
    for file in (file for folder in folders for file in _images(folder)):
        yield Picture(file.parent.name, int(file.stem), file, "", str(_facts(file).get("prompt", "")))


def _styles(place: Path, folders: list[Path]) -> Iterator[Picture]:
    for folder in folders:
        for file in _images(folder):
            yield Picture(f"{folder.name}/{file.name.partition('.')[0]}", 0, file, folder.name)


def by_name(layout: Layout) -> Layout:
    """A folder of varlab taken by the names of its files, to pair it with one that other code wrote."""
    files = [picture.path for picture in layout.pictures.values()]
    return Layout("flat", {picture.key: picture for picture in _flat(files[0].parent, files)}, layout.facts)
