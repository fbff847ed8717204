"""What is said of a report as a whole: what a target takes, what another form would change, and what a gap means."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitbench.fitting.findings import Compared, Report
from vitbench.fitting.sentences import bracketed, number
from vitbench.numbers.curves import GUARD, UNRELIABLE
from vitbench.numbers.words import is_share


def target_sentences(report: Report) -> list[str]:
    """Says of each curve how many images it would need for the accuracy or loss that was asked for."""
    error, unit = report.asked_target, report.axis.unit
    if error is None:
        return []
    goal = f"a test accuracy of {100 * (1 - error):g} %" if is_share(report.value) else f"a {report.value} of {error:g}"
    sentences = []
    for curve, needed in report.targets:
        first, most = curve.n[0], GUARD * curve.n[-1]
        if needed.mean == math.inf:
            said = f"would not reach {goal} by its fit, however many {unit} there were"
        elif needed.mean > most:
            said = f"would need more than {number(most)} {unit} for {goal}, which is not extrapolated"
        elif needed.mean < first:
            said = f"needs fewer than {number(first)} {unit} for {goal}"
        else:
            interval = bracketed(needed.low, needed.high, number, first, most)
            said = f"needs about {number(needed.mean)} {interval} {unit} for {goal}"
        doubt = "; not to be relied on, its held-back check failed" if curve.held_back > UNRELIABLE else ""
        sentences.append(f"{curve.label} {said}{doubt}.")
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
    with_gap = [size for line in report.lines for size in line.sizes if size.gap is not None]
    of_batches = [size for size in with_gap if size.trained is None]
    if not of_batches:
        return []
    where = "The" if len(of_batches) == len(with_gap) else "Where `train` is unknown, the"
    return [
        f"{where} gap is that of the loss, from the last training batches to test images. Augmentation and label"
        " smoothing raise the loss of batches: they may hide a gap, and a gap that is seen is one."
    ]
