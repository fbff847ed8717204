"""advice.html: the same words as the terminal, with figures, in one file without anything from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from string import Template
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitbench.advising.results import Network, Results
from vitbench.advising.words import Section
from vitbench.comparing.confusion_figure import class_order, draw_matrix, label_classes, short_name
from vitbench.comparing.figure import DASHES, is_banded
from vitbench.numbers import look
from vitbench.numbers.classified import confusion_counts
from vitbench.numbers.words import plural, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vitbench.data.split import Split

SHOWN_IMAGES = 48  # that all networks got wrong
SIDE = 96  # pixels of such an image, at most
SHOWN_CLASSES = 30  # in the matrix
INK = "#010203"  # replaced by the colour of the page's text, so that figures are readable on dark pages

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --soft: #f3f3f5; --line: #0072B2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --paper: #17181a; --soft: #232427; --line: #56B4E9; }
}
body { margin: 0 auto; padding: 1rem; max-width: 46rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .3rem; border-left: .25rem solid var(--line); padding-left: .6rem; }
p { margin: .5rem 0; }
figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; color: var(--ink); }
figcaption { font-size: .85rem; opacity: .8; }
pre { background: var(--soft); padding: .7rem; border-radius: .4rem; white-space: pre-wrap; font-size: .85rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: .5rem; }
.sheet img { width: 100%; border-radius: .3rem; display: block; }
.sheet span { font-size: .7rem; line-height: 1.25; display: block; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$what</p>
$sections
$figures
<h2>$heading</h2>
$commands
</body>
</html>
""")


def page(
    name: str, results: Results, told: Sequence[Section], heading: str, commands: Sequence[str], test: Split
) -> str:
    """The page; `test` has the test images, as the networks saw them."""
    words = "".join(
        f"<h2>{_text(section.title)}</h2>\n" + "".join(f"<p>{_text(sentence)}</p>\n" for sentence in section.sentences)
        for section in told
    )
    what = (
        f"{plural(len(results.networks), 'network')} on up to {results.images:,} images of {len(results.classes):,}"
        f" classes, tested on {results.test_images:,} others; {plural(results.finished, 'run')}."
    )
    return PAGE.substitute(
        title=_text(f"Which network for {name}"),
        what=_text(what),
        sections=words,
        figures=_figures(results, test),
        heading=_text(heading),
        commands="".join(f"<pre>{_text(command)}</pre>\n" for command in commands),
    )


def _text(words: str) -> str:
    return html.escape(printable(words))


def _figures(results: Results, test: Split) -> str:
    best = results.networks[0]
    parts = ["<h2>Pictures</h2>\n", _figure(curves_svg(results), _curves_caption(results))]
    if best.predictions:
        seeds = plural(len(best.predictions), "seed")
        caption = f"Which class {best.name} takes for which, in % of the images of a class (a row), mean of {seeds}."
        parts.append(_figure(confusion_svg(best, results), caption))
    wrong = missed_by_all(results)
    if len(wrong) and len(test) == results.test_images:
        caption = f"{plural(len(wrong), 'test image')} that every run of every network got wrong"
        caption += f"; {SHOWN_IMAGES} of them" if len(wrong) > SHOWN_IMAGES else ""
        caption = _text(f"{caption}. Look whether a person could tell, and whether the label is right.")
        sheet = f"<div class='sheet'>{_sheet(wrong, results, test)}</div>"
        parts.append(f"<figure><figcaption>{caption}</figcaption>{sheet}</figure>\n")
    return "".join(parts)


def _curves_caption(results: Results) -> str:
    seeds = max(len(network.accuracies) for network in results.networks)
    band = "bands are 95 % intervals over seeds" if seeds > 2 else "too few seeds for an interval"
    return f"Accuracy on test images against the number of training images; {plural(seeds, 'seed')}, {band}."


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>\n"


# ------------------------------------------------------------------------------------------------------------- figures


def curves_svg(results: Results) -> str:
    """Accuracy against training images: a line of each network with its band, and what guessing would reach."""
    from matplotlib.figure import Figure

    with look.figure_style():
        drawn = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = drawn.subplots()
        for i, network in enumerate(results.networks):
            n, means = zip(*network.curve, strict=True)
            colour = look.colour(i) if i % len(look.COLOURS) < 6 else INK
            marked = look.marker(i) | {"markerfacecolor": colour}
            style = {"color": colour, "linestyle": DASHES[i % len(DASHES)], "label": printable(network.name), **marked}
            axes.plot(n, [100 * mean.mean for mean in means], linewidth=1.6, clip_on=False, **style)
            low, high = ([100 * (end if is_banded(mean) else math.nan) for mean, end in zip(means, ends, strict=True)]
                         for ends in ([mean.low for mean in means], [mean.high for mean in means]))  # fmt: skip
            if len(n) > 1:
                axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                axes.vlines(n, low, high, color=colour, alpha=0.5)
        axes.axhline(100 / len(results.classes), color=INK, linewidth=0.8, linestyle=":", label="guessing")
        places = sorted({point[0] for network in results.networks for point in network.curve})
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:,.0f}" for place in places])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel="test images that are right, %", ylim=(0, None))
        axes.legend(frameon=False)
        return _svg(drawn)


def confusion_svg(network: Network, results: Results) -> str:
    """Which class is taken for which, in % of a class; of many classes those that are most often wrong."""
    from matplotlib.figure import Figure

    classes = len(results.classes)
    counts = np.mean([confusion_counts(results.labels, its, classes) for its in network.predictions.values()], 0)
    shares = counts / np.where(results.counts == 0, np.nan, results.counts)[:, None]
    shown = np.sort(np.argsort(shares.diagonal(), kind="stable")[:SHOWN_CLASSES])
    order = shown[class_order(shares[np.ix_(shown, shown)])]
    with look.figure_style():
        side = min(max(2.6 + 0.35 * len(order), 3.6), 8.0)
        drawn = Figure(figsize=(side + 1, side), layout="constrained")
        axes = drawn.subplots()
        draw_matrix(drawn, axes, 100 * shares[np.ix_(order, order)])
        label_classes(axes, [short_name(printable(results.classes[k])) for k in order])
        return _svg(drawn)


def _svg(drawn: Figure) -> str:
    """The figure as SVG within a page: text takes the page's colour, and nothing is drawn behind it."""
    drawn.patch.set_alpha(0)
    for axes in drawn.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        for spine in axes.spines.values():
            spine.set_edgecolor(INK)
        legend = axes.get_legend()
        for text in legend.get_texts() if legend else []:
            text.set_color(INK)
        for line in [*axes.get_xgridlines(), *axes.get_ygridlines()]:
            line.set(color=INK, alpha=0.12)
    svg = look.save_figure(drawn, ".svg").decode()
    svg = re.sub("<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # which names addresses
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


# ------------------------------------------------------------------------------------------------------- missed images


def missed_by_all(results: Results) -> NDArray[np.int64]:
    """The test images that no run of any network got right, by their numbers."""
    all_predictions = [its for network in results.networks for its in network.predictions.values()]
    if not all_predictions:
        return np.array([], np.int64)
    return np.flatnonzero(np.all([its != results.labels for its in all_predictions], 0))


def _sheet(wrong: NDArray[np.int64], results: Results, test: Split) -> str:
    """Evenly chosen ones with their class, and what the best network took them for."""
    best = next(network for network in results.networks if network.predictions)
    taken = next(iter(best.predictions.values()))
    chosen = wrong[np.linspace(0, len(wrong) - 1, min(len(wrong), SHOWN_IMAGES)).round().astype(int)]
    return "".join(
        f"<div><img alt='' loading='lazy' src='{_data_uri(np.asarray(test.images[int(i)]))}'>"
        f"<span>{_text(results.classes[results.labels[i]])}, taken for {_text(results.classes[taken[i]])}</span>"
        "</div>\n"
        for i in chosen
    )


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """An image (C,H,W) as a small JPEG within the page."""
    from PIL import Image

    image = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
