from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitbench.numbers import look

# how people without one kind of cones see linear RGB: Machado et al. 2009, severity 1
VISIONS = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def linear(colour: str) -> NDArray[np.float64]:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = np.cbrt(np.array(TO_XYZ) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(np.array(TO_XYZ[1]) @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("style", look.STYLES)
@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_lines_tell_apart_for_every_colour_vision(style: str, vision: str) -> None:
    seen = [lab(np.array(VISIONS[vision]) @ linear(colour)) for colour in look.STYLES[style].colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14


@pytest.mark.parametrize("style", look.STYLES)
def test_letters_can_be_read_on_their_ground(style: str) -> None:
    with look.figure_style(style):
        its = look.current()
        letters = [its.ink, its.soft, *(look.text_colour(i) for i in range(len(its.colours)))]
        assert min(contrast(colour, its.ground) for colour in letters) > 4.5  # WCAG 2.2, level AA
    assert look.current() == look.STYLES["paper"]


def test_slides_have_larger_letters_lines_and_markers() -> None:
    sizes = {}
    for style in ("paper", "slides"):
        with look.figure_style(style):
            text = Figure().text(0, 0, "a")
            sizes[style] = (text.get_fontsize(), look.points(1.4), look.marker(0)["markersize"])
    assert all(large > small for small, large in zip(sizes["paper"], sizes["slides"], strict=True))


def test_letters_that_no_font_has_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    letter = "\U000f1234"  # of the private use area, which has no letters
    with look.figure_style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = Figure()
        drawn.text(0.1, 0.5, f"class {letter}{letter}")
        assert look.save_figure(drawn, ".png")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("vitbench: no font here has these letters")
    assert r"\U000f1234" in said
