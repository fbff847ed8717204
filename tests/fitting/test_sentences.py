"""What `vitbench fit` says in words."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from vitbench.fitting.sentences import efficiency_sentence
from vitbench.numbers.efficiency import Ratio


def compared(*ratios: Ratio) -> Any:
    """A ViT behind a ResNet, surely, with these ratios of images."""
    leader, follower = SimpleNamespace(label="resnet"), SimpleNamespace(label="vit")
    return SimpleNamespace(ratios=ratios, leader=leader, follower=follower, is_sure=True)


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (1.4, 2.5, "vit needs 1.9x [1.4, 2.5] the images of resnet to match its error at 120."),
        (
            -math.inf,
            math.inf,
            "Whether vit needs more images than resnet to match its error at 120 cannot be told: 1.9x [< 1.0, > 9.0].",
        ),
        (
            0.8,
            2.5,
            "Whether vit needs more images than resnet to match its error at 120 cannot be told: 1.9x [< 1.0, 2.5].",
        ),
    ],
)
def test_more_images_are_needed_only_where_the_interval_says_so(low: float, high: float, sentence: str) -> None:
    assert efficiency_sentence(compared(Ratio(120, 1.9, low, high, 1.0, 9.0))) == sentence


def test_a_bound_at_a_larger_size_is_added() -> None:
    known, bound = Ratio(120, 1.9, 1.4, 2.5, 1.0, 9.0), Ratio(360, math.inf, math.inf, math.inf, 0.3, 3.0)
    assert efficiency_sentence(compared(known, bound)).endswith("error at 120; it needs more than 3.0x at 360.")
