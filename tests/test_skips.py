"""The run says what it skips, and fails when it skips more than the repository allows."""

from collections import Counter
from pathlib import Path

import pytest

from tests import skips

pytest_plugins = ["pytester"]


def test_skips_are_held_against_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skips, "ALLOWED", {"no device|no disk": 2})
    assert not skips.too_many(Counter({"no device here": 1, "no disk there": 1}))
    (more,) = skips.too_many(Counter({"no device here": 1, "no disk there": 2}))
    (new,) = skips.too_many(Counter({"I did not feel like it": 1}))
    assert "3 skipped" in more and "I did not feel like it" in new


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_run_that_skips_for_another_reason_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    source = (Path(__file__).parent / "skips.py").read_text()
    pytester.makeconftest(source)
    pytester.makepyfile("import pytest\ndef test_a(): pytest.skip('too lazy')\ndef test_b(): pass")
    made = pytester.runpytest_subprocess("-p", "no:cacheprovider", *workers)
    assert made.ret == pytest.ExitCode.TESTS_FAILED
    made.stdout.fnmatch_lines(["*skipped, by reason*", "*1*too lazy*", "*FAILED: 1 skipped*"])


def test_a_run_that_skips_for_an_allowed_reason_passes(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "skips.py").read_text())
    pytester.makepyfile("import pytest\ndef test_a(): pytest.skip('no Chromium here')")
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "1").ret == pytest.ExitCode.OK
