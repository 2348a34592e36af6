"""Files that a user keeps: written whole, never in place of another unasked, each saying how it was made.

A PNG and a JSON file carry their facts themselves; a table or an array has them beside it, in ``NAME.json`` or, in a
folder of several, in ``facts.json``.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from varlab.errors import VarlabError, cause
from varlab.writing import beside

CHUNK = "varlab"  # of a PNG: the facts as JSON
FACTS = "facts.json"
CARD = "card.json"
# What says of a folder, and of the tables in it, how it was made.
RECORDS = (FACTS, "comparison.json", "run.json", "benchmark.json")
BULK = (  # of a JSON file: what was found, not how
    "rows", "entries", "spans", "stages", "memory", "scores", "untrained", "shapes_present", "exact_number",
    "shape_recall", "residual", "items",
)  # fmt: skip


def key_of(facts: Mapping[str, Any]) -> str:
    """8 hexadecimal digits of all facts but the date."""
    text = json.dumps({name: facts[name] for name in sorted(facts) if name != "date"}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def refuse_existing(*paths: Path, overwrite: bool = False) -> None:
    """Refuse files that are there, and folders that hold something; before any work.

    Raises VarlabError, which names the first of them.
    """
    for path in paths:
        held = path.is_file() or (path.is_dir() and any(path.iterdir()))
        if held and not overwrite:
            raise VarlabError(f"{path} exists. Give another place, or --overwrite (overwrite=True) to replace it.")


def with_facts(*names: str) -> tuple[str, ...]:
    """Names of files, and of the facts beside each."""
    return tuple(name for each in names for name in (each, str(Path(each).with_suffix(".json"))))


def save_json(path: Path, record: Any) -> Path:
    """A JSON file, non-Latin letters as they are."""
    with beside(path) as part:
        text = json.dumps(record, indent=1, ensure_ascii=False, default=_plain)
        part.write_text(_escaped(text) + "\n", encoding="utf-8")
    return path


def save_table(path: Path, table: pd.DataFrame, index: bool = False, digits: str | None = None) -> Path:
    """A CSV file. Its facts go beside it."""
    with beside(path) as part:
        table.to_csv(part, index=index, float_format=digits)
    return path


def save_image(path: Path, picture: Image.Image, facts: Mapping[str, Any], overwrite: bool = False) -> bool:
    """A PNG with its facts in text chunks of any letters; whether it was written.

    The same picture of the same facts, whenever it was made, is left as it is; anything else there is refused.
    """
    if path.exists() and not overwrite:
        if _is_same(path, picture, facts):
            return False
        refuse_existing(path)
    about = PngInfo()
    for name, text in in_picture(facts).items():
        about.add_itxt(name, text)
    with beside(path) as part:
        picture.save(part, "PNG", pnginfo=about)
    return True


def is_whole(path: Path) -> bool:
    """Whether a picture can be read to its end: of a PNG its checksums tell, without decoding it."""
    try:
        with Image.open(path) as picture:
            if picture.format == "PNG":
                picture.verify()
            else:
                picture.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def require_picture(path: Path, fix: str) -> None:
    """Raises VarlabError, with what makes it again, for a picture that is missing or cannot be read to its end."""
    if not is_whole(path):
        why = "cannot be read: it is damaged" if path.is_file() else "is missing"
        raise VarlabError(f"The picture {path} {why}. {fix}")


def in_picture(facts: Mapping[str, Any]) -> dict[str, str]:
    """The text chunks of a PNG that ``read_facts`` reads, as matplotlib takes them too."""
    whole = json.dumps(facts, ensure_ascii=False, default=_plain)
    return {"Software": "varlab", "Description": _escaped(str(facts.get("prompt", ""))), CHUNK: _escaped(whole)}


def _escaped(text: str) -> str:
    """Half characters, as of a file name that is no UTF-8, in the escapes that JSON reads back."""
    return text.encode("utf-8", "backslashreplace").decode()


def picture_html(picture: Image.Image, words: str) -> str:
    """A picture within a page, with the words that stand for it."""
    stream = BytesIO()
    picture.save(stream, "PNG")
    data = b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(words)}" title="{escape(words)}" src="data:image/png;base64,{data}">'


def _is_same(path: Path, picture: Image.Image, facts: Mapping[str, Any]) -> bool:
    try:
        with Image.open(path) as found:
            found.load()
            held = json.loads(found.text.get(CHUNK, "{}"))  # type: ignore[attr-defined]
            return found.tobytes() == picture.tobytes() and key_of(held) == key_of(plain(facts))
    except (OSError, ValueError, AttributeError):
        return False


def plain(facts: Any) -> Any:
    """Facts as they read back from a file."""
    return json.loads(json.dumps(facts, default=_plain))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else str(value)


def image_facts(record: Mapping[Any, Any], i: int) -> dict[str, Any]:
    """The facts of image i of a run, from the run's record: its own prompt in place of all."""
    own = {name: value for name, value in record.items() if name not in ("prompts", "n", "key", "stage_seconds")}
    return {"prompt": record["prompts"][i], "image": i} | own


# Reading


def read_facts(path: Path | str) -> dict[str, Any]:
    """How a file or a folder of varlab was made.

    Raises VarlabError for one that is not there, cannot be read or says nothing.
    """
    place = Path(path)
    if not place.exists():
        raise VarlabError(f"There is no {place}.")
    try:
        found = _facts(place)
        pictures = [] if found or not place.is_dir() else sorted(place.glob("*.png"))
        picture = next(filter(_of_png, pictures), None)
    except (OSError, ValueError) as error:
        raise VarlabError(f"{place} cannot be read ({cause(error)}).") from error
    if picture is not None:
        raise VarlabError(f"{place} holds pictures, each of which says itself how it was made: varlab show {picture}")
    if not found:
        raise VarlabError(f"{place} does not say how it was made: it is not of varlab, or its facts were removed.")
    return found


def _facts(place: Path) -> dict[str, Any]:
    if place.is_dir():
        records = [place / name for name in (*RECORDS, CARD) if (place / name).is_file()]
        return _of_json(records[0]) if records else {}
    if place.suffix.lower() == ".png":
        return _of_png(place)
    if place.suffix == ".json":
        return _of_json(place)
    if place.suffix == ".safetensors":
        return _of_safetensors(place)
    if (history := place.with_suffix(".jsonl")).is_file():
        return _of_last_line(history)
    beside = place.with_name(CARD) if place.name == "README.md" else place.with_suffix(".json")
    records = [path for path in (beside, *map(place.with_name, RECORDS)) if path.is_file()]
    return _of_json(records[0]) if records else {}


def _of_png(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        image.load()
        text = {str(key): str(value) for key, value in getattr(image, "text", {}).items()}
    return dict(json.loads(text[CHUNK])) if CHUNK in text else dict(text)


def _of_last_line(path: Path) -> dict[str, Any]:
    """Of a history, whose table beside it is that of the last line."""
    lines = path.read_text("utf-8").strip().split("\n")
    found = json.loads(lines[-1]) if lines[-1] else {}
    return dict(found.get("facts", {})) if isinstance(found, dict) else {}


def _of_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text("utf-8"))
    if isinstance(found, list):
        found = found[0] if found else {}
    if not isinstance(found, dict):
        return {}
    if isinstance(found.get("facts"), dict):
        return found["facts"]
    return {name: value for name, value in found.items() if name not in BULK}


def _of_safetensors(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > 1 << 28:
            return {}
        return dict(json.loads(file.read(size)).get("__metadata__", {}))


def as_json(facts: Mapping[str, Any]) -> str:
    """Facts for a program."""
    return json.dumps(facts, indent=1, ensure_ascii=False)


def as_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Facts for a reader: a line each, those within one beneath it; breaks within a text stay."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield f"{name}:"
            yield from (f"  {line}" for line in as_lines(value))
        elif isinstance(value, list) and len(value) > 1 and all(isinstance(item, str) for item in value):
            yield f"{name}:"
            yield from (f"  {item}" for item in value)
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{name}: {shown}".replace("\n", "\n  ")
