"""Goldens read, altered and written anew, and what tests of parity ask of a report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from varlab import parity
from varlab.parity import weights
from varlab.parity.report import Report

HERE = Path(__file__).parent / "goldens"
SHARED = Path(__file__).parents[2] / "shared" / "goldens"


def present(path: Path) -> Path:
    """The path; the test is skipped where nothing is there."""
    if not path.exists():
        pytest.skip(f"{path} is not here; the copies in tests/goldens and the engine's own runs are checked instead")
    return path


def content(path: Path) -> dict[str, np.ndarray]:
    with np.load(present(path), allow_pickle=False) as file:
        return dict(file)


def written(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def altered(path: Path, tmp_path: Path, **changes: Any) -> Path:
    """A copy with arrays replaced, dropped (None), or with values of a JSON array changed (a dict)."""
    arrays: dict[str, Any] = content(path)
    for name, change in changes.items():
        if change is None:
            del arrays[name]
        elif isinstance(change, dict):
            arrays[name] = json.dumps(json.loads(str(arrays[name])) | change)
        else:
            arrays[name] = change
    return written(tmp_path / "altered.npz", arrays)


def passes(path: Path, ties: int = 0) -> Report:
    """The report of a golden that must pass, with every array compared and every label equal, near ``ties`` aside."""
    report = parity.check(present(path))
    assert report.passed, report.render()
    assert "NOT COMPARED" not in report.render()
    assert report.bit_mismatches == 0 and report.forced_near_ties <= ties
    return report


def failed(report: Report) -> set[str]:
    """Families of the arrays in a report that must fail."""
    assert not report.passed
    assert "FAIL" in report.render()
    return {row.family for row in report.failures}


def failed_arrays(report: Report) -> set[str]:
    """As ``failed``, by name."""
    assert failed(report)
    return {row.name for row in report.failures}


def nudge(monkeypatch: pytest.MonkeyPatch, rule: str, key: str, factor: float = 1.01) -> None:
    """One of the weights that a family's goldens are made with is off by a factor."""
    given = getattr(weights, rule)

    def nudged(name: str, z: np.ndarray) -> np.ndarray | None:
        value = given(name, z)
        return value * factor if name == key and value is not None else value

    monkeypatch.setattr(weights, rule, nudged)
