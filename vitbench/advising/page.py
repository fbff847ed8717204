"""Makes advice.html: the words that the terminal shows, with figures, in one file that needs no other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vitbench.advising.results import Network, Results
from vitbench.advising.words import Section
from vitbench.comparing.confusion_figure import class_order, draw_matrix, label_classes, short_name
from vitbench.comparing.figure import PlottedLine, draw_line, scale_axis
from vitbench.numbers import look
from vitbench.numbers.classified import confusion_counts
from vitbench.numbers.inline import inline_svg
from vitbench.numbers.words import plural, printable
from vitbench.pages.environment import page_environment

if TYPE_CHECKING:
    from vitbench.data.split import Split

SHOWN_IMAGES = 48  # at most so many images are shown that all networks got wrong
SIDE = 96  # the longer side of such an image in pixels, at most
SHOWN_CLASSES = 30  # at most so many classes are in the confusion matrix


def page(
    name: str, results: Results, told: Sequence[Section], heading: str, commands: Sequence[str], test: Split
) -> str:
    """Returns the page as HTML. `test` has the test images as the networks saw them."""
    what = (
        f"{plural(results.finished, 'run')} of {plural(len(results.networks), 'network')}, trained on up to"
        f" {results.images:,} images of {len(results.classes):,} classes and tested on {results.test_images:,} other"
        " images. A seed is one training of a network with its own random start."
    )
    wrong = missed_by_all(results)
    missed = _missed(wrong, results, test) if len(wrong) and len(test) == results.test_images else []
    count = f"; {len(missed)} of them" if len(wrong) > len(missed) else ""
    return (
        page_environment("advising")
        .get_template("advice.html.j2")
        .render(
            title=printable(f"Which network for {name}"),
            what=what,
            sections=[Section(printable(one.title), [*map(printable, one.sentences)]) for one in told],
            figures=_figures(results),
            missed=missed,
            missed_caption=f"{plural(len(wrong), 'test image')} that every run of every network got wrong{count}. Could"
            " a person tell the class, and is the label right?",
            heading=printable(heading),
            commands=[*map(printable, commands)],
        )
    )


def _figures(results: Results) -> list[tuple[Markup, str]]:
    """Draws the figures, and returns them with their captions."""
    best = results.networks[0]
    figures = [(curves_svg(results), _curves_caption(results))]
    if best.predictions:
        seeds = plural(len(best.predictions), "seed")
        caption = (
            f"Which class {best.name} takes for which: a row shows, in %, how it classified the test images of one"
            f" class (mean of {seeds})."
        )
        figures.append((confusion_svg(best, results), caption))
    return [(Markup(svg), printable(caption)) for svg, caption in figures]


def _curves_caption(results: Results) -> str:
    seeds = max(len(network.accuracies) for network in results.networks)
    band = "bands are 95 % intervals over them" if seeds > 2 else "they are too few for an interval"
    return f"Accuracy on test images against the number of training images, mean of {plural(seeds, 'seed')}; {band}."


# ------------------------------------------------------------------------------------------------------------- figures


def curves_svg(results: Results) -> str:
    """Draws accuracy against training images: a line with its band for each network, and the accuracy of guessing."""
    from matplotlib.figure import Figure

    with look.figure_style():
        drawn = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = drawn.subplots()
        for i, network in enumerate(results.networks):
            draw_line(axes, PlottedLine(printable(network.name), [], [*network.curve]), i, 100)
        axes.axhline(100 / len(results.classes), color="0.45", linewidth=0.8, linestyle=":", label="guessing")
        places = sorted({place for network in results.networks for place, _ in network.curve})
        scale_axis(axes, "x", "train_images", places, "x")
        axes.set(ylabel="test accuracy, %", ylim=(0, None))
        axes.legend(frameon=False)
        return inline_svg(drawn, "curves", "Test accuracy of each network against the number of training images")


def confusion_svg(network: Network, results: Results) -> str:
    """Draws which class is taken for which, in % of a class. Of many classes, it draws those with the most errors."""
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
        return inline_svg(drawn, "confusion", f"Which class {printable(network.name)} takes for which")


# ------------------------------------------------------------------------------------------------------- missed images


def missed_by_all(results: Results) -> NDArray[np.int64]:
    """Returns the numbers of the test images that no run of any network got right."""
    all_predictions = [its for network in results.networks for its in network.predictions.values()]
    if not all_predictions:
        return np.array([], np.int64)
    return np.flatnonzero(np.all([its != results.labels for its in all_predictions], 0))


def _missed(wrong: NDArray[np.int64], results: Results, test: Split) -> list[tuple[str, str]]:
    """Chooses some of these images evenly; returns each as a data URI, with its class and the best network's answer."""
    best = next(network for network in results.networks if network.predictions)
    taken = next(iter(best.predictions.values()))
    chosen = wrong[np.linspace(0, len(wrong) - 1, min(len(wrong), SHOWN_IMAGES)).round().astype(int)]
    classes = [*map(printable, results.classes)]
    return [
        (_data_uri(np.asarray(test.images[int(i)])), f"{classes[results.labels[i]]}, taken for {classes[taken[i]]}")
        for i in chosen
    ]


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """Turns an image (C,H,W) into a small JPEG that stands in the page itself."""
    from PIL import Image

    image = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
