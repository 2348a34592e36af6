"""What the shipped minis draw stays what it was: small pictures and exact counts, with and without every method.

After a change that is meant to: ``python -m tests.fingerprints.record tests/fingerprints/small.json --small``.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import varlab as vl
from tests.fingerprints.record import SMALL, drawn, entries, small
from tests.minis import refused

KEPT: dict[str, Any] = json.loads((Path(__file__).parent / "fingerprints" / "small.json").read_text())
COUNTS = ("tokens", "token_blocks", "pairs")
GREYS = 3.0  # that a cell may differ by on another processor, on the mean


@pytest.fixture(scope="module", params=SMALL)
def mini(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, vl.load(request.param)


def test_what_a_mini_draws_has_not_changed(mini: tuple[str, Any]) -> None:
    name, model = mini
    for spec in [spec for own, spec in entries() if own == name]:
        kept = KEPT[f"{name} {spec}"]
        if "refused" in kept:
            refused(partial(drawn, spec, model, logged=False))
            continue
        images, _, ledger = drawn(spec, model, logged=False)
        now = small(images, ledger)
        assert {key: now[key] for key in now if key != "grey"} == {key: kept[key] for key in kept if key != "grey"}, (
            spec
        )
        for a, b in zip(now["grey"], kept["grey"], strict=True):
            cells = [np.frombuffer(bytes.fromhex(text), np.uint8).astype(float) for text in (a, b)]
            assert np.abs(cells[0] - cells[1]).mean() <= GREYS, spec
