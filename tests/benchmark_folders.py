"""What test_benchmark_folders.py and test_benchmark_commands.py share."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli_calls import Call, places, varlab  # noqa: F401


def picture(path: Path, size: tuple[int, int] = (8, 8), value: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def geneval(tmp_path: Path) -> tuple[Path, Path]:
    """Two prompts, and a folder of theirs without a fault."""
    prompts = [
        {"tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": f"a photo of a {name}"}
        for name in ("dog", "cat")
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    for i, prompt in enumerate(prompts):
        for k in range(4):
            picture(tmp_path / "images" / f"{i:05d}" / "samples" / f"{k:04d}.png")
        (tmp_path / "images" / f"{i:05d}" / "metadata.jsonl").write_text(json.dumps(prompt))
    return tmp_path / "images", file
