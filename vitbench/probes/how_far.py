"""Draws how far layers look: attention distance and effective receptive field against depth, in the same unit, with
networks side by side.

    vitbench probe run=[VIT_ID,RESNET_ID] probe=receptive_field file=how_far.svg

Both are mean distances from the middle in pixels: from the image's middle to the pixels that a unit there depends on
(`vitbench.probes.receptive_field`), and from the four central patches to the patches that they attend to
(`vitbench.probes.attention_distance`). Attention distance is about one block, and the field about all layers up to it.
Where attention looks everywhere but the field stays small, attention adds little to the residual stream.
"""

from __future__ import annotations

import textwrap
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from vitbench.errors import DoesNotApply
from vitbench.numbers import look
from vitbench.probes.attention_distance import Distances, distances
from vitbench.probes.receptive_field import Field, extents, fields
from vitbench.probes.subject import Subject
from vitbench.probes.taps import from_middle


class Looks(NamedTuple):
    """How far the layers of one network look."""

    name: str
    subject: Subject
    fields: dict[str, Field]  # empty where no layer has a grid
    attention: Distances | None  # None where it is no ViT


def draw(
    subjects: dict[str, Subject], *, seed: int, ending: str = ".svg", images: int = 32, channels: int = 16
) -> bytes:
    """Draws a panel for each network, under its name."""
    networks = []
    for name, subject in subjects.items():
        layer_fields: dict[str, Field] = {}
        attention = None
        with suppress(DoesNotApply):
            layer_fields = fields(subject, seed, images, channels)
        with suppress(DoesNotApply):
            attention = distances(subject)
        networks.append(Looks(name, subject, layer_fields, attention))
    with look.figure_style():
        return look.save_figure(_figure(networks, images, channels), ending)


def _figure(networks: list[Looks], images: int, channels: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.6, 3.3 * len(networks)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for panel, network in zip(panels, networks, strict=True):
        handles |= _draw_panel(panel, network)
    panels[0].set_ylabel("mean distance from the middle (px)")
    smallest = min(len(network.subject.images) for network in networks)
    fields_note = f"Receptive fields are of {min(images, smallest)} images and {channels} channels of each layer."
    attention_note = f"Attention is of {smallest:,} images, from the places in the middle."
    legend: dict[str, Any] = {
        "title": f"{fields_note} {attention_note}",
        "title_fontsize": look.SMALL,
        "frameon": False,
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, **legend)
    figure.suptitle("How far layers look", fontsize=10, fontweight="bold")
    return figure


def _draw_panel(panel: Any, network: Looks) -> dict[str, Any]:
    """Draws one network and returns what it drew, by the words of the legend."""
    depth, uniform = np.linspace(0, 1, len(network.fields)), _uniform_radius(*network.subject.images.shape[-2:])
    same_everywhere = panel.axhline(uniform, color="0.45", linewidth=0.9, zorder=1, linestyle=(0, (2, 2)))
    handles: dict[str, Any] = {"the same everywhere": same_everywhere}

    def line(label: str, places: Any, values: Any, style: str, colour: int) -> None:
        marker = look.marker(colour) | {"markersize": 4.5}
        (handles[label],) = panel.plot(places, values, style, color=look.colour(colour), linewidth=1.3, **marker)

    after = [extents(field.after)["radius"] for field in network.fields.values()]
    before = [extents(field.before)["radius"] for field in network.fields.values()]
    line("receptive field, output of a layer", depth, after, "-", 0)
    line("receptive field, before the residual sum", depth, before, "-", 1)
    if network.attention is not None:
        heads = network.attention.central.mean(0)  # (L,A)
        places = depth[-len(heads) :]  # the blocks, which follow the patch embedding
        line("attention distance, mean of heads", places, heads.mean(1), "-", 2)
        dots: dict[str, Any] = {"s": 9, "color": look.colour(2), "alpha": 0.6, "linewidths": 0, "zorder": 3}
        for place, block_heads in zip(places, heads, strict=True):
            handles["attention distance, a head"] = panel.scatter(np.full(len(block_heads), place), block_heads, **dots)
    panel.set_title(textwrap.fill(network.name, 42), fontsize=8)
    panel.set_xlabel("depth of the layer (0: first, 1: last)")
    panel.set_ylim(bottom=0)
    return handles


def _uniform_radius(height: int, width: int) -> float:
    """Returns the radius of a uniform field, 12.24 px at 32 px. Uniform attention over 8 x 8 patches has 12.38 px."""
    y, x = from_middle(height)[:, None], from_middle(width)
    return float((y * y + x * x).sqrt().mean())
