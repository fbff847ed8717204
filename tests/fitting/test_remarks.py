"""What `vitbench fit` says at the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vitbench.fitting.remarks import advice_sentences


def limited(steps: int) -> Any:
    """A report of two curves that images do not limit, of runs of so many steps."""
    size = SimpleNamespace(counts=False, is_solved=False, epochs=None)
    lines = [SimpleNamespace(label=name, rows=[{"steps": steps}], sizes=[size]) for name in "ab"]
    whole = SimpleNamespace(a=lines[0], b=lines[1])
    return SimpleNamespace(
        pairs=[SimpleNamespace(whole=whole, crossover=SimpleNamespace(verdict="limited"))],
        lines=lines,
        value="test_error",
        axis=SimpleNamespace(unit="images"),
    )


@pytest.mark.parametrize(("steps", "words"), [(0, "freeze=none"), (100, "optim.epochs=40")])
def test_longer_training_is_advised_to_runs_that_train_alone(steps: int, words: str) -> None:
    (sentence,) = advice_sentences(limited(steps))
    assert words in sentence and ("train longer" in sentence) == bool(steps)
