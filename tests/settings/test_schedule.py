"""The learning rate at each step, against values that were worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Output
from vitbench.errors import UserError
from vitbench.settings.schedule import SCHEDULES, Schedule


def schedule(kind: str, steps: int, **optim: Any) -> Schedule:
    return Schedule.of({"schedule": kind, "warmup": 0.1, "warmup_steps": None, "decay": 0.2} | optim, steps)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_is_linear_and_reaches_the_peak(kind: str) -> None:
    made = schedule(kind, 100)
    assert [made.share_of_peak(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])


def test_cosine_falls_from_the_peak_to_nearly_zero() -> None:
    made = schedule("cosine", 100)
    assert made.share_of_peak(10) == 1.0
    assert made.share_of_peak(55) == pytest.approx(0.5)
    assert made.share_of_peak(99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_constant_stays_at_the_peak() -> None:
    made = schedule("constant", 100)
    assert {made.share_of_peak(step) for step in range(10, 100)} == {1.0}


def test_wsd_stays_at_the_peak_and_falls_as_one_minus_a_root() -> None:
    made = schedule("wsd", 100, decay=0.25)
    assert made.falls_from == 75
    assert {made.share_of_peak(step) for step in range(10, 76)} == {1.0}  # the first step of the decay is at the peak
    assert made.share_of_peak(79) == pytest.approx(1 - math.sqrt(4 / 25)) == pytest.approx(0.6)
    assert made.share_of_peak(91) == pytest.approx(1 - 4 / 5)
    assert 0 < made.share_of_peak(99) < 0.03


def test_runs_of_every_length_have_the_same_stable_phase_with_warm_up_in_steps() -> None:
    short, long = (schedule("wsd", steps, warmup=None, warmup_steps=7) for steps in (50, 500))
    assert [short.share_of_peak(step) for step in range(41)] == [long.share_of_peak(step) for step in range(41)]
    assert short.share_of_peak(41) < long.share_of_peak(41) == 1.0


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.5, 0.8])
def test_every_step_of_short_runs_has_a_rate_in_0_to_1(kind: str, steps: int, warmup: float) -> None:
    made = schedule(kind, steps, warmup=warmup)
    rates = [made.share_of_peak(step) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates) and max(rates) > 0


def test_warm_up_and_decay_need_room() -> None:
    with pytest.raises(
        UserError, match=r"optim.warmup=0.9: asks for 90 steps and optim.decay=0.2 for 20; .* has only 100"
    ):
        schedule("wsd", 100, warmup=0.9)
    with pytest.raises(UserError, match=r"optim.warmup_steps=101: asks for 101 steps; the run has only 100"):
        schedule("cosine", 100, warmup_steps=101)
    assert schedule("cosine", 100, warmup=1).share_of_peak(99) == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.schedule=cosin"], "optim.schedule=cosin: did you mean cosine?"),
        (["optim.decay=0.3"], "optim.decay=0.3: goes with optim.schedule=wsd"),
        (["optim.warmup=0.2", "optim.warmup_steps=9"], "optim.warmup=0.2 and optim.warmup_steps=9: give one of them"),
        (["optim.warmup=null"], "optim.warmup=null: type a share of the steps, or type optim.warmup_steps"),
        (["optim.warmup_steps=2000"], "optim.warmup_steps=2000: asks for 2000 steps; the run has only 1000"),
        (["optim.schedule=wsd", "optim.decay=0"], "optim.decay=0.0: must be above 0 and at most 1 (a share"),
    ],
)
def test_a_slip_gets_one_line(vitbench: Callable[..., Output], words: list[str], said: str) -> None:
    output = vitbench("train", *words)
    assert output.code == 2 and said in output.err and output.err.count("\n") == 1
