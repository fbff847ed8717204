"""The menu of probes: what `probe=` offers. Imports no torch."""

from __future__ import annotations

from vitbench.config import Choice

MENU: dict[str, Choice] = {
    "shift": Choice("vitbench.probes.shift:probe", "is the class the same when the image moves? (1904.11486)"),
    "equivariance": Choice(
        "vitbench.probes.equivariance:probe", "do the maps of layers move with the image? (1805.12177)"
    ),
    "lie": Choice("vitbench.probes.lie:probe", "how fast do the answers change when the image moves? (2210.02984)"),
    "cost": Choice("vitbench.probes.cost:probe", "multiply-adds, speed and memory against image size and batch"),
}

FIGURES: dict[str, Choice] = {  # of the probes that can show what they measure: `file=`
    "equivariance": Choice("vitbench.probes.two_paths:draw", "layer then shift, shift then layer, and the difference"),
}

VERSIONS: dict[str, int] = {}  # of a probe's protocols where it is not 1: raise it with them, and files are made anew
