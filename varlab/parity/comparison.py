"""Holds computed arrays against those of a golden and keeps the account of what was compared."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from varlab.parity.golden import Golden
from varlab.parity.report import ArrayCheck, Report

Array = np.ndarray | Tensor


def numpy(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


class Comparison:
    """One golden's rows, bits and notes. A method for an array that the file does not hold does nothing."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.result = Report(golden.path, golden.kind)
        self._known: set[str] = set()

    def wants(self, name: str) -> bool:
        """Whether the file holds this array; asking marks it as known to the check."""
        self._known.add(name)
        return self.golden.stored(name)

    def known(self, *names: str) -> None:
        """These arrays are what others are computed from, or say nothing of ours."""
        for name in names:
            self.wants(name)

    def relatives(self, tolerance: str, values: Mapping[str, Array | None]) -> None:
        """``relative`` of each name."""
        for name, array in values.items():
            self.relative(name, array, tolerance)

    def absolutes(self, tolerance: str, values: Mapping[str, Array | None]) -> None:
        """``absolute`` of each name."""
        for name, array in values.items():
            self.absolute(name, array, tolerance)

    def relative(self, name: str, values: Array | None, tolerance: str, columns: slice = slice(None)) -> None:
        """Within ``tolerance`` times the golden's largest magnitude, or that of some of its last dimension."""
        if self.wants(name):
            largest = _largest(np.atleast_1d(self.golden.arrays[name])[..., columns])
            self._close(name, values, self.golden.tolerance(tolerance) * largest)

    def absolute(self, name: str, values: Array | None, tolerance: str) -> None:
        if self.wants(name):
            self._close(name, values, self.golden.tolerance(tolerance))

    def absolute_stated(self, name: str, values: Array | None, tolerance: str = "") -> None:
        """As ``absolute``, with a tolerance in words: that of ``tolerance``, or the one that the name itself fits."""
        if self.wants(name):
            self._close(name, values, self.golden.stated(tolerance or name))

    def near(self, name: str, values: Array | None, allowed: float) -> None:
        """As ``absolute``, with a number."""
        if self.wants(name):
            self._close(name, values, allowed)

    def gradient(self, name: str, values: Array | None, tolerance: str) -> None:
        """Within ``tolerance``, or that share of the golden's largest magnitude if smaller: means have tiny ones."""
        if self.wants(name):
            self._close(name, values, self.golden.tolerance(tolerance) * min(1.0, _largest(self.golden.arrays[name])))

    def equal(self, name: str, values: Array | None) -> None:
        """Bits, indices and other labels."""
        if not self.wants(name):
            return
        expected = self.golden.arrays[name]
        if values is None or numpy(values).shape != expected.shape:
            self._unfit(name, values)
            return
        different = numpy(values) != expected
        worst = _largest(np.asarray(numpy(values), dtype=np.float64) - expected)
        self.add(ArrayCheck(name, expected.shape, worst, float(different.mean()), 0.0, not different.any()))

    def within(self, name: str, value: npt.ArrayLike, expected: npt.ArrayLike, allowed: float) -> None:
        """A number or numbers that the config holds; NaN equals NaN, and null."""
        ours, theirs = np.asarray(value, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        if ours.shape != theirs.shape:
            self.verify(name, False, f"this run gives {ours.shape}, the golden {theirs.shape}")
            return
        both = np.isnan(ours) & np.isnan(theirs)
        error = _largest(np.where(both, 0.0, ours - theirs)) if ours.size else 0.0
        scale = _largest(np.nan_to_num(theirs)) if theirs.size else 0.0
        self.add(ArrayCheck(name, ours.shape, error, error / scale if scale else error, allowed, error <= allowed))

    def verify(self, name: str, true: bool, remark: str) -> None:
        """A fact that is no array; ``remark`` says what is wrong with it."""
        self.add(ArrayCheck(name, (), 0.0 if true else np.inf, 0.0 if true else np.inf, 0.0, true, remark))

    def verify_all(self, name: str, wrong: Sequence[str]) -> None:
        """Facts that are no arrays: those of ``wrong`` differ."""
        self.verify(name, not wrong, f"differs at {', '.join(wrong[:4])}" if wrong else "")

    def labels(self, name: str, values: Array, margin: Array | None, noise: float) -> np.ndarray:
        """Sampled labels, counted: one may differ where the golden's own ``margin`` is below ``noise``.

        -> the labels to go on with: ours, but the golden's at such near ties.
        """
        if not self.wants(name):
            return numpy(values)
        expected, actual = self.golden.arrays[name], numpy(values)
        if actual.shape != expected.shape:
            self._unfit(name, values)
            return actual
        different = actual != expected
        near = np.zeros_like(different) if margin is None else different & (numpy(margin) < noise)
        self.result.bits_compared += different.size
        self.result.bit_mismatches += int(different.sum())
        self.result.forced_near_ties += int(near.sum())
        remark = f"near ties: {int(near.sum())}" if near.any() else ""
        worst, share, ok = float(different.any()), float(different.mean()), bool((different == near).all())
        self.add(ArrayCheck(name, expected.shape, worst, share, 0.0, ok, remark))
        return np.where(near, expected.astype(actual.dtype), actual)

    def add(self, row: ArrayCheck) -> None:
        self.result.rows.append(row)

    def note(self, text: str) -> None:
        self.result.notes.append(text)

    def finish(self) -> Report:
        """The report, with a note on every array that was left aside."""
        unknown = sorted(self.golden.arrays.keys() - self._known)
        if unknown:
            self.note(f"NOT COMPARED, no check knows them: {', '.join(unknown)}")
        empty = sorted(name for name in self.golden.arrays if not self.golden.stored(name) and name in self._known)
        if empty:
            self.note(f"empty in the golden (not stored): {', '.join(empty)}")
        return self.result

    def _close(self, name: str, values: Array | None, allowed: float) -> None:
        expected = self.golden.arrays[name]
        if values is None or numpy(values).shape != expected.shape:
            self._unfit(name, values)
            return
        error = _largest(numpy(values).astype(np.float64) - expected)
        relative = error / _largest(expected) if _largest(expected) else error
        self.add(ArrayCheck(name, expected.shape, error, relative, allowed, error <= allowed < np.inf))

    def _unfit(self, name: str, values: Array | None) -> None:
        remark = "this run has no such array" if values is None else f"this run gives {tuple(values.shape)}"
        self.add(ArrayCheck(name, self.golden.arrays[name].shape, np.inf, np.inf, 0.0, False, remark))


def _largest(values: np.ndarray) -> float:
    """Largest magnitude; NaN counts as the worst of all."""
    return float(np.abs(values.astype(np.float64)).max())
