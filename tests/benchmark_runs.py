"""What test_benchmark_results.py and test_benchmark_distances.py share."""

import json
from pathlib import Path
from typing import Any

import pytest

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"},
]


def lines(path: Path, *items: Any) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


@pytest.fixture
def geneval(tmp_path: Path) -> Path:
    return lines(tmp_path / "prompts.jsonl", *GENEVAL)


def table(scores: Any) -> dict[str, float]:
    return dict(zip(scores.table["measure"], scores.table["value"], strict=True))
