from __future__ import annotations

from typing import Any

import pytest

from vitbench.fitting.findings import cost_ratios, is_matched
from vitbench.fitting.sentences import cost_words


def run(images: int = 100, **changed: Any) -> dict[str, Any]:
    return {
        "train_images": images,
        "multiply_adds": 10,
        "parameters": 400,
        "train_seconds": 8.0,
        "hardware.name": "Xeon",
    } | changed


def test_a_tenth_apart_is_matched_and_more_is_not() -> None:
    found = cost_ratios([run(multiply_adds=11, train_seconds=8.9)], [run(parameters=100)], 100)
    assert found == pytest.approx({"multiply_adds": 1.1, "parameters": 4.0, "total_train_seconds": 8.9 / 8})
    assert cost_words(found) == "FLOP-matched 1.10x; parameters 4.0x; training time 1.11x"
    assert is_matched(1 / 1.1) and not is_matched(0.9)


def test_time_is_that_of_the_largest_size_on_one_kind_of_hardware() -> None:
    a = [run(train_seconds=1.0, images=10), run(train_seconds=6.0), run(train_seconds=10.0)]
    assert cost_ratios(a, [run()], 100)["total_train_seconds"] == 1.0
    assert "total_train_seconds" not in cost_ratios(a, [run(**{"hardware.name": "H200"})], 100)
    assert "total_train_seconds" not in cost_ratios(a, [run(images=10)], 100)


def test_what_a_run_began_from_is_part_of_its_time() -> None:
    tuned = run(init="other", total_train_seconds=24.0)
    assert cost_ratios([tuned], [run(init=None)], 100)["total_train_seconds"] == 3.0
    taught = run(teacher="other", total_train_seconds=16.0)
    assert cost_ratios([run()], [taught], 100)["total_train_seconds"] == 0.5
    assert "total_train_seconds" not in cost_ratios(
        [run(init="timm:x")], [run()], 100
    )  # how long that took is not known


def test_what_is_not_known_or_varies_is_not_said() -> None:
    assert cost_ratios([run(parameters=None), run()], [run(multiply_adds=None)], 100) == {"total_train_seconds": 1.0}
    assert (
        cost_ratios([{"train_images": 100, "train_seconds": 3.0}], [{"train_images": 100, "train_seconds": 3.0}], 100)
        == {}
    )
    assert cost_words({}) == ""
