"""Waiting in tests: for as long as a slow machine needs, ended only where something hangs."""

import time
from collections.abc import Callable

HANG = 900.0  # seconds


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + HANG
    while not happened():
        assert time.monotonic() < end, "what is waited for does not come"
        time.sleep(0.02)
