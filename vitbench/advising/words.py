"""The advice in words. Each sentence says no more than its numbers: "cannot be told" is an answer.

A difference is sure where the t interval over three seeds or more and the interval over test images both exclude 0; the
second is about photographs that were not tested, the first about other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np

from vitbench.advising.plan import FEWEST_OF_A_CLASS, SHARES
from vitbench.advising.results import Difference, Network, Results, difference
from vitbench.fitting.sentences import crossover_sentence, efficiency_sentence
from vitbench.numbers.classified import confusion_counts, recalls
from vitbench.numbers.curves import UNRELIABLE
from vitbench.numbers.intervals import Interval, binomial_interval, holm, mean_interval, t_p
from vitbench.numbers.pair import LEAST_SEEDS
from vitbench.numbers.words import listed, p_words, plural, printable

Verdict = Literal["sure", "seeds", "images", "few seeds", "equal"]

SMALL_GAP, LARGE_GAP = 0.05, 0.1  # between accuracy on training and on test images
BY_HEART, UNLEARNED = 0.95, 0.9  # accuracy on training images
SOLVED = 0.98  # accuracy on test images
NEARLY_ALL = 0.95  # of the test images in one class: the network has learned nothing else
UNEVEN = 0.03  # between accuracy and balanced accuracy
FEWEST_TESTED = 10  # test images of a class of which a recall is told
NAMED = 3  # classes


class Section(NamedTuple):
    title: str
    sentences: list[str]


class Judged(NamedTuple):
    """A difference with its verdict."""

    found: Difference
    verdict: Verdict
    p: float  # over seeds, Holm-corrected over all pairs that are asked for


def sections(results: Results) -> list[Section]:
    """The whole advice, the most important first."""
    judged = judged_pairs(results)
    told = [
        Section("Which network", which(results, judged)),
        Section("How many images the other needs", images_needed(results, judged)),
        Section("What more images would bring", more_images(results)),
        Section("What more training would bring", [more_time(network) for network in results.networks]),
        Section("What pretraining brings", pretraining(results, judged)),
        Section("How sure the test is", the_test(results)),
        Section("Class by class", by_class(results)),
        Section("What cannot be told, and what would tell it", untold(results, judged)),
    ]
    return [section for section in told if section.sentences]


def judged_pairs(results: Results) -> list[Judged]:
    """Each two networks from scratch, each pretrained one against the best from scratch, and the best pretrained one
    against the better way of each other pretrained network."""
    scratch = results.from_scratch
    pairs = [(a, b) for i, a in enumerate(scratch) for b in scratch[i + 1 :]]
    pretrained = [network for network in results.networks if network.pretrained]
    pairs += [(one, scratch[0]) for one in pretrained if scratch]
    better_ways = {one.row.get("model.arch"): one for one in reversed(pretrained)}  # the most accurate first in the end
    pairs += [(pretrained[0], one) for one in better_ways.values() if one is not pretrained[0]]
    found = [its for a, b in pairs if (its := difference(a, b, results.labels)) is not None]
    ps = holm([t_p(one.over_seeds) for one in found])
    return [Judged(one, _verdict(one, p), p) for one, p in zip(found, ps, strict=True)]


def _verdict(found: Difference, p: float) -> Verdict:
    if found.over_seeds.mean == 0:
        return "equal"
    if found.over_seeds.n < LEAST_SEEDS:
        return "few seeds"
    if not p < 0.05:  # NaN where the seeds do not differ
        return "seeds"
    return "sure" if found.over_images.low > 0 else "images"


# ------------------------------------------------------------------------------------------------------- which network


def which(results: Results, judged: Sequence[Judged]) -> list[str]:
    best = results.networks[0]
    said = [_told(one, results.test_images) for one in judged if not (one.found.a.pretrained or one.found.b.pretrained)]
    if len(results.networks) == 1:
        said.append(f"Only {best.name} has a finished run: there is nothing to compare it with.")
    said += [_lazy(network, results) for network in results.networks]
    low, _ = binomial_interval(best.accuracy * results.test_images, results.test_images)
    floor = largest_class(results)
    said.append(
        f"Guessing would be right in {_percent(1 / len(results.classes))}, always answering"
        f" {printable(results.classes[floor[0]])} in {_percent(floor[1])} of the test images; the best here,"
        f" {best.name}, is right in {_percent(best.accuracy)}"
        + ("." if low > floor[1] else ", which is not surely more than that.")
    )
    return [sentence for sentence in said if sentence]


def largest_class(results: Results) -> tuple[int, float]:
    """The class with the most training images, and its share of the test images."""
    largest = int(np.argmax(results.train_counts))
    return largest, float(results.counts[largest] / results.test_images)


def _told(one: Judged, test_images: int) -> str:
    a, b = one.found.a, one.found.b
    by = _points(one.found.mean)
    both = f"{a.name} is right in {_percent(one.found.of_a)} of the test images, {b.name} in {_percent(one.found.of_b)}"
    seeds = plural(one.found.over_seeds.n, "seed")
    if one.verdict == "equal":
        return f"{a.name} or {b.name}: cannot be told. Both are right in {_percent(one.found.of_a)} of the test images."
    if one.verdict == "few seeds":
        doubt = (
            "one training of each cannot tell the better network from the lucky one"
            if seeds == "1 seed"
            else "two seeds (two trainings of each) do not tell"
        )
        chance = ""
        if len(one.found.tests) == 1:
            p = one.found.tests[0]
            may = "is hardly chance" if p < 0.05 else "may be chance"
            chance = f" On these test images the difference of the two trainings {may} (McNemar's test, {p_words(p)})."
        return f"{a.name} or {b.name}: cannot be told, {doubt}. {both}: {by} apart.{chance}"
    if one.verdict == "seeds":
        return (
            f"{a.name} or {b.name}: cannot be told. {both}; over {seeds} the difference is"
            f" {_range(one.found.over_seeds)}, which may be chance ({p_words(one.p)})."
        )
    if one.verdict == "images":
        return (
            f"{a.name} or {b.name}: cannot be told for other photographs. {both}: {by} more, in {seeds} surely, but"
            f" {plural(test_images, 'test image')} leave {_range(one.found.over_images)}."
        )
    agree = sum(p < 0.05 for p in holm(one.found.tests))
    return (
        f"{a.name} is better than {b.name}, by {by}: {both}. 95 % intervals: over {seeds}"
        f" {_range(one.found.over_seeds)} ({p_words(one.p)}), over the {plural(test_images, 'test image')}"
        f" {_range(one.found.over_images)}; McNemar's test agrees in {agree} of {plural(len(one.found.tests), 'seed')}."
    )


def _lazy(network: Network, results: Results) -> str:
    """Calls out a network that gives nearly every image one class."""
    answers = [np.bincount(its, minlength=len(results.classes)) for its in network.predictions.values()]
    if not answers or min(its.max() / its.sum() for its in answers) < NEARLY_ALL:
        return ""
    names = listed(dict.fromkeys(printable(results.classes[int(its.argmax())]) for its in answers))
    return (
        f"{network.name} calls nearly every image {names}: it has learned nothing but which class is large, whatever"
        " its accuracy says."
    )


# ------------------------------------------------------------------------------------- more images, time, pretraining


def images_needed(results: Results, judged: Sequence[Judged]) -> list[str]:
    said = []
    for one in judged:
        compared = results.compared(one.found.a.name, one.found.b.name)
        if compared is None:
            continue
        said += [efficiency_sentence(compared), crossover_sentence(compared)]
    return [sentence for sentence in said if sentence]


def more_images(results: Results) -> list[str]:
    """What twice the images would bring by the fitted curve of each network, where that can be relied on."""
    said = []
    for network in results.from_scratch:
        line = results.line(network.name)
        if line is None:
            continue
        if not line.is_fitted or line.counted.n[-1] < line.curve.n[-1]:
            said.append(
                f"{network.name}: cannot be told. The steps or the size of the network limit it here, not the number of"
                " images."
            )
            continue
        curve = line.counted
        if curve.held_back > UNRELIABLE or not curve.exponent.high < 0:
            why = "its curve does not surely rise" if curve.held_back <= UNRELIABLE else (
                f"a curve through the smaller numbers of images errs by {100 * curve.held_back:.0f} % at the largest"
            )  # fmt: skip
            said.append(f"{network.name}: cannot be told, {why}.")
            continue
        n = 2 * float(curve.n[-1])
        errors = curve.error_at(n)
        ends = "" if errors.why else f" ({_ends(max(0.0, 1 - errors.high), 1 - errors.low)} with other seeds)"
        said.append(
            f"{network.name} with {n:,.0f} images, twice as many: about {_percent(1 - errors.mean)}{ends} in place of"
            f" {_percent(network.accuracy)}, by the curve and with the same number of steps. This is an extrapolation."
        )
    return said


def more_time(network: Network) -> str:
    """Says whether longer training would help, by training against test images and the end of the run."""
    if not network.trained:
        return ""
    seen = fmean(network.trained.values())
    rise = mean_interval(network.rises.values(), scale=1.0)  # differences of accuracies
    both = f"right in {_percent(seen)} of its training images and {_percent(network.accuracy)} of the test images"
    rises = rise.n >= LEAST_SEEDS and rise.low > 0
    end = (
        f" On validation images it rose by {_points(rise.mean)} in the last fifth, as it does in part because the"
        " learning rate falls there."
        if rises
        else ""
    )
    if little_is_left(network):
        return f"{network.name}: little is left to learn from these images. It is {both}."
    if seen < UNLEARNED and _gap(network) < SMALL_GAP:
        why = "it has not learned those yet"
        return f"{network.name}: more time would probably help, or a larger network. It is {both}: {why}.{end}"
    if knows_by_heart(network):
        return (
            f"{network.name}: more time with the same images would hardly help. It knows them by heart ({both}); more"
            f" images, augment=strong or pretraining may.{end}"
        )
    how = "more time may help, and more images" if rises else "whether more time would help cannot be told"
    return f"{network.name}: {how}. It is {both}.{end}"


def little_is_left(network: Network) -> bool:
    """Whether it is nearly always right, of test images or of those that it learned, and little less of the others."""
    seen = fmean(network.trained.values())
    return network.accuracy >= SOLVED or (seen >= BY_HEART and _gap(network) <= LARGE_GAP)


def knows_by_heart(network: Network) -> bool:
    """Whether it is right of the images that it learned, and far less of others, so that more steps would not help."""
    return fmean(network.trained.values()) >= BY_HEART and not little_is_left(network)


def _gap(network: Network) -> float:
    """How much more accurate it is on training images than on test images, the mean over seeds."""
    return fmean(network.trained[seed] - network.accuracies[seed] for seed in network.trained)


def pretraining(results: Results, judged: Sequence[Judged]) -> list[str]:
    tried = [one for one in judged if one.found.a.pretrained or one.found.b.pretrained]
    if tried:
        return [_told(one, results.test_images) for one in tried]
    if any(network.pretrained for network in results.networks):
        return []
    return [
        "Not tried. With few photographs it usually brings more than the choice between these two networks;"
        " models=[timm:convnext_atto,timm:vit_tiny_patch16_224] tries it (docs/how-to/advise.md: bringing weights)."
    ]


# ------------------------------------------------------------------------------------------------- the test, classes


def the_test(results: Results) -> list[str]:
    best, images = results.networks[0], results.test_images
    low, high = binomial_interval(best.accuracy * images, images)
    return [
        f"{plural(images, 'test image')}: on other photographs of this kind {best.name}'s {_percent(best.accuracy)} may"
        f" be {_ends(low, high)} (95 %, of one trained network); four times as many would halve that."
    ]


def by_class(results: Results) -> list[str]:
    best, tested = results.networks[0], results.counts
    if not best.predictions:
        return []
    counts = np.mean([confusion_counts(results.labels, its, len(tested)) for its in best.predictions.values()], 0)
    recall = recalls(counts)  # of the mean counts, which is the mean recall: all seeds have the same test images
    names = [printable(name) for name in results.classes]
    said = []
    enough = [k for k in np.argsort(recall, kind="stable").tolist() if tested[k] >= FEWEST_TESTED]
    level = 1 - 0.05 / max(len(enough), 1)  # Bonferroni: one of many classes is worst by chance
    ends = {k: binomial_interval(recall[k] * tested[k], int(tested[k]), level) for k in enough}
    if weak := [k for k in enough if ends[k][1] < best.accuracy][:NAMED]:
        some = [f"{names[k]} ({100 * recall[k]:.0f} %, {_ends(*ends[k])})" for k in weak]
        said.append(f"{best.name} is surely weaker than its mean in {listed(some)}.")
    elif len(enough) > 1 and recall[enough[0]] < best.accuracy:
        worst = enough[0]
        among = (
            "the weakest"
            if len(enough) == len(names)
            else f"of those with {FEWEST_TESTED} or more test images the weakest"
        )
        said.append(
            f"No class is surely weaker than the mean: {among} is {names[worst]}, {100 * recall[worst]:.0f} % of"
            f" {plural(int(tested[worst]), 'test image')}, which leaves {_ends(*ends[worst])}."
        )
    others = counts.copy()
    np.fill_diagonal(others, 0)
    others[tested < FEWEST_TESTED] = 0
    if others.max() > 0:
        k, other = np.unravel_index(int(others.argmax()), others.shape)
        said.append(
            f"Most often confused: {names[int(k)]} is taken for {names[int(other)]} in"
            f" {100 * others[k, other] / tested[k]:.0f} % of its images."
        )
    balanced = float(np.nanmean(recall))
    if best.accuracy - balanced > UNEVEN:
        half = max(results.train_counts) / 2
        order = np.argsort(results.train_counts, kind="stable").tolist()
        small = [names[k] for k in order if k == order[0] or results.train_counts[k] < half][:NAMED]
        are = "is" if len(small) == 1 else "are"
        said.append(
            f"The classes are uneven, and accuracy hides it: the mean over classes is {_percent(balanced)}, not"
            f" {_percent(best.accuracy)}. The smallest {are} {listed(small)}; more images there may help, or"
            " optim.class_weights=balanced."
        )
    if few := [names[k] for k in range(len(names)) if tested[k] < FEWEST_TESTED]:
        some_of = listed(few[:NAMED]) + (f" and {len(few) - NAMED} more" if len(few) > NAMED else "")
        said.append(f"Fewer than {FEWEST_TESTED} test images of {some_of}: of these alone nothing can be told.")
    return said


def untold(results: Results, judged: Sequence[Judged]) -> list[str]:
    said = []
    if results.finished < results.planned:
        said.append(
            f"{results.planned - results.finished} of {plural(results.planned, 'planned run')} are not done: the same"
            " command goes on with them."
        )
    verdicts = {one.verdict for one in judged}
    if "few seeds" in verdicts:
        said.append(
            f"Which network is better: {LEAST_SEEDS} seeds or more could tell it. The same command with more minutes"
            " adds them."
        )
    if "seeds" in verdicts or "equal" in verdicts:
        said.append(
            "Where a difference may be chance: more seeds (in study.yaml), or more training images, could tell it."
        )
    if "images" in verdicts:
        said.append("Where the test images are too few: more of them (data.test_fraction) could tell it.")
    if results.report is None:
        few = min(results.train_counts) * SHARES[-1] < FEWEST_OF_A_CLASS
        said.append(
            "What more images would bring: training on three shares of the images, with two seeds or more, could tell"
            " it."
            + (" The smallest class has too few for that." if few else " The same command with more minutes adds them.")
        )
    said.append(
        "Larger networks, other recipes and months of training were not tried: the order of two networks can be another"
        " there."
    )
    return [*results.notes, *said]


# ------------------------------------------------------------------------------------------------------------- numbers


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _range(interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{_points(interval.mean)} without an interval ({interval.why})"
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} points"


def _ends(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} %"
