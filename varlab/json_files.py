"""JSON read back: what is wrong with a file is said by its name and line."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError, cause

NAMES: dict[type, str] = {dict: "a JSON object", list: "a JSON list"}


def read_text(path: Path, fix: str = "") -> str:
    """The text of a file, without the mark that some editors begin it with. Raises VarlabError that ends in ``fix``."""
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise VarlabError(f"There is no file {path}. {fix}".rstrip()) from None
    except (OSError, UnicodeDecodeError) as error:
        raise VarlabError(f"{path} cannot be read ({cause(error)}). {fix}".rstrip()) from error


def parse(text: str, place: str, fix: str = "", kind: type = dict) -> Any:
    """What a text holds, of this kind (object: any); ``place`` names it, ``fix`` says what to do where it is not."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VarlabError(f"{place} is not valid JSON ({cause(error)}). {fix}".rstrip()) from None
    if not isinstance(found, kind):
        raise VarlabError(f"{place} must be {NAMES[kind]}, not {type(found).__name__}. {fix}".rstrip())
    return found


def read_json(path: Path, fix: str, kind: type = dict) -> Any:
    """What a file holds, of this kind (object: any). Raises VarlabError that ends in ``fix``."""
    return parse(read_text(path, fix), str(path), fix, kind)


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", object) of each line that is not blank.

    A line ends at a line feed alone: a prompt may hold U+2028 and its like.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse(line, place, "The file was cut or edited: write it again.")


def as_lines(records: Iterable[dict[str, Any]]) -> str:
    """Objects as such a file holds them."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
