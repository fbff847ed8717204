"""What the settings of a run say of its images is what opens a source and takes a share of it."""

from __future__ import annotations

from typing import Any

import pytest

from vitbench.menu import parameters
from vitbench.settings.share import LABEL_KEYS, PLACE_KEYS, SHARE_KEYS, share_options, source_options, subset_seed


def settings(**data: Any) -> dict[str, Any]:
    share = {"fraction": 0.5, "count": None, "val_fraction": 0.1, "subset_seed": None}
    labels = {"name": "pets", "flip": True}
    places = {"permute": "none", "permute_share": 1.0, "permute_tile": 4, "permute_seed": None}
    return {"seed": 3, "data": {"source": "shapes", "root": "data", "task": "shape"} | labels | share | places | data}


def test_the_run_draws_its_images_with_its_own_seed_unless_told_another() -> None:
    assert subset_seed(settings()) == 3
    assert subset_seed(settings(subset_seed=0)) == 0
    assert share_options(settings(subset_seed=0)) == {
        "fraction": 0.5,
        "count": None,
        "val_fraction": 0.1,
        "subset_seed": 0,
    }


def test_every_setting_of_the_data_goes_to_the_source_or_the_share_or_the_places_or_names_the_images() -> None:
    its = settings()
    source = source_options(its["data"])
    assert source == {"source": "shapes", "root": "data", "task": "shape"}
    assert {*its["data"]} == {*source, *SHARE_KEYS, *LABEL_KEYS, *PLACE_KEYS}


@pytest.mark.parametrize("function", ["vitbench.data.share:load", "vitbench.data.subset:split_and_subset"])
def test_the_keys_of_a_share_are_arguments_of_who_takes_it(function: str) -> None:
    assert {*SHARE_KEYS} <= {*parameters(function)}
