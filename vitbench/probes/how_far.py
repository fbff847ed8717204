"""How far layers look, in one unit: attention distance and effective receptive field against depth, networks side by
side.

    vitbench probe run=[VIT_ID,RESNET_ID] probe=receptive_field file=how_far.svg

Both are mean distances from the middle in pixels: of the image's middle to what a unit there answers to
(`vitbench.probes.receptive_field`), and of the four central patches to those that they attend to
(`vitbench.probes.attention_distance`). Attention says what one block adds, the field what all layers so far see: attention
that looks everywhere, and a field that stays small, is a residual stream that carries little of it.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from vitbench.errors import DoesNotApply
from vitbench.numbers import look
from vitbench.probes.attention_distance import Distances, distances
from vitbench.probes.receptive_field import Field, fields, numbers
from vitbench.probes.subject import Subject
from vitbench.probes.taps import from_middle


def draw(
    subjects: dict[str, Subject], *, seed: int, ending: str = ".svg", images: int = 32, channels: int = 16
) -> bytes:
    """A panel a network, by its name."""
    found = [
        (name, subject, receptive(subject, seed, images, channels), attention(subject))
        for name, subject in subjects.items()
    ]
    with look.figure_style():
        return look.save_figure(_figure(found, images, channels), ending)


def receptive(subject: Subject, seed: int, images: int, channels: int) -> dict[str, Field]:
    try:
        return fields(subject, seed, images, channels)
    except DoesNotApply:
        return {}


def attention(subject: Subject) -> Distances | None:
    try:
        return distances(subject)
    except DoesNotApply:
        return None


def _figure(found: list[tuple[str, Subject, dict[str, Field], Distances | None]], images: int, channels: int) -> Any:
    from matplotlib.figure import Figure

    made = Figure(figsize=(max(4.6, 3.3 * len(found)), 4.2), layout="constrained")
    panels = made.subplots(1, len(found), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for panel, (name, subject, maps, looks) in zip(panels, found, strict=True):
        depth = np.linspace(0, 1, len(maps))
        H, W = subject.images.shape[-2:]
        handles["the same everywhere"] = panel.axhline(
            _uniform(H, W), color="0.45", linewidth=0.9, zorder=1, linestyle=(0, (2, 2))
        )
        for which, colour, label, style in (
            ("after", 0, "receptive field, output of a layer", "-"),
            ("before", 1, "receptive field, before the residual sum", "--"),
        ):
            radii = [numbers(getattr(field, which))["radius"] for field in maps.values()]
            (line,) = panel.plot(
                depth,
                radii,
                style,
                color=look.colour(colour),
                linewidth=1.3,
                **look.marker(colour) | {"markersize": 4.5},
            )
            handles[label] = line
        if looks is not None:
            heads = looks.central.mean(0)  # (L,A)
            places = depth[-len(heads) :]  # the blocks, which follow the patch embedding
            (line,) = panel.plot(
                places, heads.mean(1), ":", color=look.colour(2), linewidth=1.3, **look.marker(2) | {"markersize": 4.5}
            )
            handles["attention distance, mean of heads"] = line
            for place, of_block in zip(places, heads, strict=True):
                dots = panel.scatter(
                    np.full(len(of_block), place),
                    of_block,
                    s=9,
                    color=look.colour(2),
                    alpha=0.6,
                    linewidths=0,
                    zorder=3,
                )
            handles["attention distance, a head"] = dots
        panel.set_title(textwrap.fill(name, 42), fontsize=8)
        panel.set_xlabel("relative depth of the layer")
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("mean distance from the middle (px)")
    smallest = min(len(subject.images) for _, subject, _, _ in found)
    made.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        title=(
            f"fields: {min(images, smallest)} images, {channels} channels a layer; attention: {smallest:,} images, "
            "central queries"
        ),
        title_fontsize=look.SMALL,
    )
    made.suptitle("How far layers look", fontsize=10, fontweight="bold")
    return made


def _uniform(height: int, width: int) -> float:
    """The radius of a field that is everywhere alike; attention that is so, has hardly more (12.38 for 12.24 px)."""
    y, x = from_middle(height)[:, None], from_middle(width)
    return float((y * y + x * x).sqrt().mean())
