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


LAZY = "import pytest\ndef test_a(): pytest.skip('too lazy')\ndef test_b(): pass"
FAILS = ["*skipped, by reason*", "*1*too lazy*", "*FAILED: 1 skipped*"]


def test_a_run_that_skips_for_another_reason_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "skips.py").read_text())
    pytester.makepyfile(test_lazy=LAZY, test_bare="import pytest\ndef test_a(): pytest.skip('no Chromium here')")
    made = pytester.runpytest_inprocess("-p", "no:cacheprovider", "test_lazy.py")
    assert made.ret == pytest.ExitCode.TESTS_FAILED
    made.stdout.fnmatch_lines(FAILS)
    assert pytester.runpytest_inprocess("-p", "no:cacheprovider", "test_bare.py").ret == pytest.ExitCode.OK


def test_so_does_one_of_several_workers(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # seconds, in both processes
    pytester.makeconftest((Path(__file__).parent / "skips.py").read_text())
    pytester.makepyfile(LAZY)
    made = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "xdist", "-n", "1")
    assert made.ret == pytest.ExitCode.TESTS_FAILED
    made.stdout.fnmatch_lines(FAILS)
