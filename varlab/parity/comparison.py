"""How near the arrays of a kind of golden must come, and the account of those that a file holds: a line each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
from torch import Tensor

from varlab.parity.golden import Golden
from varlab.parity.report import ArrayCheck, Report

Array = np.ndarray | Tensor
Arrays = dict[str, Array | None]  # None: this run has no such array


@dataclass(frozen=True)
class Kind:
    """A kind of golden: ``compute`` hands our arrays over, by the golden's names; ``rules`` say how near they come.

    A rule names a tolerance of the golden's and, by patterns, the arrays that it is for; the first that fits counts.
    ``..._rel`` is a share of the array's largest magnitude, ``grad_abs`` the smaller of both (means have tiny
    gradients), any other one absolute. Besides there are ``equal``, ``stated`` (in words, beside the array's own name)
    and ``given``: what others are computed from, or what says nothing of ours.
    """

    compute: Callable[["Comparison"], None]
    rules: Mapping[str, str]


def held_to(**rules: str) -> Callable[[Callable[["Comparison"], None]], Kind]:
    """Makes a kind of golden of the function that computes its arrays; ``rules`` as `Kind` says."""
    return lambda compute: Kind(compute, rules)


def numpy(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


@dataclass
class Comparison:
    """One golden's rows, bits and notes. A method for an array that the file does not hold does nothing."""

    golden: Golden
    rules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.result = Report(self.golden.path, self.golden.kind)
        self._known = {name for name in self.golden.arrays if self._rule(name) == "given"}

    def wants(self, name: str) -> bool:
        """Whether the file holds this array; asking marks it as known to the check."""
        self._known.add(name)
        return self.golden.stored(name)

    def known(self, *names: str) -> None:
        """These arrays are what others are computed from."""
        self._known |= set(names)

    def hold(self, values: Mapping[str, Array | None]) -> None:
        """Each array to the rule of its name."""
        for name, array in values.items():
            if not self.wants(name):
                continue
            rule = self._rule(name)
            if not rule:
                raise LookupError(f"The rules of {self.golden.kind} goldens say nothing of {name}: state one.")
            if rule == "equal":
                self.equal(name, array)
            elif rule == "stated":
                self.near(name, array, self.golden.stated(name))
            else:
                size = largest(self.golden.arrays[name])
                share = size if rule.endswith("_rel") else min(1.0, size) if rule == "grad_abs" else 1.0
                self.near(name, array, self.golden.tolerance(rule) * share)

    def near(self, name: str, values: Array | None, allowed: float) -> None:
        """An array to a number that no rule gives."""
        if not self.wants(name):
            return
        expected = self.golden.arrays[name]
        if values is None or numpy(values).shape != expected.shape:
            self._unfit(name, values)
            return
        error, size = largest(numpy(values).astype(np.float64) - expected), largest(expected)
        relative = error / size if size else error
        self.add(ArrayCheck(name, expected.shape, error, relative, allowed, error <= allowed < np.inf))

    def equal(self, name: str, values: Array | None) -> None:
        """Bits, indices and other labels."""
        expected = self.golden.arrays[name]
        if values is None or numpy(values).shape != expected.shape:
            self._unfit(name, values)
            return
        different = numpy(values) != expected
        worst = largest(np.asarray(numpy(values), dtype=np.float64) - expected)
        self.add(ArrayCheck(name, expected.shape, worst, float(different.mean()), 0.0, not different.any()))

    def within(self, name: str, value: npt.ArrayLike, expected: npt.ArrayLike, allowed: float = 0.0) -> None:
        """A number or numbers that the config holds; NaN equals NaN, and null."""
        ours, theirs = np.asarray(value, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        if ours.shape != theirs.shape:
            self.verify(name, False, f"this run gives {ours.shape}, the golden {theirs.shape}")
            return
        both = np.isnan(ours) & np.isnan(theirs)
        error = largest(np.where(both, 0.0, ours - theirs)) if ours.size else 0.0
        scale = largest(np.nan_to_num(theirs)) if theirs.size else 0.0
        self.add(ArrayCheck(name, ours.shape, error, error / scale if scale else error, allowed, error <= allowed))

    def verify(self, name: str, true: bool, remark: str = "") -> None:
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

    def _rule(self, name: str) -> str:
        fits = (rule for rule, names in self.rules.items() if any(fnmatchcase(name, one) for one in names.split()))
        return next(fits, "")

    def _unfit(self, name: str, values: Array | None) -> None:
        remark = "this run has no such array" if values is None else f"this run gives {tuple(values.shape)}"
        self.add(ArrayCheck(name, self.golden.arrays[name].shape, np.inf, np.inf, 0.0, False, remark))


def largest(values: np.ndarray) -> float:
    """Largest magnitude; NaN counts as the worst of all."""
    return float(np.abs(values.astype(np.float64)).max())
