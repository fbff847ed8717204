"""The advice in words. A sentence says no more than its numbers do: "these runs cannot tell" is an answer.

A difference is "sure" where two intervals exclude 0: the t interval over three seeds or more, which is about other
trainings, and the interval over the test images, which is about other photographs.
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

SMALL_GAP, LARGE_GAP = 0.05, 0.1  # gaps between the accuracies on training and on test images
BY_HEART, UNLEARNED = 0.95, 0.9  # accuracies on training images
SOLVED = 0.98  # an accuracy on test images
NEARLY_ALL = 0.95  # a network that gives one class to this share of the test images has learned nothing else
UNEVEN = 0.03  # a gap between accuracy and balanced accuracy
FEWEST_TESTED = 10  # a class needs so many test images before its recall is printed
NAMED = 3  # a sentence names at most so many classes
CANNOT_TELL = "these runs cannot tell which is better"


class Section(NamedTuple):
    title: str
    sentences: list[str]


class Judged(NamedTuple):
    """A difference with its verdict."""

    found: Difference
    verdict: Verdict
    p: float  # of the difference over seeds, Holm-corrected over all pairs that are compared


def sections(results: Results) -> list[Section]:
    """Returns the whole advice, the most important sections first."""
    judged = judged_pairs(results)
    told = [
        Section("Which network is better", which(results, judged)),
        Section("How many images the other network needs", images_needed(results, judged)),
        Section("What more images would bring", more_images(results)),
        Section("What longer training would bring", [more_time(network) for network in results.networks]),
        Section("What pretraining brings", pretraining(results, judged)),
        Section("How certain the test is", the_test(results)),
        Section("Which classes are difficult", by_class(results)),
        Section("What these runs cannot tell, and what could", untold(results, judged)),
    ]
    return [section for section in told if section.sentences]


def judged_pairs(results: Results) -> list[Judged]:
    """Compares all pairs of networks from scratch, each pretrained network with the best from scratch, and the best
    pretrained network with each other one (trained in whichever way was better)."""
    scratch = results.from_scratch
    pairs = [(a, b) for i, a in enumerate(scratch) for b in scratch[i + 1 :]]
    pretrained = [network for network in results.networks if network.pretrained]
    pairs += [(one, scratch[0]) for one in pretrained if scratch]
    better_ways = {one.row.get("model.arch"): one for one in reversed(pretrained)}  # the most accurate one stays
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
        f"Guessing would get {_percent(1 / len(results.classes))} of the test images right, and always answering"
        f" {printable(results.classes[floor[0]])} would get {_percent(floor[1])}. {best.name}, the best network here,"
        f" gets {_percent(best.accuracy)} right" + ("." if low > floor[1] else ", which is not clearly more than that.")
    )
    return [sentence for sentence in said if sentence]


def largest_class(results: Results) -> tuple[int, float]:
    """Returns the class with the most training images, and its share of the test images."""
    largest = int(np.argmax(results.train_counts))
    return largest, float(results.counts[largest] / results.test_images)


def _told(one: Judged, test_images: int) -> str:
    """Says in words which of two networks is better, or that the runs cannot tell."""
    a, b = one.found.a, one.found.b
    by = _points(one.found.mean)
    both = f"{a.name} gets {_percent(one.found.of_a)} of the test images right, {b.name} {_percent(one.found.of_b)}"
    seeds = plural(one.found.over_seeds.n, "seed")
    if one.verdict == "equal":
        return f"{a.name} or {b.name}: {CANNOT_TELL}. Both get {_percent(one.found.of_a)} of the test images right."
    if one.verdict == "few seeds":
        doubt = (
            "Each was trained only once, which cannot tell the better network from the lucky one."
            if seeds == "1 seed"
            else "Each was trained only twice (2 seeds), which is too few."
        )
        chance = ""
        if len(one.found.tests) == 1:
            p = one.found.tests[0]
            may = "would be rare by chance" if p < 0.05 else "may be chance"
            chance = f" On these test images, such a difference of two trainings {may} (McNemar's test, {p_words(p)})."
        return f"{a.name} or {b.name}: {CANNOT_TELL}. {both}: they are {by} apart. {doubt}{chance}"
    if one.verdict == "seeds":
        return (
            f"{a.name} or {b.name}: {CANNOT_TELL}. {both}. In other trainings the difference may be"
            f" {_range(one.found.over_seeds)} (95 % interval over {seeds}), so it may be chance ({p_words(one.p)})."
        )
    if one.verdict == "images":
        return (
            f"{a.name} or {b.name}: {CANNOT_TELL} on other photographs. {both}. On these test images {a.name} is better"
            f" by {by}, clearly over {seeds}; but with only {plural(test_images, 'test image')} the difference on other"
            f" photographs may be {_range(one.found.over_images)} (95 % interval)."
        )
    agree = sum(p < 0.05 for p in holm(one.found.tests))
    return (
        f"{a.name} is better than {b.name} by {by} (percentage points): {both}. In other trainings the difference is"
        f" likely {_range(one.found.over_seeds)} (95 % interval over {seeds}, {p_words(one.p)}). On other photographs"
        f" it is likely {_range(one.found.over_images)} (95 % interval over the {plural(test_images, 'test image')})."
        f" McNemar's test, which compares two networks image by image, agrees in {agree} of"
        f" {plural(len(one.found.tests), 'seed')}."
    )


def _lazy(network: Network, results: Results) -> str:
    """Says of a network that gives nearly every image one class that it does so; "" of others."""
    answers = [np.bincount(its, minlength=len(results.classes)) for its in network.predictions.values()]
    if not answers or min(its.max() / its.sum() for its in answers) < NEARLY_ALL:
        return ""
    names = listed(dict.fromkeys(printable(results.classes[int(its.argmax())]) for its in answers))
    return (
        f"{network.name} calls nearly every image {names}: it has learned nothing except which class is large, however"
        " high its accuracy is."
    )


# ------------------------------------------------------------------------------------- more images, time, pretraining


def images_needed(results: Results, judged: Sequence[Judged]) -> list[str]:
    """Says of each pair how many images one needs to match the other, and where one overtakes the other."""
    said = []
    for one in judged:
        compared = results.compared(one.found.a.name, one.found.b.name)
        if compared is None:
            continue
        said += [efficiency_sentence(compared), crossover_sentence(compared)]
    return [sentence for sentence in said if sentence]


def more_images(results: Results) -> list[str]:
    """Says what twice the images would bring, by the fitted curve of each network that can be relied on."""
    said = []
    for network in results.from_scratch:
        line = results.line(network.name)
        if line is None:
            continue
        if not line.is_fitted or line.counted.n[-1] < line.curve.n[-1]:
            said.append(
                f"{network.name}: these runs cannot tell. Here the number of steps or the size of the network limits"
                " it, not the number of images."
            )
            continue
        curve = line.counted
        if curve.held_back > UNRELIABLE or not curve.exponent.high < 0:
            why = "its accuracy does not clearly rise with more images" if curve.held_back <= UNRELIABLE else (
                f"a curve through the smaller numbers of images misses the largest by {100 * curve.held_back:.0f} %"
            )  # fmt: skip
            said.append(f"{network.name}: these runs cannot tell, because {why}.")
            continue
        n = 2 * float(curve.n[-1])
        errors = curve.error_at(n)
        ends = "" if errors.why else f" ({_ends(max(0.0, 1 - errors.high), 1 - errors.low)} with other seeds)"
        said.append(
            f"{network.name} with {n:,.0f} images, twice as many, would get about {_percent(1 - errors.mean)}{ends} of"
            f" the test images right, instead of {_percent(network.accuracy)}. This is an extrapolation of its learning"
            " curve, with the same number of steps."
        )
    return said


def more_time(network: Network) -> str:
    """Says whether longer training would help, by the accuracies on training and test images and the end of the run."""
    if not network.trained:
        return ""
    seen = fmean(network.trained.values())
    rise = mean_interval(network.rises.values(), scale=1.0)  # differences of accuracies
    both = f"It gets {_percent(seen)} of its training images and {_percent(network.accuracy)} of the test images right."
    rises = rise.n >= LEAST_SEEDS and rise.low > 0
    end = (
        f" In the last fifth of training its accuracy on validation images rose by {_points(rise.mean)}, in part"
        " because the learning rate falls there."
        if rises
        else ""
    )
    if little_is_left(network):
        return f"{network.name}: little is left to learn from these images. {both}"
    if seen < UNLEARNED and _gap(network) < SMALL_GAP:
        return (
            f"{network.name}: longer training or a larger network would probably help, because it has not learned its"
            f" training images yet. {both}{end}"
        )
    if knows_by_heart(network):
        return (
            f"{network.name}: longer training on the same images would hardly help, because it knows them by heart."
            f" {both} More images, stronger augmentation (augment=strong) or pretraining may help.{end}"
        )
    how = "longer training may help, and so may more images"
    unclear = "these runs cannot tell whether longer training would help"
    return f"{network.name}: {how if rises else unclear}. {both}{end}"


def little_is_left(network: Network) -> bool:
    """Whether it gets nearly all test images right, or nearly all training images and not much fewer test images."""
    seen = fmean(network.trained.values())
    return network.accuracy >= SOLVED or (seen >= BY_HEART and _gap(network) <= LARGE_GAP)


def knows_by_heart(network: Network) -> bool:
    """Whether it gets nearly all training images right but far fewer test images, so that more steps would not help."""
    return fmean(network.trained.values()) >= BY_HEART and not little_is_left(network)


def _gap(network: Network) -> float:
    """Returns how much more accurate it is on training images than on test images, as the mean over seeds."""
    return fmean(network.trained[seed] - network.accuracies[seed] for seed in network.trained)


def pretraining(results: Results, judged: Sequence[Judged]) -> list[str]:
    """Says what the pretrained networks bring, or that none was tried."""
    tried = [one for one in judged if one.found.a.pretrained or one.found.b.pretrained]
    if tried:
        return [_told(one, results.test_images) for one in tried]
    if any(network.pretrained for network in results.networks):
        return []
    return [
        "No pretrained network was tried. With few photographs, pretraining usually brings more than the choice between"
        " these two networks. models=[timm:convnext_atto,timm:vit_tiny_patch16_224] tries it; docs/how-to/advise.md"
        " says how to bring weights."
    ]


# ------------------------------------------------------------------------------------------------- the test, classes


def the_test(results: Results) -> list[str]:
    """Says how far the best accuracy may be from that on other photographs (Clopper and Pearson's interval)."""
    best, images = results.networks[0], results.test_images
    low, high = binomial_interval(best.accuracy * images, images)
    return [
        f"The test has {plural(images, 'image')}. {best.name} gets {_percent(best.accuracy)} of them right; of other"
        f" photographs of this kind it may get {_ends(low, high)} right (95 % interval for one trained network). Four"
        " times as many test images would halve that range."
    ]


def by_class(results: Results) -> list[str]:
    """Says in which classes the best network is weak, which it confuses, and which cannot be judged."""
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
        some = [f"{names[k]} ({100 * recall[k]:.0f} %; on other photographs {_ends(*ends[k])})" for k in weak]
        said.append(f"{best.name} is clearly less accurate than on average in {listed(some)}.")
    elif len(enough) > 1 and recall[enough[0]] < best.accuracy:
        worst = enough[0]
        among = "" if len(enough) == len(names) else f" of those with {FEWEST_TESTED} or more test images"
        said.append(
            f"In no class is {best.name} clearly less accurate than on average. The weakest{among} is {names[worst]}:"
            f" it gets {100 * recall[worst]:.0f} % of {plural(int(tested[worst]), 'test image')} right, and on other"
            f" photographs perhaps {_ends(*ends[worst])}."
        )
    others = counts.copy()
    np.fill_diagonal(others, 0)
    others[tested < FEWEST_TESTED] = 0
    if others.max() > 0:
        k, other = np.unravel_index(int(others.argmax()), others.shape)
        said.append(
            f"The most frequent confusion: {best.name} takes {100 * others[k, other] / tested[k]:.0f} % of the test"
            f" images of {names[int(k)]} for {names[int(other)]}."
        )
    balanced = float(np.nanmean(recall))
    if best.accuracy - balanced > UNEVEN:
        half = max(results.train_counts) / 2
        order = np.argsort(results.train_counts, kind="stable").tolist()
        small = [names[k] for k in order if k == order[0] or results.train_counts[k] < half][:NAMED]
        are = "class is" if len(small) == 1 else "classes are"
        said.append(
            f"The classes have uneven numbers of images, and the accuracy hides it: its mean over classes is"
            f" {_percent(balanced)}, not {_percent(best.accuracy)}. The smallest {are} {listed(small)}; more images"
            " there may help, or optim.class_weights=balanced."
        )
    if few := [names[k] for k in range(len(names)) if tested[k] < FEWEST_TESTED]:
        some_of = listed(few[:NAMED]) + (f" and {len(few) - NAMED} more" if len(few) > NAMED else "")
        said.append(
            f"There are fewer than {FEWEST_TESTED} test images of {some_of}, which is too few to judge"
            f" {'this class' if len(few) == 1 else 'these classes'}."
        )
    return said


def untold(results: Results, judged: Sequence[Judged]) -> list[str]:
    """Says what these runs leave open, and what could answer it."""
    said = []
    if results.finished < results.planned:
        said.append(
            f"{results.planned - results.finished} of {plural(results.planned, 'planned run')} are not done; the same"
            " command does them."
        )
    verdicts = {one.verdict for one in judged}
    if "few seeds" in verdicts:
        said.append(
            f"Which network is better: {LEAST_SEEDS} seeds (trainings of each network) or more could tell. The same"
            " command with more minutes adds them."
        )
    if "seeds" in verdicts or "equal" in verdicts:
        said.append("Where a difference may be chance, more seeds (in study.yaml) or more training images could tell.")
    if "images" in verdicts:
        said.append("Where there are too few test images, more of them (data.test_fraction) could tell.")
    if results.report is None:
        few = min(results.train_counts) * SHARES[-1] < FEWEST_OF_A_CLASS
        said.append(
            "What more images would bring: training on three shares of the images, with two seeds or more, could tell."
            + (
                " The smallest class has too few images for that."
                if few
                else " The same command with more minutes adds these runs."
            )
        )
    said.append(
        "Larger networks, other recipes of training and far longer training were not tried. With them another network"
        " may be the better one."
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
