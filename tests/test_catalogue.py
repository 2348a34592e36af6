"""The list of models: what it says is what the configurations build, and it needs no torch."""

import json
import subprocess
import sys

import pytest

from varlab.weights.catalogue import Listed, catalogue, released
from varlab.weights.official import OFFICIAL
from varlab.weights.registry import MODELS, parameters


def test_the_released_models_are_those_of_the_registry() -> None:
    wanted = [
        Listed(
            entry.name,
            entry.family,
            parameters(entry.transformer),
            len(entry.schedule(None, 1.0)),
            entry.schedule(None, 1.0).tokens,
            entry.text,
            description=entry.description,
            file=entry.file,
            tokenizer_file=entry.tokenizer_file,
        )
        for entry in OFFICIAL
    ]
    assert [Listed(**row) for row in released()] == wanted


def test_minis_are_listed_as_they_load() -> None:
    listed = {row.name: row for row in catalogue()}
    assert list(listed) == list(MODELS)
    for name, entry in MODELS.items():
        if entry.folder is None:
            continue
        schedule = entry.schedule(None, 1.0)
        wanted = (entry.family, parameters(entry.transformer), len(schedule), schedule.tokens, entry.text, "shipped")
        row = listed[name]
        assert (row.family, row.parameters, row.stages, row.tokens, row.text, row.weights) == wanted
        assert row.description == entry.description and row.expected == str(entry.folder)


@pytest.mark.parametrize("words", [["--help"], ["models"]])
def test_lists_and_help_import_no_torch(words: list[str]) -> None:
    code = (
        "import sys; from varlab.cli import main\n"
        f"sys.argv = ['varlab', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "import json; print(json.dumps([m for m in ('torch', 'pandas', 'matplotlib', 'scipy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert "mini-infinity" in done.stdout or words == ["--help"]
