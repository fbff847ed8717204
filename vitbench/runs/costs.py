"""What training cost: seconds, samples and multiply-adds, of a run alone and with all that it needed.

A sample is an image that went through a training step, counted as often as it did. A step costs three forwards of the
network an image, because the backward takes twice the forward (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). A
run with freeze=backbone is counted with one forward, because its backward ends at the head. A teacher's forward of each
image is counted too. Evaluation is not, nor what an objective trains beside the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitbench.objectives.menu import FORWARDS
from vitbench.runs.record import total_seconds
from vitbench.settings.choices import GROUPS, column_of

FORWARDS_OF_A_STEP = 3  # the forward and the backward of one image, in forwards


class Cost(NamedTuple):
    """The cost of training; None where nobody knows it."""

    seconds: float | None = None
    samples: int | None = None
    multiply_adds: int | None = None

    def plus(self, other: Cost) -> Cost:
        """Adds each cost where both are known."""
        sums: Any = [None if a is None or b is None else a + b for a, b in zip(self, other, strict=True)]
        return Cost(*sums)

    @property
    def as_totals(self) -> dict[str, Any]:
        """The fields of a record that hold these costs."""
        return dict(zip(TOTALS, self, strict=True))


TOTALS = ("total_train_seconds", "total_samples_seen", "total_multiply_adds")
FREE = Cost(0.0, 0, 0)


def samples_seen(results: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """The samples of a run's own steps; None where it diverged, or was trained elsewhere."""
    batch_size = _setting(settings, "optim.batch_size")
    ended_early = results.get("status") == "diverged" or not results.get("steps")
    return None if batch_size is None or ended_early else int(results["steps"] * batch_size)


def own_cost(results: Mapping[str, Any], settings: Mapping[str, Any], teacher_multiply_adds: int | None = 0) -> Cost:
    """What the run's own steps cost, with the forward of a teacher on each image."""
    samples, forward = samples_seen(results, settings), results.get("multiply_adds")
    forwards = FORWARDS.get(_setting(settings, "objective.name") or str(GROUPS["objective"].implied))
    counted = None
    if samples is not None and forward and forwards is not None and teacher_multiply_adds is not None:
        of_a_step = 1 if _setting(settings, "freeze") == "backbone" else FORWARDS_OF_A_STEP
        counted = samples * (of_a_step * forwards * forward + teacher_multiply_adds)
    return Cost(results.get("train_seconds"), samples, counted)


def total_cost(results: Mapping[str, Any], settings: Mapping[str, Any]) -> Cost:
    """What a run cost with all that it began from or learned from.

    `results` and `settings` are a record and its `config`, or both a row of a table. Where there is no total, a run
    that needed no other run cost what its own steps did.
    """
    needs_no_other = settings.get("init") is None and settings.get("teacher") is None
    own = own_cost(results, settings) if needs_no_other else Cost()
    _, samples, multiply_adds = (results.get(key, cost) for key, cost in zip(TOTALS, own, strict=True))
    return Cost(total_seconds(results, settings), samples, multiply_adds)


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    """A setting of nested settings or of a row."""
    group, _, name = key.rpartition(".")
    nested = settings.get(group)
    return nested.get(name) if isinstance(nested, Mapping) else settings.get(column_of(key))
