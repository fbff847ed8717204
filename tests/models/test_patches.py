from __future__ import annotations

import pytest

from vitbench.models.patches import usual_patch_size
from vitbench.runs.plan import Planner
from vitbench.settings.identity import identity, run_id


@pytest.mark.parametrize("image_size", [8, 16, 28, 30, 32, 48, 64])
def test_small_images_keep_their_patches_of_4_px(image_size: int) -> None:
    assert usual_patch_size(image_size) == 4


@pytest.mark.parametrize(("image_size", "patch_size"), [(96, 8), (112, 8), (128, 16), (160, 16), (224, 16), (384, 32)])
def test_large_images_have_64_to_196_patches(image_size: int, patch_size: int) -> None:
    assert usual_patch_size(image_size) == patch_size
    assert 64 <= (image_size // patch_size) ** 2 <= 196


def test_a_stem_of_convolutions_gets_a_power_of_2() -> None:
    assert usual_patch_size(120) == 10 and usual_patch_size(120, power_of_two=True) == 8


def test_a_prime_side_is_refused_as_before() -> None:
    assert usual_patch_size(97) == 4


def test_the_size_that_is_used_is_part_of_the_settings_and_of_the_id() -> None:
    planner = Planner()
    large = planner.settings(["data=cifar10", "data.image_size=224"])
    assert large["model"]["patch_size"] == 16 and identity(large)["model.patch_size"] == 16
    assert run_id(large) == run_id(planner.settings(["data=cifar10", "data.image_size=224", "model.patch_size=16"]))
    typed = planner.settings(["data=cifar10", "data.image_size=224", "model.patch_size=4"])
    assert typed["model"]["patch_size"] == 4 and "model.patch_size" not in identity(typed)
    for model in ("vit", "mixer"):
        assert planner.settings([f"model={model}", "data=stl10"])["model"]["patch_size"] == 8
        assert "model.patch_size" not in identity(planner.settings([f"model={model}", "data=cifar10"]))
