"""What is said of a report as a whole: what to run next, what a target takes, what another form would change."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitbench.fitting.findings import Compared, Report
from vitbench.fitting.limits import SOLVED
from vitbench.numbers.curves import GUARD, UNRELIABLE
from vitbench.numbers.words import bracketed, is_share, listed, number

LONG = 40  # epochs that let images, and not the length of training, be the limit


def advice_sentences(report: Report) -> list[str]:
    """Says what to run where a pair is limited by budget or size: longer training, other features, a harder task."""
    pairs = [{c.whole.a.label, c.whole.b.label} for c in report.pairs if c.crossover.verdict == "limited"]
    solved = {
        line.label: sizes
        for line in report.lines
        if any(line.label in pair for pair in pairs)
        and (sizes := [size.n for size in line.sizes if size.is_solved and not size.counts])
    }
    said = []
    unsolved = [pair for pair in pairs if not pair & {*solved}]
    frozen = {line.label for line in report.lines if line.rows and all(row.get("steps") == 0 for row in line.rows)}
    if any(pair & frozen for pair in unsolved):
        said.append(
            "Frozen features are the limit there: to see what more images would do, take the features of larger"
            " networks, or fine-tune (freeze=none)."
        )
    if any(not pair & frozen for pair in unsolved):
        not_counted = [size for line in report.lines for size in line.sizes if not size.counts]
        epochs = max(LONG, math.ceil(2 * min((size.epochs for size in not_counted if size.epochs), default=0)))
        said.append(
            f"To see what more images would do, train longer or larger networks, for example optim.epochs={epochs}"
            " optim.min_steps=4000 or a larger model.size."
        )
    return said + [
        f"{label} has solved the task at {listed(map(number, sizes))} {report.axis.unit} ({report.value} at most"
        f" {SOLVED:g}): a harder task would show more there, and longer training would not."
        for label, sizes in solved.items()
    ]


def target_sentences(report: Report) -> list[str]:
    """Says of each curve how many images it would need for the accuracy or loss that was asked for."""
    error, unit = report.asked_target, report.axis.unit
    if error is None:
        return []
    goal = f"a test accuracy of {100 * (1 - error):g} %" if is_share(report.value) else f"a {report.value} of {error:g}"
    sentences = []
    for curve, needed in report.targets:
        first, most = curve.n[0], GUARD * curve.n[-1]
        if needed.mean > most:
            said = f"would need more than {number(most)} {unit} for {goal}, if it reaches that at all"
        elif needed.mean < first:
            said = f"needs fewer than {number(first)} {unit} for {goal}"
        else:
            interval = bracketed(needed.low, needed.high, number, first, most)
            said = f"needs about {number(needed.mean)} {interval} {unit} for {goal}"
        doubt = "; do not rely on it, because its held-back check failed" if curve.held_back > UNRELIABLE else ""
        left_out = [size.n for size in report.fitted_lines[curve.label].sizes if size.n > curve.n[-1]]
        if left_out and needed.mean > curve.n[-1]:
            where = listed(map(number, left_out))
            doubt += f"; this takes a larger budget or network than that of these runs, which limits it at {where}"
        sentences.append(f"{curve.label} {said}{doubt}.")
    for line in report.lines:
        if not line.is_fitted:
            counted = f"{len(line.counted.n)} of its {len(line.sizes)} sizes count"
            sentences.append(f"How many {unit} {line.label} needs for {goal} cannot be told: {counted}.")
    return sentences


def form_sentences(report: Report) -> list[str]:
    """Says which other form fits about as well, and what it changes of exponents and verdicts."""
    sentences = []
    for other in report.in_other_forms if report.curves else []:
        form, best = other.form.form, report.form
        exponents = ", ".join(f"{curve.label} {curve.exponent.mean:.2f}" for curve in other.curves)
        changed = [
            f"{new.pair.a.label} against {new.pair.b.label}: {_verdict(new)} instead of {_verdict(old)}"
            for old, new in zip(report.pairs, other.pairs, strict=True)
            if _verdict(old) != _verdict(new)
        ]
        as_well = "better than" if best.aicc[form] < best.aicc[best.form] else "about as well as"
        sentences.append(
            f"{form} fits {as_well} {best.form} (AICc {best.aicc[form] - best.aicc[best.form]:+.1f}): exponents"
            f" {exponents}; {'; '.join(changed) or 'no verdict changes'}."
        )
    return sentences


def _verdict(compared: Compared) -> str:
    crossover = compared.crossover
    times = f" x{crossover.times:.1f}" if crossover.verdict == "extrapolated" else ""
    place = f" at {number(crossover.n)}" if crossover.verdict == "observed" else ""
    return f"{crossover.verdict}{times}{place}"


def budget_words(report: Report) -> Sequence[str]:
    """Says what the gap between training and test means, where training was measured on augmented batches."""
    if not any(size.loss_gap is not None for line in report.lines for size in line.sizes):
        return []
    return [
        "Augmentation and label smoothing raise the loss of training batches. So they can hide a loss gap, but they"
        " cannot make one."
    ]
