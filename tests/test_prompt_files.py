"""Prompt files as people have them: every kind, encoding and line end gives the right prompts, rightly numbered."""

import json
from pathlib import Path
from typing import Any

import pytest

from varlab.errors import VarlabError
from varlab.report_inputs import check_inputs
from varlab.runs.inputs import check_prompts
from varlab.scenes.prompt_sets import PromptSet, choose, prompts

KINDS = {
    "bom.txt": (b"\xef\xbb\xbfa cat\na dog\n", ["a cat", "a dog"]),
    "old mac.TXT": (b"a cat\ra dog\r\na bird", ["a cat", "a dog", "a bird"]),
    "noending": (b"a cat\na dog", ["a cat", "a dog"]),
    "utf-16.txt": ("a cat\nein Bär\n".encode("utf-16"), ["a cat", "ein Bär"]),
    "big.txt": (b"\xfe\xff" + "猫\n星".encode("utf-16-be"), ["猫", "星"]),
    "joined.txt": ("a cat\n\ufeffa dog".encode(), ["a cat", "a dog"]),
    "geneval.jsonl": (b'{"tag": "colors", "prompt": "a cat"}\n{"tag": "x", "prompt": "a dog"}\n', ["a cat", "a dog"]),
    "mixed.ndjson": (b'{"Caption": "a cat"}\n"a dog"\n{"TEXT": " a bird"}', ["a cat", "a dog", "a bird"]),
    "list.json": (b'["a cat", "a dog", 207]', ["a cat", "a dog", "207"]),
    "objects.json": (b'[{"id": 1, "prompt": "a cat", "text": "no"}, {"text": "a dog"}]', ["a cat", "a dog"]),
    "wrapped.json": (b'{"version": 2, "prompts": ["a cat"]}', ["a cat"]),
    "excel.csv": ('\ufeffid,Prompts\r\n1,"a ""red"" cat, up"\r\n2,a dog'.encode(), ['a "red" cat, up', "a dog"]),
    "semicolons.csv": (b"id;prompt\n1;a cat, asleep\n", ["a cat, asleep"]),
    "two lines.csv": (b'prompt\n"a cat\non a mat"\n', ["a cat on a mat"]),
    "parti.TSV": ('Prompt\tCategory\na cat, "asleep"\tx\n猫\t\n'.encode(), ['a cat, "asleep"', "猫"]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_its_prompts(name: str, tmp_path: Path) -> None:
    data, expected = KINDS[name]
    path = tmp_path / "mit Leerzeichen 提示" / name
    path.parent.mkdir()
    path.write_bytes(data)
    for given in (str(path), path):
        chosen = choose(given)
        assert chosen.texts == expected and chosen.name == str(path) and not chosen.notes


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_line_ends_end_a_prompt(character: str, tmp_path: Path) -> None:
    """str.splitlines knows ten separators, of which a text editor shows three."""
    path = tmp_path / "mine.txt"
    path.write_bytes(f"a cat{character}asleep\r\na dog\n".encode())
    assert prompts(str(path)).texts == [f"a cat{character}asleep", "a dog"]
    path = tmp_path / "mine.jsonl"
    path.write_bytes((json.dumps({"prompt": f"a cat{character}asleep"}, ensure_ascii=False) + '\n"a dog"').encode())
    if ord(character) >= 32:  # JSON holds control characters only escaped
        assert prompts(str(path)).texts == [f"a cat{character}asleep", "a dog"]


def test_what_is_skipped_or_repeated_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a cat \n\n\u3000a dog\n   \na cat\n\n\n")
    chosen = prompts(str(path))
    assert chosen.texts == ["a cat", "a dog", "a cat"]
    assert chosen.notes == (
        "mine.txt: 2 empty, skipped without a number (the first: line 2)",
        "mine.txt: 1 repeated, kept as prompts of their own (the first: 2 repeats 0, from 0)",
    )
    assert all(note in repr(chosen) for note in chosen.notes)
    path.write_text("a cat\na dog\n\n")  # an end of file is no empty prompt
    assert prompts(str(path)).notes == ()


BAD = {
    "latin.txt": ("a\ncafé".encode("latin-1"), r"not UTF-8 text: 0xe9 at byte 5 \(line 2\)"),
    "half.txt": (b"\xff\xfea\x00\x00", "not UTF-16 text"),
    "none.txt": ("a cat\nb".encode("utf-16-le"), "zero byte in line 1"),
    "wide.txt": ("a".encode("utf-32"), "UTF-32"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
    "empty.txt": (b"", "empty"),
    "blank.txt": (b"\xef\xbb\xbf \n\t\n", "empty"),
    "empty.json": (b"[]", "empty"),
    "empty.csv": (b"", "empty"),
    "header.csv": (b"prompt\n", "empty"),
    "picture.png": (b"a cat", "none of them"),
    "bad.jsonl": (b'{"prompt": "a"}\n\n{"prompt": ', "line 3 is no JSON"),
    "other.jsonl": (
        b'{"prompt": "a"}\n{"class": "cow"}',
        "line 2 has no field prompt, caption or text; it has 'class'",
    ),
    "null.json": (b'[{"prompt": null}]', "prompt of entry 0 is null"),
    "lines.json": (b'{"prompt": "a"}\n{"prompt": "b"}', "no JSON"),
    "object.json": (b'{"tag": "a"}', "no list"),
    "surrogate.json": (b'["\\ud800"]', "half a character"),
    "other.csv": (b"id,class\n1,cow\n", "header 'id,class' has no column"),
    "commas.csv": (b"id,prompt\n1,a cat\n2,a cat, asleep\n", "line 3 has 3 fields, the header 2"),
    "open.csv": (b'prompt\n"a cat\na dog\n', "no row of a table"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_says_where_it_is_wrong(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VarlabError, match=message) as error:
        prompts(str(tmp_path / name))
    assert name in str(error.value)


def test_folders_missing_files_and_other_text_are_named(tmp_path: Path) -> None:
    for given, message in {
        str(tmp_path): "is a folder",
        str(tmp_path / "gone.CSV"): "There is no prompt file",
        "a red star " * 40: "Unknown prompt set",
    }.items():
        with pytest.raises(VarlabError, match=message):
            prompts(given)
        with pytest.raises(VarlabError, match=message):
            check_inputs({"model": "nano-infinity", "prompt_set": None, "n": 4}, {"prompt_set": given})


def test_a_shorter_file_of_any_kind_decides_n_of_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "three.CSV"
    path.write_text("prompt\na red star\na blue ring\na green square\n")
    given = {"prompt_set": str(path)}
    assert check_inputs({"model": "nano-infinity", "prompt_set": None, "n": 24}, given) == {**given, "n": 3}


def test_texts_that_callers_give() -> None:
    mixed: list[Any] = [3, "a star"]
    assert check_prompts(mixed) == ["3", "a star"] == PromptSet.from_texts(mixed).texts
    for wrong, message in ((None, "is no text but NoneType"), (" ", "Prompt 1 is empty"), ("\ud800", "half")):
        given: list[Any] = ["a star", wrong]
        with pytest.raises(VarlabError, match=message):
            check_prompts(given)
        with pytest.raises(VarlabError, match=message):
            PromptSet.from_texts(given)


def test_geneval_in_its_own_order() -> None:
    chosen = prompts("geneval")
    assert len(chosen) == len(set(chosen)) == 553
    assert chosen[0] == "a photo of a bench" and chosen[552] == "a photo of a blue pizza and a yellow baseball glove"
    assert prompts("geneval", n=5).texts == chosen.texts[:5]
    with pytest.raises(VarlabError, match="holds 553 prompts, not 554"):
        prompts("geneval", n=554)
