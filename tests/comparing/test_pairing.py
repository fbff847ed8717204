"""Which lines are compared with which, where nobody says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitbench.comparing.pairing import usual_pairs


@dataclass(frozen=True)
class Line:
    settings: dict[str, Any]


def vit(**more: Any) -> Line:
    return Line({"model": "vit", "pe": "rope", **more})


def cnn(**more: Any) -> Line:
    return Line({"model": "resnet", "pe": None, **more})


def test_weights_that_fit_one_network_only_are_part_of_it() -> None:
    own_vit, own_cnn = vit(init="vit-rope-shapes-f1-s0-3fa9c1d2"), cnn(init="timm:resnet18")
    assert usual_pairs([own_vit, own_cnn]) == [(own_vit, own_cnn)]


def test_a_pretrained_network_is_compared_with_the_same_from_scratch_and_not_with_another() -> None:
    pretrained, scratch, other = vit(init="timm:deit"), vit(init=None), cnn(init=None)
    assert usual_pairs([pretrained, scratch, other]) == [(scratch, other), (pretrained, scratch)]


def test_words_that_say_where_a_run_begins_must_be_the_same() -> None:
    whole, part = vit(init="data.fraction=1"), cnn(init="data.fraction=0.1")
    assert usual_pairs([whole, part]) == []
    same = cnn(init="data.fraction=1")
    assert usual_pairs([whole, same]) == [(whole, same)]
