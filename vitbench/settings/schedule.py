"""The learning rate as a pure function of the step, by the settings `optim`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitbench.errors import UserError

SCHEDULES = ("cosine", "constant", "wsd")


class Schedule(NamedTuple):
    """The learning rate rises linearly, stays at its peak, and falls. Any of these phases may have no step.

    cosine    falls from the end of warm-up to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5 with one period)
    constant  never falls
    wsd       stays at the peak, and in the last steps falls as 1 - sqrt(share of the decay that is done), the best of
              the forms that Hägele et al. 2024 (arXiv 2405.18392) tried; their usual form is linear
    """

    kind: str  # one of SCHEDULES
    steps: int
    rising: int  # steps of warm-up
    falling: int  # steps of the decay, at the end of the run

    @classmethod
    def of(cls, optim: Mapping[str, Any], steps: int) -> Schedule:
        """Makes the schedule of a run of `steps` steps. Raises UserError where its phases need more steps."""
        own, kind = optim["warmup_steps"], optim["schedule"]
        rising = round(optim["warmup"] * steps) if own is None else own
        falling = {"cosine": steps - rising, "constant": 0, "wsd": round(optim["decay"] * steps)}[kind]
        if rising > steps or rising + falling > steps:
            typed = f"optim.warmup={optim['warmup']:g}" if own is None else f"optim.warmup_steps={own}"
            decay = f" and optim.decay={optim['decay']:g} for {falling}" if kind == "wsd" else ""
            raise UserError(f"{typed}: asks for {rising} steps{decay}; the run has only {steps}")
        return cls(kind, steps, rising, falling)

    @property
    def falls_from(self) -> int:
        """The number of steps that are done when the decay begins."""
        return self.steps - self.falling

    def share_of_peak(self, step: int) -> float:
        """Returns the learning rate of a step (counted from 0), divided by the peak rate."""
        if step < self.rising:
            return (step + 1) / self.rising
        fallen = step - self.falls_from
        if fallen <= 0:
            return 1.0
        if self.kind == "wsd":
            return 1 - math.sqrt(fallen / self.falling)
        return 0.5 * (1 + math.cos(math.pi * fallen / self.falling))


def steps_of(optim: Mapping[str, Any], train_images: int) -> int:
    """Returns the number of steps of a run with these settings on `train_images` training images."""
    steps: int | None = optim["steps"]
    if optim["epochs"] is not None:
        steps = max(math.ceil(optim["epochs"] * (train_images / optim["batch_size"])), optim["min_steps"] or 1)
    assert steps is not None
    return steps
