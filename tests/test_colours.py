"""Colours of methods: told apart by every eye, colour-blind ones too."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_rgb

from varlab.accelerators import ACCELERATORS
from varlab.analysis.comparisons import is_baseline
from varlab.figures.style import METHODS

Floats = npt.NDArray[np.float64]
# What an eye without one kind of cone makes of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(1)
APART = 18.0  # CIELAB: 2.3 is just seen by a trained eye in large fields; lines and markers are small
LEAST = {"tritanopia": 14.0}  # which is rare


def lab(colour: str, eye: Floats) -> Floats:
    """CIELAB of an sRGB colour as an eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = (lambda t: np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116))(
        TO_XYZ @ np.clip(eye @ linear, 0, 1) / WHITE
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", EYES)
def test_no_two_methods_look_alike(eye: str) -> None:
    seen = {name: lab(colour, EYES[eye]) for name, (colour, _) in METHODS.items()}
    close = {
        pair: distance
        for pair in combinations(seen, 2)
        if (distance := float(np.linalg.norm(seen[pair[0]] - seen[pair[1]]))) < LEAST.get(eye, APART)
    }
    assert not close


def test_distances_are_those_of_cielab() -> None:
    assert lab("white", EYES["all cones"]) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab("red", EYES["all cones"]) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert lab("white", EYES["deuteranopia"]) == pytest.approx([100, 0, 0], abs=0.01)  # a grey stays one


def test_baselines_are_greys_and_browns_and_fastvar_is_green() -> None:
    assert METHODS.keys() >= {name for name in ACCELERATORS if name.startswith("fastvar") or is_baseline(name)} - {
        "none"
    }
    for name, (colour, _) in METHODS.items():
        _, a, b = lab(colour, EYES["all cones"])
        if is_baseline(name):
            assert np.hypot(a, b) < 10 or (np.hypot(a, b) < 35 and 0 < a < b), name  # weak, or between red and yellow
        assert (a < -30 and b > 10) == name.startswith("fastvar"), name
