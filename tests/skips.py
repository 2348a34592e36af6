"""Which tests may be skipped, and why: the run lists its skips by reason and fails when more are skipped than here."""

import re
from collections import Counter
from typing import Any

import pytest

ALLOWED = {  # reason, as a regular expression -> tests at most
    "no Chromium here|playwright": 36,  # every test of a page: pip brings no browser
    "no device that is always full": 1,
    "cannot forget an earlier peak": 1,
    "is not here; the copies in tests/goldens": 60,  # the whole goldens; all of these tests are slow
    "the original lists are not beside this checkout": 2,
    "the papers' documents are not beside this checkout": 1,
    "this processor has no bf16 layout": 21,
    "torchao is not installed": 3,  # an extra
}
_skipped: Counter[str] = Counter()


def too_many(skipped: Counter[str]) -> list[str]:
    """What is skipped more often than allowed, a line each."""
    by_rule: Counter[str] = Counter()
    lines = []
    for reason, count in skipped.items():
        rule = next((rule for rule in ALLOWED if re.search(rule, reason)), None)
        if rule is None:
            lines.append(f"{count} skipped for a reason that tests/skips.py does not allow: {reason}")
        else:
            by_rule[rule] += count
    return lines + [
        f"{count} skipped where tests/skips.py allows {ALLOWED[rule]}: {rule}"
        for rule, count in by_rule.items()
        if count > ALLOWED[rule]
    ]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[text.removeprefix("Skipped: ")] += 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _skipped:
        return
    terminalreporter.section("skipped, by reason")
    for reason, count in sorted(_skipped.items()):
        terminalreporter.write_line(f"{count:4d}  {reason}")
    for line in too_many(_skipped):
        terminalreporter.write_line(f"FAILED: {line}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = hasattr(session.config, "workerinput")  # of pytest-xdist: the reports are judged where they are gathered
    if not worker and session.exitstatus == pytest.ExitCode.OK and too_many(_skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
