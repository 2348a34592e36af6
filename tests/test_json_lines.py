"""A line of JSON ends at a line feed alone: a prompt with U+2028, U+0085 or a vertical tab in it stays one record."""

from pathlib import Path

import pytest

from varlab.json_files import as_lines, read_lines
from varlab.outputs import _of_last_line
from varlab.parity.golden import load as load_golden

PROMPT = "a red star\u2028above\u0085a blue\vring"
RECORDS = [{"prompt": PROMPT, "score": 1.0}, {"prompt": "a star", "score": 0.0}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rows.jsonl"
    found.write_text(as_lines(RECORDS) + "\n", "utf-8")
    return found


def test_the_reader_of_lines_keeps_a_prompt_whole(path: Path) -> None:
    assert [record for _, record in read_lines(path)] == RECORDS


def test_a_golden_and_a_history_too(tmp_path: Path) -> None:
    golden, history = tmp_path / "golden.jsonl", tmp_path / "history.jsonl"
    golden.write_text(as_lines([{"golden": "geneval", "tolerances": {}}, *RECORDS]), "utf-8")
    assert load_golden(golden).config["lines"] == RECORDS
    history.write_text(as_lines([{"facts": {}}, {"facts": {"prompt": PROMPT}}]), "utf-8")
    assert _of_last_line(history) == {"prompt": PROMPT}
    history.write_text("", "utf-8")
    assert _of_last_line(history) == {}
