"""Prompts from files, by one rule for all kinds.

Kinds, by the ending in any case: ``.txt`` or none (a prompt a line), ``.jsonl`` and ``.ndjson`` (a JSON object or
string a line, as GenEval's ``evaluation_metadata.jsonl``), ``.json`` (a list of strings or of objects), ``.csv`` and
``.tsv`` (a header, quoting after RFC 4180). A prompt of an object or of a row stands under ``prompt``, ``caption`` or
``text``, the first of these that is there, in any case and also in the plural.

The rule: prompts are numbered from 0 in the order of the file. White space at both ends goes, and a line break within
a prompt becomes a space. What is empty then is skipped and gets no number. Repeats stay, each with a number, and so
with noise, of its own. ``notes`` say where it mattered.

Lines end at \\n, \\r\\n and \\r alone: other separators of Unicode may be part of a prompt. Files are UTF-8, with or
without a byte order mark, or UTF-16 with one.
"""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from varlab.errors import VarlabError, cause, quoted

FIELDS = ("prompt", "caption", "text")
LINE_END = re.compile(r"\r\n|\n|\r")
INVISIBLE = "\ufeff\u200b"  # byte order marks of files that were joined, and spaces of no width

Entry = tuple[str, str]  # where it stands ("line 3"), and the prompt as it was found


class FilePrompts(NamedTuple):
    """The prompts of a file, and a line on each thing that was done to them."""

    texts: list[str]
    notes: tuple[str, ...]


def is_prompt_file(name: str) -> bool:
    """Whether a name means a file or a folder: it has an ending or a path, or lies there."""
    path = Path(name)
    return bool(path.suffix) or len(path.parts) > 1 or os.path.exists(name)  # which a long name does not upset


def read_prompts(path: Path) -> FilePrompts:
    """The prompts of a file by the rule above.

    Raises VarlabError, naming the line or the byte, for a file that is missing, no text, damaged, without prompts, or
    of a kind or an encoding that is not read.
    """
    reader = _READERS.get(path.suffix.lower(), None if path.suffix else _lines)
    if os.path.isdir(path):
        raise VarlabError(f"{quoted(str(path))} is a folder. Give a prompt file in it ({', '.join(_READERS)}).")
    if not os.path.exists(path):
        raise VarlabError(f"There is no prompt file {quoted(str(path))}. Give the path of one that exists.")
    if reader is None:
        raise VarlabError(
            f"Prompts are read from {', '.join(_READERS)} files, and {quoted(str(path))} is none of them."
        )
    entries = []
    try:
        for place, text in reader(_decoded(path.read_bytes()), path):
            entries.append((place, LINE_END.sub(" ", text).strip().strip(INVISIBLE).strip()))
        texts = [as_text(text, i) for i, text in enumerate(text for _, text in entries if text)]
    except OSError as error:
        raise VarlabError(f"{quoted(str(path))} cannot be read ({error.strerror}).") from error
    except VarlabError as error:
        raise VarlabError(f"{quoted(str(path))}: {error}") from None
    if not texts:
        raise VarlabError(f"The prompt file {quoted(str(path))} is empty: it holds no prompt.")
    return FilePrompts(texts, tuple(f"{path.name}: {note}" for note in _notes(entries, texts)))


def _notes(entries: list[Entry], texts: list[str]) -> Iterator[str]:
    last = max(i for i, (_, text) in enumerate(entries) if text)  # behind the last prompt nothing moves a number
    empty = [place for place, text in entries[:last] if not text]
    if empty:
        yield f"{len(empty)} empty, skipped without a number (the first: {empty[0]})"
    first: dict[str, int] = {}
    repeats = [(i, first[text]) for i, text in enumerate(texts) if first.setdefault(text, i) != i]
    if repeats:
        again, former = repeats[0]
        yield f"{len(repeats)} repeated, kept as prompts of their own (the first: {again} repeats {former}, from 0)"


def as_text(prompt: Any, number: int) -> str:
    """A prompt that a caller gives, as text; whole numbers name classes.

    Raises VarlabError for what is no text, is empty, or holds half a character.
    """
    if isinstance(prompt, Integral) and not isinstance(prompt, bool):
        return str(prompt)
    if not isinstance(prompt, str):
        raise VarlabError(f"Prompt {number} is no text but {type(prompt).__name__}: {str(prompt)[:60]}.")
    if not prompt.strip():
        raise VarlabError(f"Prompt {number} is empty. Describe a scene, for example: a red star above a blue ring.")
    return whole(prompt, f"Prompt {number}")


def whole(text: str, what: str) -> str:
    """The text. Raises VarlabError for one with half a character, which no file of ours can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise VarlabError(f"{what} holds half a character, which is no text: {quoted(text)}.") from None
    return text


# --- encodings ------------------------------------------------------------------------------------------------


def _decoded(data: bytes) -> str:
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise VarlabError("it is UTF-32. Save it as UTF-8.")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\n|\r", data[: error.start])) + 1
        where = f"byte {error.start} (line {line})" if encoding == "utf-8-sig" else f"byte {error.start}"
        name = "UTF-8" if encoding == "utf-8-sig" else "UTF-16"
        raise VarlabError(f"it is not {name} text: 0x{data[error.start]:02x} at {where}. Save it as UTF-8.") from None
    if (zero := text.find("\0")) >= 0:
        line = len(LINE_END.findall(text[:zero])) + 1
        raise VarlabError(
            f"it is no text: a zero byte in line {line}. Give a text file, UTF-8, or UTF-16 with a byte order mark."
        )
    return text


# --- kinds ----------------------------------------------------------------------------------------------------


def _lines(text: str, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(LINE_END.split(text), 1):
        yield f"line {number}", line


def _json_lines(text: str, path: Path) -> Iterator[Entry]:
    for place, line in _lines(text, path):
        yield (place, _field(_parsed(line, place), place)) if line.strip() else (place, "")


def _json(text: str, path: Path) -> Iterator[Entry]:
    if not text.strip():
        return
    found = _parsed(text, "the file")
    if isinstance(found, dict):  # {"prompts": [...]}
        lists = (value for name, value in found.items() if name.lower() in _NAMES and isinstance(value, list))
        found = next(lists, found)
    if not isinstance(found, list):
        raise VarlabError("it is no list of prompts. Write [...], or name it .jsonl if it holds an object a line.")
    for number, item in enumerate(found):
        yield f"entry {number}", _field(item, f"entry {number}")


def _table(text: str, path: Path) -> Iterator[Entry]:
    delimiters = "\t" if path.suffix.lower() == ".tsv" else ",;\t"  # some spreadsheets write semicolons
    header: list[str] = []
    for delimiter in delimiters:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        column = _column(header := _row(rows))
        if column is not None:
            break
    else:
        if header:
            raise VarlabError(f"its header {', '.join(map(repr, header))} has no column {_listed()}.")
        return
    while row := _row(rows):
        place = f"line {rows.line_num}"
        if len(row) > len(header):
            raise VarlabError(
                f"{place} has {len(row)} fields, the header {len(header)}. Put a prompt that holds {delimiter!r} in "
                'double quotes, "like this".'
            )
        yield place, row[column] if column < len(row) else ""


def _row(rows: Any) -> list[str]:
    """The next row that is not blank; none at the end."""
    try:
        return next((row for row in rows if row), [])
    except csv.Error as error:
        raise VarlabError(
            f'line {rows.line_num} is no row of a table ({cause(error)}). Fields with quotes: "a ""quoted"" word".'
        ) from None


_READERS: dict[str, Callable[[str, Path], Iterator[Entry]]] = {
    ".txt": _lines, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _table, ".tsv": _table
}  # fmt: skip
ENDINGS = tuple(_READERS)


# --- the field that holds the prompt --------------------------------------------------------------------------

_NAMES = tuple(name for field in FIELDS for name in (field, f"{field}s"))


def _column(names: list[str]) -> int | None:
    """The number of the prompt's name among others."""
    plain = [name.strip().lower() for name in names]
    return next((plain.index(name) for name in _NAMES if name in plain), None)


def _listed() -> str:
    return f"{', '.join(FIELDS[:-1])} or {FIELDS[-1]}"


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise VarlabError(f"{place} is no JSON: {error}.") from None
    except RecursionError:
        raise VarlabError(f"{place} is nested too deeply.") from None


def _field(item: Any, place: str) -> str:
    """The prompt of an entry: the entry itself or, of an object, the field that holds it; numbers name classes."""
    value = item
    if isinstance(item, dict):
        column = _column(list(item))
        if column is None:
            raise VarlabError(f"{place} has no field {_listed()}; it has {', '.join(map(repr, item)) or 'none'}.")
        value = list(item.values())[column]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise VarlabError(f"the prompt of {place} is {json.dumps(value)[:60]}, no text.")
    return value
