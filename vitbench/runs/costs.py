"""What training cost in seconds, samples and multiply-adds: for a run alone, and with the runs that it needed.

A sample is an image in a training step; an image counts as often as it is used. For each image, a step costs three
forwards of the network, because the backward costs twice the forward (Kaplan et al. 2020, arXiv 2001.08361, section
2.1). A run with freeze=backbone is counted with one forward, because its backward ends at the head. A teacher's forward
of each image is counted, too. Evaluation is not counted, nor are modules that an objective trains beside the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitbench.objectives.menu import FORWARDS
from vitbench.runs.record import total_seconds
from vitbench.settings.choices import GROUPS, column_of

FORWARDS_OF_A_STEP = 3  # the forward and the backward of one image, in forwards


class Cost(NamedTuple):
    """The cost of training; None where it is not known."""

    seconds: float | None = None
    samples: int | None = None
    multiply_adds: int | None = None

    def plus(self, other: Cost) -> Cost:
        """Adds the costs of two trainings; a sum is None where one of them is not known."""
        sums: Any = [None if a is None or b is None else a + b for a, b in zip(self, other, strict=True)]
        return Cost(*sums)

    @property
    def as_totals(self) -> dict[str, Any]:
        """These costs by the names of their fields in a record."""
        return dict(zip(TOTALS, self, strict=True))


TOTALS = ("total_train_seconds", "total_samples_seen", "total_multiply_adds")
FREE = Cost(0.0, 0, 0)


def samples_seen(results: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """Returns the samples of a run's own steps; None where it diverged or was trained elsewhere."""
    batch_size = _setting(settings, "optim.batch_size")
    ended_early = results.get("status") == "diverged" or not results.get("steps")
    return None if batch_size is None or ended_early else int(results["steps"] * batch_size)


def own_cost(results: Mapping[str, Any], settings: Mapping[str, Any], teacher_multiply_adds: int | None = 0) -> Cost:
    """Returns what the run's own steps cost, with the forward of a teacher on each image."""
    samples, forward = samples_seen(results, settings), results.get("multiply_adds")
    forwards = FORWARDS.get(_setting(settings, "objective.name") or str(GROUPS["objective"].implied))
    counted = None
    if samples is not None and forward and forwards is not None and teacher_multiply_adds is not None:
        of_a_step = 1 if _setting(settings, "freeze") == "backbone" else FORWARDS_OF_A_STEP
        counted = samples * (of_a_step * forwards * forward + teacher_multiply_adds)
    return Cost(results.get("train_seconds"), samples, counted)


def total_cost(results: Mapping[str, Any], settings: Mapping[str, Any]) -> Cost:
    """Returns what a run cost together with the runs that it began from or learned from.

    `results` and `settings` are a record and its `config`, or both a row of a table. Where the total is missing and the
    run needed no other run, the total is the cost of its own steps.
    """
    needs_no_other = settings.get("init") is None and settings.get("teacher") is None
    own = own_cost(results, settings) if needs_no_other else Cost()
    _, samples, multiply_adds = (results.get(key, cost) for key, cost in zip(TOTALS, own, strict=True))
    return Cost(total_seconds(results, settings), samples, multiply_adds)


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    """Returns a setting, from nested settings or from a row of a table."""
    group, _, name = key.rpartition(".")
    nested = settings.get(group)
    return nested.get(name) if isinstance(nested, Mapping) else settings.get(column_of(key))
